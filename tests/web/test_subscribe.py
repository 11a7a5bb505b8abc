"""Subscribing, sentence by sentence of the wire contract."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from hub.errors import LogUnavailable
from tests.spec_decoder import SpecDecoder
from tests.web.client import Client, request, until
from tests.web.conftest import Serve
from tests.web.server import Answer, Server

pytestmark = pytest.mark.both_loops

AWAY = re.compile(rb'retry: ([0-9]+)\nevent: hub\.close\ndata: \{"reason":"(capacity|draining)"\}\n\n')


def offset(id: str) -> int:
    return int(id.rpartition("-")[2])


def retry_of(answer: Answer, reason: str) -> int:
    """The reconnection time of an answer that only says when to come back, and why."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    match = AWAY.fullmatch(answer.body)
    assert match, answer.body
    assert match[2].decode() == reason
    return int(match[1])


# ---- the answer ----


async def test_the_headers_say_event_stream_uncached_unbuffered(server: Server) -> None:
    client = await server.subscribe()
    assert client.status == 200
    assert client.headers["Content-Type"] == "text/event-stream"
    assert client.headers["Cache-Control"] == "no-cache, no-transform"
    assert client.headers["Connection"] == "keep-alive"
    assert client.headers["X-Accel-Buffering"] == "no"
    assert client.headers["Transfer-Encoding"] == "chunked"
    assert len(client.headers) == len({name.lower() for name in client.headers})


async def test_the_first_bytes_come_at_once_and_are_nothing_but_the_opening(server: Server) -> None:
    client = await server.subscribe("orders")
    facts = client.opened.json()
    assert client.received.decode() == (
        f"retry: {client.decoder.retry}\n"
        f"id: {client.opened.id}\n"
        "event: hub.open\n"
        f'data: {{"connection":"{facts["connection"]}","topics":["orders"],"recovered":null}}\n'
        "\n"
    )
    assert re.fullmatch(r"c_[0-9a-f]{8,}", facts["connection"])
    assert client.is_silent()


async def test_each_connection_has_an_id_of_its_own_and_is_told_another_time_to_come_back(server: Server) -> None:
    clients = [await server.subscribe() for _ in range(20)]
    assert len({client.opened.json()["connection"] for client in clients}) == 20
    times = [client.decoder.retry for client in clients]
    assert all(time is not None and 2_000 <= time <= 4_000 for time in times)
    assert len(set(times)) > 10


@pytest.mark.parametrize("header", ["HX-Request", "Datastar-Request"])
async def test_clients_that_double_their_delay_are_told_a_shorter_one(server: Server, header: str) -> None:
    clients = [await server.subscribe(headers={header: "true"}) for _ in range(20)]
    times = [client.decoder.retry for client in clients]
    assert all(time is not None and 500 <= time <= 1_500 for time in times)
    assert len(set(times)) > 10
    assert 2_000 <= ((await server.subscribe(headers={header: "false"})).decoder.retry or 0) <= 4_000


async def test_no_stream_is_ever_compressed(server: Server) -> None:
    client = await server.subscribe(headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    assert "Content-Encoding" not in client.headers


async def test_a_stream_has_no_content_length_and_no_end(server: Server) -> None:
    client = await server.subscribe()
    assert "Content-Length" not in client.headers
    server.send("still there")
    assert (await client.next()).data == "still there"


# ---- what is asked ----


async def test_without_a_topic_the_subscription_is_to_notifications(server: Server) -> None:
    client = await server.subscribe()
    assert client.opened.json()["topics"] == ["notifications"]
    server.send("elsewhere", topic="orders")
    server.send("here")
    assert (await client.next()).data == "here"


async def test_a_stream_carries_exactly_the_topics_it_asked_for(server: Server) -> None:
    client = await server.subscribe("orders", "room/lobby")
    assert client.opened.json()["topics"] == ["orders", "room/lobby"]
    for topic in ("room", "room/lobby/back", "orders/1", "notifications", "Orders", "room/lobby", "orders"):
        server.send(topic, topic=topic)
    assert [(await client.next()).data for _ in range(2)] == ["room/lobby", "orders"]
    assert client.is_silent()


async def test_one_star_stands_for_one_segment_and_two_for_any_number(server: Server) -> None:
    one, two = await server.subscribe("stock/*"), await server.subscribe("stock/**")
    for topic in ("stock", "stock/AAPL", "stock/AAPL/bid", "stocks/AAPL"):
        server.send(topic, topic=topic)
    server.send("end", topic="stock/end")
    assert [event.data for event in await one.upto("end")] == ["stock/AAPL", "end"]
    assert [event.data for event in await two.upto("end")] == ["stock", "stock/AAPL", "stock/AAPL/bid", "end"]


async def test_a_notification_that_is_wanted_for_several_reasons_comes_once(server: Server) -> None:
    client = await server.subscribe("a", "b", "*", "**", "a")
    server.send("both", topics=["a", "b"])
    server.send("end", topic="a")
    assert [event.data for event in await client.upto("end")] == ["both", "end"]
    resumed = await server.subscribe("a", "b", "*", "**", last_event_id=client.opened.id)
    assert [event.data for event in await resumed.upto("end")] == ["both", "end"]


async def test_128_topics_are_a_subscription(server: Server) -> None:
    topics = [f"t/{number}" for number in range(128)]
    client = await server.subscribe(*topics)
    assert client.opened.json()["topics"] == topics
    server.send("last", topic="t/127")
    assert (await client.next()).data == "last"


async def test_129_topics_are_too_many(server: Server) -> None:
    answer = await server.ask("GET", server.subscribe_path(*(f"t/{number}" for number in range(129))))
    assert answer.status == 400
    assert "128" in answer.json()["detail"]


@pytest.mark.parametrize("topic", ["", "a//b", "/a", "a/", "a*", "a/b*/c", "x" * 257, "a\n", "a\0b", "a/" * 16 + "a"])
async def test_a_wrong_topic_is_refused_as_a_problem_that_names_it(server: Server, topic: str) -> None:
    answer = await server.ask("GET", server.subscribe_path("fine", topic))
    problem = answer.json()
    assert (answer.status, problem["status"], problem["field"]) == (400, 400, "topic")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= problem.keys()


async def test_the_post_form_does_the_same_for_long_lists(server: Server) -> None:
    first, *rest = server.send("one", "two", "three", topic="t/5")
    topics = [f"t/{number}" for number in range(128)]
    client = await server.client()
    body = json.dumps({"topics": topics, "lastEventId": first}).encode()
    await client.request("POST", server.subscribe_path(), headers={"Content-Type": "application/json"}, body=body)
    assert await client.head() == 200
    opened = await client.next("hub.open")
    assert (opened.json()["topics"], opened.json()["recovered"], opened.id) == (topics, True, first)
    assert [(await client.next()).id for _ in rest] == rest
    server.send("live", topic="t/0")
    assert (await client.next()).data == "live"


async def test_an_empty_post_asks_for_the_default_topic(server: Server) -> None:
    client = await server.client()
    await client.request("POST", server.subscribe_path(), headers={"Content-Type": "application/json"}, body=b"{}")
    assert await client.head() == 200
    assert (await client.next("hub.open")).json()["topics"] == ["notifications"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"topics": "orders"}, "topics"),
        ({"topics": {"orders": 1}}, "topics"),
        ({"topics": [1]}, "topic"),
        ({"topics": ["a//b"]}, "topic"),
        ({"topics": ["a"] * 50 + [f"t/{n}" for n in range(129)]}, "topic"),
        ({"lastEventId": 5}, "lastEventId"),
        ({"topic": "orders"}, "topic"),
        ([], "body"),
        ("orders", "body"),
    ],
)
async def test_a_wrong_post_is_refused_as_a_problem_that_names_the_field(
    server: Server, body: object, field: str
) -> None:
    answer = await server.post("/notifications/subscribe", body)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_head_is_answered_405_and_touches_no_stream(server: Server) -> None:
    answer = await server.ask("HEAD", server.subscribe_path("orders"))
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "OPTIONS", "POST"}
    assert server.hub.metrics.connects == 0


# ---- where the stream begins ----


async def test_where_nothing_is_asked_the_stream_begins_after_the_newest_position(server: Server) -> None:
    *_, newest = server.send(*"abc", topic="elsewhere")
    client = await server.subscribe()
    assert client.opened.id == newest
    assert client.opened.json()["recovered"] is None


async def test_a_recovered_stream_repeats_the_asked_id_and_brings_everything_after_it(server: Server) -> None:
    ids = server.send(*"abcde")
    client = await server.subscribe(last_event_id=ids[1])
    assert client.opened.id == ids[1]
    assert client.opened.json()["recovered"] is True
    assert not {"reason", "oldest"} & client.opened.json().keys()
    assert [((event := await client.next()).id, event.data) for _ in "cde"] == list(zip(ids[2:], "cde", strict=True))
    assert client.is_silent()


async def test_the_newest_id_is_recovered_with_nothing_to_follow(server: Server) -> None:
    *_, newest = server.send(*"abc")
    client = await server.subscribe(last_event_id=newest)
    assert (client.opened.id, client.opened.json()["recovered"]) == (newest, True)
    server.send("d")
    assert (await client.next()).data == "d"


async def test_the_id_of_a_stream_on_which_nothing_ever_came_can_be_resumed(server: Server) -> None:
    first = await server.subscribe()
    assert offset(first.opened.id) == 0
    server.send("a")
    client = await server.subscribe(last_event_id=first.opened.id)
    assert client.opened.json()["recovered"] is True
    assert (await client.next()).data == "a"


async def test_the_query_says_where_to_begin_for_those_who_cannot_send_headers(server: Server) -> None:
    ids = server.send(*"abc")
    client = await server.subscribe(query={"lastEventId": ids[0]})
    assert (client.opened.id, client.opened.json()["recovered"]) == (ids[0], True)
    assert [(await client.next()).data for _ in "bc"] == ["b", "c"]


async def test_the_header_wins_over_the_query_and_over_the_body(server: Server) -> None:
    ids = server.send(*"abc")
    client = await server.subscribe(last_event_id=ids[1], query={"lastEventId": ids[0]})
    assert client.opened.id == ids[1]
    client = await server.client()
    headers = {"Content-Type": "application/json", "Last-Event-ID": ids[1]}
    body = json.dumps({"lastEventId": ids[0]}).encode()
    await client.request("POST", server.subscribe_path(), headers=headers, body=body)
    assert await client.head() == 200
    assert (await client.next("hub.open")).id == ids[1]


@pytest.mark.parametrize(
    "asked", ["nonsense", "{epoch}-", "{epoch}-99", "{epoch}-01", "{epoch}-1 ", "{epoch}--1", "-1", "{epoch}-1é", "0"]
)
async def test_an_id_that_no_hub_gave_out_is_a_gap_of_the_unknown_kind(server: Server, asked: str) -> None:
    ids = server.send(*"abc")
    asked = asked.format(epoch=server.hub.log.epoch)
    client = await server.subscribe(query={"lastEventId": asked})
    facts = client.opened.json()
    assert facts["recovered"] is False
    assert facts["reason"] in {"unknown", "epoch"}
    assert facts["reason"] == "unknown" or asked == "-1"
    assert facts["oldest"] == ids[0]
    gap = await client.next("hub.gap")
    assert gap.json() == {"recovered": False, "reason": facts["reason"], "oldest": ids[0]}
    assert [(await client.next()).data for _ in "abc"] == ["a", "b", "c"]


async def test_an_id_of_another_log_is_a_gap_of_the_epoch_kind(server: Server) -> None:
    server.send(*"ab")
    client = await server.subscribe(last_event_id="0123456789-1")
    assert client.opened.json()["reason"] == "epoch"
    assert (await client.next("hub.gap")).json()["reason"] == "epoch"
    assert [(await client.next()).data for _ in "ab"] == ["a", "b"]


async def test_a_gap_begins_just_before_the_first_notification_that_follows(server: Server) -> None:
    server.send("x", "y", topic="elsewhere")
    (first, *_) = server.send("a", "b")
    client = await server.subscribe(last_event_id="0123456789-1")
    assert offset(client.opened.id) == offset(first) - 1


async def test_a_gap_with_nothing_to_follow_begins_at_the_newest(server: Server) -> None:
    *_, newest = server.send("x", "y", topic="elsewhere")
    client = await server.subscribe(last_event_id="0123456789-1")
    assert client.opened.id == newest
    await client.next("hub.gap")
    server.send("live")
    assert (await client.next()).data == "live"


async def test_what_was_trimmed_is_a_gap_of_the_trimmed_kind(serve: Serve) -> None:
    server = await serve(retain_count=3)
    ids = server.send(*"abcdef")
    client = await server.subscribe(last_event_id=ids[0])
    facts = client.opened.json()
    assert (facts["recovered"], facts["reason"], facts["oldest"]) == (False, "trimmed", ids[3])
    assert client.opened.id == ids[2]
    assert (await client.next("hub.gap")).json() == {"recovered": False, "reason": "trimmed", "oldest": ids[3]}
    assert [(await client.next()).id for _ in "def"] == ids[3:]


async def test_the_last_id_before_what_is_kept_is_no_gap(serve: Serve) -> None:
    server = await serve(retain_count=3)
    ids = server.send(*"abcdef")
    client = await server.subscribe(last_event_id=ids[2])
    assert client.opened.json()["recovered"] is True
    assert [(await client.next()).id for _ in "def"] == ids[3:]


async def test_a_quiet_topic_in_a_busy_hub_is_not_a_gap(serve: Serve) -> None:
    server = await serve(retain_count=10)
    (quiet,) = server.send("quiet", topic="quiet")
    server.send(*map(str, range(100)), topic="busy")
    client = await server.subscribe("quiet", last_event_id=quiet)
    assert (client.opened.id, client.opened.json()["recovered"]) == (quiet, True)
    server.send("again", topic="quiet")
    assert (await client.next()).data == "again"


async def test_a_busy_topic_beside_the_quiet_one_is_a_gap(serve: Serve) -> None:
    server = await serve(retain_count=10)
    (quiet,) = server.send("quiet", topic="quiet")
    server.send(*map(str, range(100)), topic="busy")
    client = await server.subscribe("quiet", "busy", last_event_id=quiet)
    assert client.opened.json()["reason"] == "trimmed"


async def test_a_pattern_is_judged_by_everything_that_was_trimmed(serve: Serve) -> None:
    server = await serve(retain_count=10)
    (quiet,) = server.send("quiet", topic="quiet/1")
    ids = server.send(*map(str, range(100)), topic="busy")
    client = await server.subscribe("quiet/*", last_event_id=quiet)
    assert client.opened.json()["reason"] == "trimmed"
    client = await server.subscribe("quiet/*", last_event_id=ids[-10])
    assert client.opened.json()["recovered"] is True


async def test_when_retention_overtakes_a_replay_the_gap_stands_where_the_hole_is(serve: Serve) -> None:
    server = await serve(retain_count=400, retain_bytes=2**30)
    filler = "x" * 32_000
    ids = server.send(*(f"{number} {filler}" for number in range(400)))
    client = await server.subscribe(last_event_id=ids[0], receive_buffer=16_384)
    client.stop_reading()
    (connection,) = server.subscriptions
    await until(lambda: connection._paused)
    ids += server.send(*(f"{number} {filler}" for number in range(400, 900)))
    client.read_on()
    got = [await client.event()]
    while got[-1].id != ids[-1] or got[-1].type == "hub.gap":
        got.append(await client.event())
    (place,) = [place for place, event in enumerate(got) if event.type == "hub.gap"]
    facts = got[place].json()
    assert facts["reason"] == "trimmed"
    before, after = [event.id for event in got[:place]], [event.id for event in got[place + 1 :]]
    assert before == ids[1 : len(before) + 1]
    assert after == ids[-len(after) :]
    assert len(before) + len(after) < len(ids) - 1
    assert facts["oldest"] == after[0] == ids[500]


# ---- what comes ----


async def test_the_bytes_of_a_notification_are_those_of_the_contract(server: Server) -> None:
    client = await server.subscribe()
    client.received.clear()
    order = {"message": "新订单 #1", "amount": 99.5}
    (first,) = server.send(order, type="order.created")
    (second,) = server.send("one\rtwo\r\nthree\nfour\n", retry=1500)
    (third,) = server.send(None)
    (fourth,) = server.send("")
    server.send("end")
    await client.upto("end")
    assert client.received.decode().startswith(
        f'event: order.created\nid: {first}\ndata: {{"message":"新订单 #1","amount":99.5}}\n\n'
        f"retry: 1500\nid: {second}\ndata: one\ndata: two\ndata: three\ndata: four\ndata: \n\n"
        f"id: {third}\ndata: null\n\n"
        f"id: {fourth}\ndata: \n\n"
    )


@pytest.mark.parametrize("data", ["text", "", " leading", "a\nb\r\nc\rd", "\n", "é\U0001f600", "data: x", ":", "id: 7"])
async def test_a_string_arrives_as_it_was_but_for_its_line_ends(server: Server, data: str) -> None:
    client = await server.subscribe()
    server.send(data, "end")
    events = await client.upto("end")
    expected = data.replace("\r\n", "\n").replace("\r", "\n")
    assert [event.data for event in events] == [expected, "end"]


@pytest.mark.parametrize("data", [0, -1.5, True, None, [], {}, {"a": [1, {"b": "ü\n"}]}, [" "], "☃", 10**30])
async def test_anything_else_arrives_as_compact_json(server: Server, data: object) -> None:
    client = await server.subscribe()
    server.send([data])
    event = await client.next()
    assert event.data == json.dumps([data], ensure_ascii=False, separators=(",", ":"))


async def test_ids_only_grow_from_the_opening_on(server: Server) -> None:
    server.send(*"abc")
    client = await server.subscribe("**")
    for number in range(50):
        server.send(number, topic=f"t/{number % 7}")
    server.send("end")
    ids = [client.opened.id, *(event.id for event in await client.upto("end"))]
    assert [offset(id) for id in ids] == list(range(3, 3 + len(ids)))


async def test_everybody_sees_the_same_id_for_the_same_notification(server: Server) -> None:
    clients = [await server.subscribe(*topics) for topics in ((), ("notifications", "x"), ("**",))]
    (id,) = server.send("same")
    assert [(await client.next()).id for client in clients] == [id] * 3


async def test_an_envelope_names_the_first_topic_of_the_notification_that_is_wanted(server: Server) -> None:
    client = await server.subscribe("c", "b/*", query={"envelope": "1"})
    plain = await server.subscribe("c", "b/*")
    server.send({"n": 1}, topics=["a", "b/2", "c"])
    server.send("text\nof two lines", topics=["c", "b/2"])
    assert [(await client.next()).json() for _ in range(2)] == [
        {"topic": "b/2", "data": {"n": 1}},
        {"topic": "c", "data": "text\nof two lines"},
    ]
    assert [(await plain.next()).data for _ in range(2)] == ['{"n":1}', "text\nof two lines"]


async def test_an_envelope_wraps_what_is_replayed_the_same_way(server: Server) -> None:
    start = (await server.subscribe()).opened.id
    live = await server.subscribe("c", "b/*", query={"envelope": "1"})
    server.send({"n": 1}, topics=["a", "b/2", "c"], type="kind", retry=5)
    server.send("end", topics=["c", "b/2"])
    resumed = await server.subscribe("c", "b/*", query={"envelope": "1"}, last_event_id=start)
    for client in (live, resumed):
        await client.next("kind")
        assert (await client.next()).data == '{"topic":"c","data":"end"}'
        assert client.decoder.retry == 5
    assert live.received.partition(b"\n\n")[2] == resumed.received.partition(b"\n\n")[2]


@pytest.mark.parametrize(("envelope", "type", "typed"), [("topics", "made", ""), ("all", "message", '"type":"made",')])
async def test_an_envelope_with_topics_names_all_that_are_wanted(
    server: Server, envelope: str, type: str, typed: str
) -> None:
    start = (await server.subscribe()).opened.id
    live = await server.subscribe("c", "b/*", query={"envelope": envelope})
    server.send({"n": 1}, topics=["a", "b/2", "c"], type="made", retry=5)
    server.send("text", topics=["c"])
    resumed = await server.subscribe("c", "b/*", query={"envelope": envelope}, last_event_id=start)
    for client in (live, resumed):
        first, second = await client.event(), await client.event()
        assert (first.type, first.data) == (type, f'{{"topics":["b/2","c"],{typed}"data":{{"n":1}}}}')
        assert (second.type, second.data) == ("message", '{"topics":["c"],"data":"text"}')
    assert live.received.partition(b"\n\n")[2] == resumed.received.partition(b"\n\n")[2]


async def test_an_envelope_with_topics_has_the_id_of_what_comes_too_late_to_have_one(server: Server) -> None:
    client = await server.subscribe("a", query={"envelope": "topics"})
    (early,) = server.send(1, topics=["b"])
    (newer,) = server.send(2, topics=["a"])
    assert (await client.next()).id == newer
    change = {"add": ["b"], "after": client.opened.id}
    path = f"/notifications/connections/{client.opened.json()['connection']}"
    assert (
        await server.ask("PATCH", path, headers={"Content-Type": "application/json"}, body=json.dumps(change).encode())
    ).status == 200
    assert (await client.next("hub.topics")).json()["from"] == client.opened.id
    late = await client.next()
    assert (late.id, late.data) == (newer, f'{{"id":"{early}","topics":["b"],"data":1}}')


async def test_an_envelope_that_does_not_exist_is_refused(server: Server) -> None:
    answer = await server.ask("GET", server.subscribe_path(envelope="yes"))
    assert (answer.status, answer.json()["field"]) == (400, "envelope")


async def test_an_idle_stream_gets_a_heartbeat_that_carries_its_cursor(serve: Serve) -> None:
    server = await serve(heartbeat=0.05)
    client = await server.subscribe("quiet")
    client.received.clear()
    await client.block()
    assert bytes(client.received[: client.received.index(b"\n\n") + 2]) == f":\nid: {client.opened.id}\n\n".encode()
    (newest,) = server.send("busy", topic="elsewhere")
    while client.decoder.last_event_id != newest:
        await client.block()
    resumed = await server.subscribe("quiet", last_event_id=newest)
    assert resumed.opened.json()["recovered"] is True
    assert not client._events


async def test_a_heartbeat_also_reaches_a_stream_that_was_replayed(serve: Serve) -> None:
    server = await serve(heartbeat=0.05)
    ids = server.send(*"abc")
    client = await server.subscribe(last_event_id=ids[0])
    assert [(await client.next()).data for _ in "bc"] == ["b", "c"]
    (newest,) = server.send("busy", topic="elsewhere")
    while client.decoder.last_event_id != newest:
        await client.block()


# ---- answers that send away ----


async def test_over_capacity_the_client_is_told_to_come_back_in_10_to_60_seconds(serve: Serve) -> None:
    server = await serve(max_connections=1)
    first = await server.subscribe()
    times = [retry_of(await server.ask("GET", server.subscribe_path()), "capacity") for _ in range(12)]
    assert all(10_000 <= time <= 60_000 for time in times)
    assert len(set(times)) > 6
    assert server.registered["connections"] == 1
    first.close()
    await server.deserted()
    again = await server.subscribe()
    assert again.opened.json()["recovered"] is None


async def test_over_capacity_http_1_0_and_post_are_sent_away_too(serve: Serve) -> None:
    server = await serve(max_connections=1)
    await server.subscribe()
    retry_of(await server.ask("GET", server.subscribe_path(), version="1.0"), "capacity")
    retry_of(await server.post("/notifications/subscribe", {"topics": ["a"]}), "capacity")


async def test_while_draining_the_client_is_told_to_come_back_in_1_to_6_seconds(serve: Serve) -> None:
    server = await serve()
    client = await server.subscribe()
    client.stop_reading()
    draining = asyncio.create_task(server.hub.drain(0.5))
    await until(lambda: server.hub.draining)
    times = [retry_of(await server.ask("GET", server.subscribe_path()), "draining") for _ in range(8)]
    assert all(1_000 <= time <= 6_000 for time in times)
    assert len(set(times)) > 4
    await draining


async def test_draining_ends_each_stream_with_a_reason_and_a_time_to_come_back(serve: Serve) -> None:
    server = await serve()
    clients = [await server.subscribe() for _ in range(10)]
    (last,) = server.send("last")
    await server.hub.drain(0.2)
    for client in clients:
        assert (await client.next()).data == "last"
        closing = await client.next("hub.close")
        assert (closing.json(), closing.id) == ({"reason": "shutdown"}, last)
        assert client.decoder.retry is not None
        assert 1_000 <= client.decoder.retry <= 6_000
        assert await client.body()
        assert client.complete
    assert len({client.decoder.retry for client in clients}) > 5


async def test_when_the_history_can_not_be_read_the_client_is_told_to_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = server.send(*"abc")

    def frames(*args: object, **options: object) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.set_exception(LogUnavailable("it is away"))
        return answer

    monkeypatch.setattr(server.hub.log, "frames", frames)
    client = await server.client()
    await client.request("GET", server.subscribe_path(), headers={"Last-Event-ID": ids[0]})
    assert await client.head() == 200
    await client.body()
    assert client.complete
    # The cursor must not move beyond what was asked: what lies behind it has not been sent.
    assert client.decoder.last_event_id in {"", ids[0]}
    assert client.decoder.retry is not None
    assert client.decoder.retry >= 1_000
    await server.deserted()


async def test_when_the_log_is_away_the_client_is_told_to_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounds() -> None:
        raise LogUnavailable("it is away")

    monkeypatch.setattr(server.hub.log, "bounds", bounds)
    answer = await server.ask("GET", server.subscribe_path())
    assert answer.status == 200
    decoder = SpecDecoder()
    decoder.feed(answer.body)
    assert decoder.retry is not None
    assert decoder.retry >= 1_000
    await server.deserted()


# ---- HTTP ----


async def test_http_1_0_gets_bare_frames_and_a_connection_that_closes(serve: Serve) -> None:
    server = await serve(heartbeat=0.05)
    ids = server.send(*"abc")
    client = await server.subscribe(version="1.0", last_event_id=ids[0])
    assert client.headers["Connection"] == "close"
    assert "Transfer-Encoding" not in client.headers
    assert [(await client.next()).data for _ in "bc"] == ["b", "c"]
    (live,) = server.send("live")
    assert (await client.next()).data == "live"
    await client.block()
    begin = client.received.index(b"id: " + ids[1].encode())
    assert (
        client.received[begin:]
        .decode()
        .startswith(f"id: {ids[1]}\ndata: b\n\nid: {ids[2]}\ndata: c\n\nid: {live}\ndata: live\n\n:\nid: {live}\n\n")
    )
    await server.hub.drain(0)
    await client.gone()
    assert client.received.endswith(b'event: hub.close\ndata: {"reason":"shutdown"}\n\n')


async def test_http_1_0_gets_bare_envelopes_too(server: Server) -> None:
    client = await server.subscribe("a", version="1.0", query={"envelope": "1"})
    server.send(1, topic="a")
    assert (await client.next()).json() == {"topic": "a", "data": 1}


async def test_a_stream_can_follow_other_answers_on_a_kept_connection(server: Server) -> None:
    client = await server.client()
    for path in ("/healthz", "/notifications/stats", "/nowhere"):
        await client.request("GET", path)
        assert await client.head() == (404 if path == "/nowhere" else 200)
        await client.body()
    await client.request("GET", server.subscribe_path())
    assert await client.head() == 200
    await client.next("hub.open")
    server.send("live")
    assert (await client.next()).data == "live"


async def test_a_stream_can_follow_pipelined_requests(server: Server) -> None:
    client = await server.client()
    await client.send(request("GET", "/healthz") * 3 + request("GET", server.subscribe_path("a")))
    for _ in range(3):
        assert await client.head() == 200
        assert await client.json() == {"status": "alive"}
    assert await client.head() == 200
    await client.next("hub.open")
    server.send("live", topic="a")
    assert (await client.next()).data == "live"


async def test_what_is_pipelined_behind_a_subscribe_is_never_answered_into_the_stream(server: Server) -> None:
    client = await server.client()
    await client.send(request("GET", server.subscribe_path()) + request("GET", "/healthz") * 3)
    assert await client.head() == 200
    await client.next("hub.open")
    await client.send(request("GET", "/healthz"))
    server.send("live")
    assert (await client.next()).data == "live"
    assert client.is_silent()


@pytest.mark.parametrize("sent", [0, 500, 1000])
async def test_a_body_that_nobody_reads_does_not_hold_the_stream_up(server: Server, sent: int) -> None:
    client = await server.client()
    whole = request("GET", server.subscribe_path(), body=b"x" * 1000)
    await client.send(whole[: len(whole) - 1000 + sent])
    assert await client.head() == 200
    await client.next("hub.open")
    await client.send(whole[len(whole) - 1000 + sent :])
    server.send("live")
    assert (await client.next()).data == "live"


async def test_a_client_that_talks_a_little_into_its_stream_is_let_be(server: Server) -> None:
    client = await server.subscribe()
    await client.send(b"x" * 60_000)
    server.send("live")
    assert (await client.next()).data == "live"


async def test_a_client_that_floods_its_stream_is_closed(server: Server) -> None:
    client = await server.subscribe()
    await client.send(b"x" * 66_000)
    await client.gone()
    await server.deserted()


async def test_the_stats_count_open_streams_only(server: Server) -> None:
    streams: list[Client] = [await server.subscribe("a"), await server.subscribe("b")]
    stats = (await server.ask("GET", "/notifications/stats")).json()
    assert (stats["connections"], stats["topics"]) == (2, 2)
    server.send("x", topic="a")
    await streams[0].next()
    stats = (await server.ask("GET", "/notifications/stats")).json()
    assert (stats["published"], stats["delivered"], stats["dropped"], stats["replayed"]) == (1, 1, 0, 0)
    for stream in streams:
        stream.close()
    await server.deserted()
    assert (await server.ask("GET", "/notifications/stats")).json()["connections"] == 0
