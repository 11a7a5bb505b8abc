"""Whatever is sent: never a 500, never a hang, never a corrupted stream."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chance import examples, seeds
from tests.web.client import PATIENCE, StreamEnded, request
from tests.web.conftest import Complaints, Serve
from tests.web.server import Answer, Server

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
CONTROLS = [*map(chr, range(0x20)), "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\r\n", "\n\n", "\r\nid: 9-9\r\n"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
LINE_ENDS = re.compile("\r\n|\r|\n")


@pytest.fixture(autouse=True)
def forgiven(complaints: Complaints) -> Iterator[None]:
    """Let aiohttp complain about what is no HTTP."""
    yield
    assert [each for each in complaints.take() if "aiohttp.http_exceptions" not in each] == []


@pytest.fixture
async def demo(serve: Serve) -> Server:
    """A hub with all the routes there are."""
    return await serve(events_api=True, demo=True)


def paths(server: Server) -> list[str]:
    """Every path there is, its variable parts filled in."""
    return sorted({re.sub(r"\{\w+\}", "x", resource.canonical) for resource in server.app.router.resources()})


def check_answer(answer: Answer) -> None:
    """Check that *answer* is one that a hub may give to nonsense."""
    assert answer.status < 500, answer
    if answer.status >= 400 and answer.body:
        assert b"Traceback" not in answer.body


async def check_alive(server: Server) -> None:
    """Check that the hub still publishes, and that its streams are whole."""
    stream = await server.subscribe("alive")
    assert (await server.publish({"topic": "alive", "data": "still"})).status == 201
    assert (await stream.next()).data == "still"
    await stream.aclose()


# ---- control characters everywhere ----


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
async def test_a_control_character_in_a_field_is_refused_or_harmless(server: Server, control: str) -> None:
    stream = await server.subscribe("**")
    drafts: list[dict[str, object]] = [
        {"data": f"a{control}b"},
        {"data": {f"a{control}b": f"a{control}b"}},
        {"data": 1, "type": f"a{control}b"},
        {"data": 1, "topic": f"a{control}b"},
        {"data": 1, "key": f"a{control}b"},
        {"data": 1, "tags": {f"a{control}b": f"a{control}b"}},
        {"data": 1, "retry": f"5{control}"},
        {"data": 1, f"a{control}b": 1},
    ]
    ids = []
    for draft in drafts:
        answer = await server.publish(draft)
        if answer.status == 201:
            ids.append(answer.json()["id"])
        else:
            assert answer.status == 400
    server.send("end")
    events = await stream.upto("end")
    assert [event.id for event in events[:-1]] == ids
    assert events[0].data == LINE_ENDS.sub("\n", f"a{control}b")
    assert events[1].json() == {f"a{control}b": f"a{control}b"}
    assert {event.type for event in events} <= {"message", f"a{control}b"}
    assert not stream.decoder.comments


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
async def test_a_control_character_in_what_is_asked_is_refused_or_harmless(server: Server, control: str) -> None:
    for path in (
        server.subscribe_path(f"a{control}b"),
        server.subscribe_path(lastEventId=f"a{control}b"),
        server.subscribe_path(lastEventId=f"{server.hub.log.epoch}-0{control}"),
        server.subscribe_path(envelope=f"1{control}"),
        server.subscribe_path(**{f"a{control}b": "c"}),
    ):
        client = await server.client()
        await client.request("GET", path)
        if await client.head() == 200:
            facts = (await client.next("hub.open")).json()
            assert facts["recovered"] in {None, False} or "lastEventId" not in path
        else:
            assert client.status == 400
            assert (await client.json())["status"] == 400
        client.close()


@pytest.mark.parametrize("control", [each for each in CONTROLS if each != "\n\n"], ids=ascii)
async def test_a_control_character_in_the_last_event_id_header_is_refused_or_harmless(
    server: Server, control: str
) -> None:
    client = await server.client()
    await client.request("GET", server.subscribe_path(), headers={"Last-Event-ID": f"a{control}b", "X": "y"})
    with suppress(StreamEnded):
        if await client.head() == 200:
            await client.next("hub.open")
            server.send("live")
            events = await client.upto("live")
            assert [event.type for event in events] in (["hub.gap", "message"], ["message"])
        else:
            assert client.status == 400
    await check_alive(server)


@settings(max_examples=examples(30, 600), deadline=None)
@given(
    topics=st.lists(st.text(max_size=12) | st.sampled_from(["a", "a/*", "**", "b/c"]), max_size=4),
    asked=st.text(max_size=20) | st.from_regex(r"[a-z0-9]{0,4}-?[0-9]{0,30}", fullmatch=True),
    header=st.none() | st.binary(max_size=20),
)
def test_whatever_is_asked_the_stream_is_whole(topics: list[str], asked: str, header: bytes | None) -> None:
    async def ask() -> None:
        server = await Server.start({})
        try:
            server.send("before", topic="a")
            client = await server.client()
            path = server.subscribe_path(
                *(topic.encode("utf-8", "replace").decode() for topic in topics),
                lastEventId=asked.encode("utf-8", "replace").decode(),
            )
            text = (header or b"").translate(None, b"\r\n").decode("utf-8", "surrogateescape")
            await client.request("GET", path, headers={} if header is None else {"Last-Event-ID": text})
            if await client.head() == 200:
                opened = (await client.next("hub.open")).json()
                assert opened["recovered"] in {None, True, False}
                server.send("end", topics=["a", "a/x", "b/c", "notifications"])
                if not {"a", "a/*", "**", "b/c", "notifications"}.isdisjoint(opened["topics"]):
                    assert {event.type for event in await client.upto("end")} <= {"message", "hub.gap"}
            else:
                assert client.status == 400
                assert await client.body()
        finally:
            await server.aclose()

    asyncio.run(ask())


@settings(max_examples=examples(30, 600), deadline=None)
@given(
    data=st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("\r\n:\0 \ufeff"), max_size=80),
    type=st.none() | st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20),
)
def test_whatever_the_data_it_arrives_but_for_its_line_ends(data: str, type: str | None) -> None:
    async def send() -> None:
        server = await Server.start({})
        try:
            streams = [
                await server.subscribe(query=query, version=version)
                for query in ({}, {"envelope": "1"})
                for version in ("1.1", "1.0")
            ]
            answer = await server.publish({"data": data, "type": type} if type else {"data": data})
            if answer.status == 400:
                assert type is not None
                assert type == "error" or type.startswith("hub.")
                return
            events = [await stream.next(type or "message") for stream in streams]
            assert [event.data for event in events[:2]] == [LINE_ENDS.sub("\n", data)] * 2
            assert [event.json()["data"] for event in events[2:]] == [data] * 2
            assert len({event.id for event in events}) == 1
        finally:
            await server.aclose()

    asyncio.run(send())


# ---- methods, bodies, halves ----


async def test_every_method_on_every_path_is_answered(demo: Server) -> None:
    for path in [*paths(demo), "/nowhere", "*", "/%2e%2e/", "//"]:
        for method in METHODS:
            if method == "GET" and path.startswith(("/sse", "/notifications/subscribe")):
                continue
            client = await demo.client()
            await client.request(method, path, headers=JSON, body=b"" if method == "POST" else None)
            status = await client.head()
            assert status < 500, (method, path)
            if method != "HEAD" and "text/event-stream" not in client.headers.get("Content-Type", ""):
                await client.body()
                assert client.complete
            if method == "OPTIONS" and path in paths(demo):
                assert status == 204
                assert "OPTIONS" in client.headers["Allow"]
            client.close()
    await check_alive(demo)


async def test_head_has_no_body_and_the_connection_stays_good(demo: Server) -> None:
    for path in paths(demo):
        client = await demo.client()
        await client.request("HEAD", path)
        assert await client.head() < 500
        await client.request("GET", "/healthz")
        # A body behind the first answer would now stand where the second answer begins.
        assert await client.head() == 200
        assert await client.json() == {"status": "alive"}
        client.close()


async def test_options_and_what_is_not_supported_say_what_is(demo: Server) -> None:
    for path in paths(demo):
        allowed = (await demo.ask("OPTIONS", path)).headers["Allow"]
        answer = await demo.ask("POST" if "PUT" in allowed else "PUT", path)
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("chunked", [False, True])
async def test_two_mebibytes_are_too_much_for_every_path(demo: Server, chunked: bool) -> None:
    body = b'{"data":"' + b"x" * (2 * MIB) + b'"}'
    for path in ("/notifications/publish", "/notifications/subscribe", "/events/a", "/orders"):
        client = await demo.client()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
        if chunked:
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
            whole = head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        with suppress(ConnectionError):
            await client.send(whole)
        with suppress(StreamEnded):  # who goes on sending may lose the answer
            assert await client.head() == 413
            assert (await client.json())["field"] == "body"
        client.close()
    await check_alive(demo)


WHOLE = [
    request("GET", "/notifications/subscribe?topic=a&lastEventId=x-1", headers={"Last-Event-ID": "x-1"}),
    request("POST", "/notifications/subscribe", headers=JSON, body=b'{"topics": ["a"]}'),
    request("POST", "/notifications/publish", headers=JSON, body=b'{"topic": "a", "data": 1}'),
    request("POST", "/events/a", headers=JSON, body=b'{"topic": "a", "data": 1}'),
    request("GET", "/metrics"),
]


@pytest.mark.parametrize("whole", WHOLE, ids=lambda whole: whole.split(b" ")[1].decode())
async def test_a_request_can_stop_at_every_byte(demo: Server, whole: bytes) -> None:
    leaving = random.Random(2)
    for count in range(len(whole)):
        client = await demo.client()
        await client.send(whole[:count])
        leaving.choice([client.close, client.reset, client.half_close])()
        await client.gone()
        await client.aclose()
    demo.clients.clear()
    await check_alive(demo)
    await demo.deserted()


async def test_half_a_request_holds_nobody_else_up(demo: Server) -> None:
    for whole in WHOLE:
        for count in (1, len(whole) // 2, len(whole) - 1):
            client = await demo.client()
            await client.send(whole[:count])
    await check_alive(demo)
    for client in demo.clients:
        client.close()


# ---- noise ----

ENOUGH = b"!\r\n\r\n" * 14_000  # ends every request that is still open, and is too much for every stream


async def converse(server: Server, noise: bytes) -> list[int]:
    """Send *noise*, and what brings any conversation to its end; return the statuses of the answers."""
    client = await server.client()
    statuses: list[int] = []
    sending = asyncio.create_task(client.send(noise + ENOUGH))
    async with asyncio.timeout(PATIENCE):
        with suppress(StreamEnded):
            while True:
                statuses.append(await client.head())
                assert client.status < 500
                if "Content-Length" in client.headers or client.complete:
                    await client.body()
                else:
                    await client.gone()
                    raise StreamEnded
        with suppress(ConnectionError, TimeoutError):
            await sending
    await client.aclose()
    server.clients.remove(client)
    return statuses


@pytest.mark.parametrize("seed", seeds(3, 30))
async def test_10000_random_bytes_are_no_request(demo: Server, seed: int) -> None:
    noise = random.Random(seed).randbytes(10_000)
    # Up to the first line end it is a request line: let it have one early, and late.
    answered: list[int] = []
    for bytes_sent in (noise, noise[:10] + b"\r\n" + noise, b"GET / HTTP/1.1\r\n" + noise, b"\r\n" + noise):
        answered += await converse(demo, bytes_sent)
    assert answered
    assert set(answered) == {400}
    await check_alive(demo)


@pytest.mark.parametrize("seed", seeds(2, 20))
async def test_a_request_with_some_wrong_bytes_is_answered_or_ended(demo: Server, seed: int) -> None:
    chance = random.Random(seed)
    answered = 0
    for _ in range(60):
        noise = bytearray(chance.choice(WHOLE))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(noise))
            match chance.randrange(3):
                case 0:
                    noise[place] = chance.randrange(256)
                case 1:
                    del noise[place]
                case _:
                    noise[place:place] = chance.randbytes(chance.randint(1, 5))
        answered += len(await converse(demo, bytes(noise)))
    assert answered > 30
    await check_alive(demo)


@settings(max_examples=examples(20, 400), deadline=None)
@given(noise=st.lists(st.binary(max_size=60), min_size=1, max_size=10))
def test_any_bytes_are_answered_with_a_400_or_the_end(noise: list[bytes]) -> None:
    async def send() -> None:
        server = await Server.start({})
        try:
            for each in noise:
                assert set(await converse(server, each)) <= {400}
            await check_alive(server)
        finally:
            await server.aclose()

    asyncio.run(send())


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "-1"},
        {"Content-Length": "999999999999999999999"},
        {"Transfer-Encoding": "gzip"},
        {"Expect": "100-continue"},
        {"Expect": "something else"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "nonsense"},
        {"Content-Type": "application/json; charset=nonsense"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ";;;"},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Origin": "null"},
        {"Range": "bytes=0-"},
        {"If-Match": "*"},
        {"Cookie": "=;=;" * 50},
        {"X": "x" * 100_000},
        {f"X-{number}": "x" for number in range(500)},
    ],
    ids=lambda headers: str(next(iter(headers.items())))[:40],
)
async def test_odd_headers_are_answered(demo: Server, headers: dict[str, str]) -> None:
    body = json.dumps({"data": 1}).encode()
    for method, path in (("POST", "/notifications/publish"), ("POST", "/orders"), ("GET", "/healthz")):
        lines = {
            **JSON,
            **({"Content-Length": str(len(body))} if "Transfer-Encoding" not in headers else {}),
            **headers,
        }
        statuses = await converse(demo, request(method, path, headers=lines) + body)
        assert all(status < 500 for status in statuses)
    await check_alive(demo)
