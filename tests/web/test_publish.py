"""Publishing over HTTP, sentence by sentence of the wire contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.log.receipt import Receipt
from hub.notification import Draft, Position
from tests.spec_decoder import SpecDecoder
from tests.web.client import request, until
from tests.web.conftest import Serve
from tests.web.server import Answer, Server

MIB = 1024 * 1024


def check_problem(answer: Answer, status: int, field: str | None = None) -> dict[str, Any]:
    """Check that *answer* is a problem of RFC 9457 with *status*, about *field*."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    assert all(isinstance(problem[name], str) and problem[name] for name in ("type", "title", "detail"))
    assert "Traceback" not in answer.body.decode()
    assert problem.get("field") == field, problem
    return problem


# ---- what is accepted ----


async def test_an_accepted_draft_is_answered_with_its_id_and_its_topics(server: Server) -> None:
    client = await server.subscribe("orders")
    answer = await server.publish({"topic": "orders", "data": {"n": 1}, "type": "order.created"})
    assert answer.status == 201
    assert answer.headers["Content-Type"].startswith("application/json")
    event = await client.next("order.created")
    assert answer.json() == {"id": event.id, "topics": ["orders"]}
    assert event.data == '{"n":1}'


async def test_without_a_topic_it_goes_to_notifications(server: Server) -> None:
    client = await server.subscribe()
    answer = await server.publish({"data": "x"})
    assert (answer.status, answer.json()["topics"]) == (201, ["notifications"])
    assert (await client.next()).data == "x"


@pytest.mark.parametrize(
    ("given", "topics"),
    [
        ({"topic": "a"}, ["a"]),
        ({"topics": ["a", "b"]}, ["a", "b"]),
        ({"topic": "c", "topics": ["a", "b"]}, ["c", "a", "b"]),
        ({"topic": "b", "topics": ["a", "b", "a"]}, ["b", "a"]),
        ({"topics": [f"t/{n}" for n in range(16)]}, [f"t/{n}" for n in range(16)]),
        ({"topic": "t/0", "topics": [f"t/{n}" for n in range(16)]}, [f"t/{n}" for n in range(16)]),
    ],
)
async def test_topic_and_topics_are_united_in_order(server: Server, given: dict[str, Any], topics: list[str]) -> None:
    answer = await server.publish({**given, "data": 1})
    assert (answer.status, answer.json()["topics"]) == (201, topics)


@pytest.mark.parametrize("data", ["text", "", 0, 1.5, True, None, [], {}, {"深": ["い"]}, "line\nline"])
async def test_data_may_be_anything_json_knows(server: Server, data: object) -> None:
    client = await server.subscribe()
    assert (await server.publish({"data": data})).status == 201
    event = await client.next()
    assert (event.data if isinstance(data, str) else event.json()) == data


async def test_every_field_together_is_accepted(server: Server) -> None:
    client = await server.subscribe("a")
    draft = {
        "topic": "a",
        "topics": ["b"],
        "data": 1,
        "type": "kind",
        "retry": 5_000,
        "private": False,
        "tags": {"region": "eu", "n": 1, "flag": True, "none": None},
        "key": "k",
    }
    assert (await server.publish(draft)).status == 201
    await client.next("kind")
    assert client.decoder.retry == 5_000


async def test_the_id_that_is_answered_can_be_resumed_from(server: Server) -> None:
    ids = [(await server.publish({"data": number})).json()["id"] for number in range(3)]
    client = await server.subscribe(last_event_id=ids[0])
    assert [(await client.next()).id for _ in range(2)] == ids[1:]


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
async def test_json_by_any_of_its_names_is_read(server: Server, media_type: str) -> None:
    answer = await server.ask(
        "POST", "/notifications/publish", headers={"Content-Type": media_type}, body='{"data":"é"}'.encode()
    )
    assert answer.status == 201


async def test_a_chunked_body_is_read(server: Server) -> None:
    client = await server.client()
    head = "POST /notifications/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    await client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    for part in ('{"data"', ':"in ', 'parts"}', ""):
        await client.send(f"{len(part):x}\r\n{part}\r\n".encode())
    assert await client.head() == 201


async def test_publishes_on_one_connection_keep_their_order(server: Server) -> None:
    stream = await server.subscribe()
    client = await server.client()
    headers = {"Content-Type": "application/json"}
    bodies = [json.dumps({"data": number}).encode() for number in range(50)]
    await client.send(
        b"".join(request("POST", "/notifications/publish", headers=headers, body=body) for body in bodies)
    )
    ids = []
    for _ in bodies:
        assert await client.head() == 201
        ids.append((await client.json())["id"])
    events = [await stream.next() for _ in bodies]
    assert [event.id for event in events] == ids
    assert [event.json() for event in events] == list(range(50))


# ---- lists ----


async def test_a_list_is_answered_with_a_list_of_neighbours(server: Server) -> None:
    client = await server.subscribe("a", "b")

    async def others() -> None:
        for number in range(50):
            await server.publish({"data": number, "topic": "other"})

    noise = asyncio.create_task(others())
    for _ in range(5):
        answer = await server.publish([{"topic": "a", "data": 1}, {"topic": "b", "data": 2}, {"topic": "a", "data": 3}])
        assert answer.status == 201
        accepted = answer.json()
        assert [each["topics"] for each in accepted] == [["a"], ["b"], ["a"]]
        offsets = [int(each["id"].rpartition("-")[2]) for each in accepted]
        assert offsets == list(range(offsets[0], offsets[0] + 3))
        events = [await client.next() for _ in range(3)]
        assert [event.id for event in events] == [each["id"] for each in accepted]
    await noise


async def test_a_list_of_one_is_answered_with_a_list(server: Server) -> None:
    answer = await server.publish([{"data": 1}])
    assert (answer.status, len(answer.json())) == (201, 1)


async def test_1000_drafts_are_a_list_and_1001_too_many(server: Server) -> None:
    assert len((await server.publish([{"data": n} for n in range(1_000)])).json()) == 1_000
    check_problem(await server.publish([{"data": n} for n in range(1_001)]), 400, "body")
    assert server.hub.metrics.published == 1_000


async def test_an_empty_list_is_refused(server: Server) -> None:
    check_problem(await server.publish([]), 400, "body")


async def test_a_list_with_one_wrong_draft_is_refused_as_a_whole(server: Server) -> None:
    client = await server.subscribe("**")
    answer = await server.publish([{"data": 1}, {"data": 2, "key": "k"}, {"data": 3, "topic": "a/*"}, {"data": 4}])
    check_problem(answer, 400, "[2].topic")
    assert (await server.publish({"data": "first", "key": "k"})).status == 201
    assert (await client.next()).data == "first"
    assert server.hub.metrics.published == 1


# ---- keys ----


async def test_a_repeated_key_answers_the_first_id_and_delivers_nothing(server: Server) -> None:
    client = await server.subscribe()
    first = await server.publish({"data": "once", "key": "k"})
    second = await server.publish({"data": "twice", "key": "k"})
    assert (first.status, second.status) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    server.send("end")
    assert [event.data for event in await client.upto("end")] == ["once", "end"]


async def test_a_repeated_list_is_answered_as_the_first_was(server: Server) -> None:
    drafts = [{"data": number, "key": f"k{number}"} for number in range(3)]
    first, second = await server.publish(drafts), await server.publish(drafts)
    assert (first.status, second.status) == (201, 200)
    assert first.json() == second.json()
    assert server.hub.metrics.published == 3


async def test_a_key_twice_in_one_list_is_delivered_once(server: Server) -> None:
    answer = await server.publish([{"data": 1, "key": "k"}, {"data": 2, "key": "k"}])
    assert answer.status == 201
    assert answer.json()[0]["id"] == answer.json()[1]["id"]
    assert server.hub.metrics.published == 1


async def test_other_keys_and_no_key_are_never_repeats(server: Server) -> None:
    drafts: list[dict[str, Any]] = [{"data": 1, "key": "a"}, {"data": 1, "key": "b"}, {"data": 1}, {"data": 1}]
    assert [(await server.publish(draft)).status for draft in drafts] == [201] * 4
    assert server.hub.metrics.published == 4


# ---- what is refused ----


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        ({}, "data"),
        ({"topic": "a"}, "data"),
        ({"data": 1, "tpoic": "a"}, "tpoic"),
        ({"data": 1, "id": "x"}, "id"),
        ({"data": 1, "topic": "a/*"}, "topic"),
        ({"data": 1, "topic": "**"}, "topic"),
        ({"data": 1, "topic": ""}, "topic"),
        ({"data": 1, "topic": "a//b"}, "topic"),
        ({"data": 1, "topic": "a\nb"}, "topic"),
        ({"data": 1, "topic": 5}, "topic"),
        ({"data": 1, "topic": ["a"]}, "topic"),
        ({"data": 1, "topic": "x" * 257}, "topic"),
        ({"data": 1, "topics": "a"}, "topics"),
        ({"data": 1, "topics": []}, "topics"),
        ({"data": 1, "topics": [1]}, "topics"),
        ({"data": 1, "topics": ["a", "b/*"]}, "topics"),
        ({"data": 1, "topics": {"a": 1}}, "topics"),
        ({"data": 1, "topics": [f"t/{n}" for n in range(17)]}, "topics"),
        ({"data": 1, "topic": "x", "topics": [f"t/{n}" for n in range(16)]}, "topics"),
        ({"data": 1, "type": "hub.open"}, "type"),
        ({"data": 1, "type": "hub."}, "type"),
        ({"data": 1, "type": "error"}, "type"),
        ({"data": 1, "type": ""}, "type"),
        ({"data": 1, "type": 1}, "type"),
        ({"data": 1, "type": "a\nb"}, "type"),
        ({"data": 1, "type": "a\rid: 9"}, "type"),
        ({"data": 1, "type": "a\0"}, "type"),
        ({"data": 1, "type": "x" * 257}, "type"),
        ({"data": 1, "retry": -1}, "retry"),
        ({"data": 1, "retry": 1.5}, "retry"),
        ({"data": 1, "retry": "5"}, "retry"),
        ({"data": 1, "retry": True}, "retry"),
        ({"data": 1, "retry": 10**30}, "retry"),
        ({"data": 1, "private": "yes"}, "private"),
        ({"data": 1, "private": 1}, "private"),
        ({"data": 1, "tags": []}, "tags"),
        ({"data": 1, "tags": {"a": {}}}, "tags"),
        ({"data": 1, "tags": {"a": "x" * 300}}, "tags"),
        ({"data": 1, "key": ""}, "key"),
        ({"data": 1, "key": 5}, "key"),
        ({"data": 1, "key": "x" * 257}, "key"),
        ({"data": "\ud800"}, "data"),
        ({"data": ["\udfff"]}, "data"),
        ({"data": 1, "type": "\ud800"}, "type"),
        ({"data": 1, "topic": "\ud800"}, "topic"),
        ({"data": 1, "key": "\ud800"}, "key"),
        ({"data": 1, "tags": {"\ud800": 1}}, "tags"),
        ({"data": 1, "tags": {"a": "\ud800"}}, "tags"),
        ("text", "body"),
        (5, "body"),
        (None, "body"),
    ],
)
async def test_a_wrong_draft_is_refused_as_a_problem_that_names_the_field(
    server: Server, draft: object, field: str
) -> None:
    check_problem(await server.publish(draft), 400, field)
    assert server.hub.metrics.published == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"data",
        b"{'data': 1}",
        b'{"data": NaN}',
        b'{"data": Infinity}',
        b'{"data": 1}garbage',
        b'{"data": "\xff"}',
        '{"data": 1}'.encode("utf-16"),
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data": ' + b"9" * 10_000 + b"}",
        b"\0" * 100,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_not_json_is_refused(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await server.ask("POST", "/notifications/publish", headers=headers, body=body)
    check_problem(answer, 400, answer.json().get("field"))
    assert answer.json()["field"] in {"body", "data"}


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
async def test_another_media_type_is_refused(server: Server, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    check_problem(await server.ask("POST", "/notifications/publish", headers=headers, body=b'{"data": 1}'), 415)


async def test_no_media_type_at_all_is_refused(server: Server) -> None:
    check_problem(await server.ask("POST", "/notifications/publish", body=b'{"data": 1}'), 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
async def test_another_method_is_refused(server: Server, method: str) -> None:
    answer = await server.ask(method, "/notifications/publish")
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


# ---- sizes ----


async def test_a_body_of_one_mebibyte_is_read(server: Server) -> None:
    client = await server.subscribe()
    body = b'{"data":"' + b"x" * (MIB - 11) + b'"}'
    assert len(body) == MIB
    headers = {"Content-Type": "application/json"}
    answer = await server.ask("POST", "/notifications/publish", headers=headers, body=body)
    assert answer.status == 201
    assert len((await client.next()).data) == MIB - 11


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB])
async def test_a_larger_body_is_refused_before_it_is_read(server: Server, size: int) -> None:
    client = await server.client()
    head = (
        f"POST /notifications/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}"
    )
    await client.send(f"{head}\r\n\r\n".encode())
    assert await client.head() == 413
    problem = await client.json()
    assert (problem["status"], problem["field"]) == (413, "body")
    client.close()


async def test_a_larger_body_in_chunks_is_refused_when_it_is_too_large(server: Server) -> None:
    client = await server.client()
    head = "POST /notifications/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    await client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    part = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    for _ in range(MIB // 0x8000 + 2):
        await client.send(part)
    assert await client.head() == 413
    assert (await client.json())["field"] == "body"
    client.close()


async def test_data_that_grows_beyond_its_bound_when_it_is_encoded_is_refused(server: Server) -> None:
    # One byte a character on the way in, six escaped bytes a character on the way out.
    body = json.dumps({"data": ["\x01" * 300_000]}, ensure_ascii=False)
    headers = {"Content-Type": "application/json"}
    answer = await server.ask("POST", "/notifications/publish", headers=headers, body=body.encode())
    assert answer.status in {400, 413}


# ---- when the log does not answer ----


class SilentLog:
    """Takes drafts and confirms them when the test says so."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        receipts = [Receipt(draft.topics) for draft in drafts]
        self.receipts += receipts
        return receipts


async def test_the_answer_comes_after_the_confirmation(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = SilentLog()
    monkeypatch.setattr(server.hub.log, "append", silent.append)
    publishing = asyncio.create_task(server.publish({"data": 1}))
    await until(lambda: silent.receipts)
    assert (await server.ask("GET", "/healthz")).status == 200
    assert not publishing.done()
    silent.receipts[0].confirm(Position("e", 7))
    answer = await publishing
    assert (answer.status, answer.json()["id"]) == (201, "e-7")


async def test_a_log_that_does_not_confirm_is_a_503_with_a_time_to_retry(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SilentLog()
    monkeypatch.setattr(server.hub.log, "append", silent.append)
    one = asyncio.create_task(server.publish({"data": 1}))
    await until(lambda: silent.receipts)
    many = asyncio.create_task(server.publish([{"data": 1}, {"data": 2}, {"data": 3}]))
    await until(lambda: len(silent.receipts) == 4)
    unobserved: list[Exception] = []
    for receipt in silent.receipts:
        receipt.fail(LogUnavailable("the disk is full"), unobserved.append)
    for answer in await asyncio.gather(one, many):
        check_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    del receipt
    silent.receipts.clear()
    assert not unobserved, "whoever published was told"


async def test_a_log_that_takes_nothing_more_is_a_503_with_a_time_to_retry(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(drafts: object) -> None:
        raise LogUnavailable("too much waits")

    monkeypatch.setattr(server.hub.log, "append", append)
    answer = await server.publish({"data": 1})
    check_problem(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1


async def test_while_draining_a_publish_is_a_503_with_a_time_to_retry(server: Server) -> None:
    await server.hub.drain(0)
    for draft in ({"data": 1}, [{"data": 1}]):
        answer = await server.publish(draft)
        check_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    assert (await server.ask("GET", "/readyz")).status == 503
    assert (await server.ask("GET", "/healthz")).status == 200


async def test_one_who_leaves_before_the_confirmation_changes_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SilentLog()
    monkeypatch.setattr(server.hub.log, "append", silent.append)
    client = await server.client()
    headers = {"Content-Type": "application/json"}
    await client.request("POST", "/notifications/publish", headers=headers, body=b'{"data": 1}')
    await until(lambda: silent.receipts)
    client.reset()
    silent.receipts[0].confirm(Position("e", 7))
    assert (await server.ask("GET", "/healthz")).status == 200


# ---- events ----


async def test_events_are_accepted_only_where_that_is_set(server: Server) -> None:
    assert (await server.post("/events/order.created", {"id": 1})).status == 404


async def test_an_event_is_emitted_with_the_body_as_its_payload(serve: Serve) -> None:
    server = await serve(events_api=True)
    heard: list[Any] = []
    server.hub.bus.on("order.*", lambda event: heard.append((event.name, event.payload)))
    answer = await server.post("/events/order.created", {"id": 1})
    assert answer.status == 202
    await until(lambda: heard)
    assert heard == [("order.created", {"id": 1})]


@pytest.mark.parametrize("name", ["order..created", "order.*", "%00", "x" * 300])
async def test_a_wrong_event_name_is_refused(serve: Serve, name: str) -> None:
    server = await serve(events_api=True)
    assert check_problem(await server.post(f"/events/{name}", 1), 400, "event")


# ---- anything ----


class Bodies:
    """Any JSON whatever, and drafts with a wrong part."""

    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30)
    json = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    )
    drafts = st.fixed_dictionaries(
        {"data": json},
        optional={
            "topic": st.text(max_size=20) | json,
            "topics": st.lists(st.text(max_size=20), max_size=20) | json,
            "type": st.text(max_size=20) | json,
            "retry": json,
            "private": json,
            "tags": json,
            "key": st.text(max_size=20) | json,
        },
    )
    any = drafts | st.lists(drafts, max_size=3) | json


@pytest.mark.slow
@given(bodies=st.lists(Bodies.any, min_size=1, max_size=20))
def test_whatever_is_published_the_stream_stays_whole(bodies: list[Any]) -> None:
    asyncio.run(publish_and_check(bodies))


async def publish_and_check(bodies: list[Any]) -> None:
    server = await Server.start({})
    try:
        stream = await server.subscribe("**")
        accepted: list[str] = []
        for body in bodies:
            answer = await server.publish(body)
            if answer.status in {200, 201}:
                said = answer.json()
                accepted += [each["id"] for each in (said if isinstance(said, list) else [said])]
            else:
                check_problem(answer, answer.status, answer.json().get("field"))
                assert answer.status == 400, answer.body
        server.send("end", type="the.end")
        events = [await stream.event()]
        while events[-1].type != "the.end":
            events.append(await stream.event())
        assert [event.id for event in events[:-1]] == list(dict.fromkeys(accepted))
        whole = SpecDecoder()
        assert whole.feed(bytes(stream.received))[1:] == events
        assert not whole.unknown
        assert not whole.comments
    finally:
        await server.aclose()
