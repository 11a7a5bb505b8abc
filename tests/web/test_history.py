"""The history over HTTP: page by page, as an archive, and no way in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from hub.connections.resume import Start
from hub.encoding import moment
from hub.errors import LogUnavailable
from hub.log.archive.format import first_line, last_line, lines
from hub.log.log import Log, Movable, MovableLog, Page
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position
from hub.web import history
from hub.web.history import Excerpt
from tests.spec_decoder import Event
from tests.web.client import StreamEnded, until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Answer, Server

pytestmark = pytest.mark.slow

PATH = "/notifications/history"
ARCHIVE = "application/x-ndjson"
AT = 1_700_000_000.25


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a log lives."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


async def send(server: Server, *items: object, **options: Any) -> list[str]:
    """Send one notification per item; return the ids once they are kept."""
    receipts = [server.hub.notifications.send_notification(item, **options) for item in items]
    return [str(await receipt) for receipt in receipts]


async def ask(server: Server, *topics: str, **query: object) -> Answer:
    pairs = [("topic", topic) for topic in topics] + [(name, str(value)) for name, value in query.items()]
    return await server.ask("GET", f"{PATH}?{urlencode(pairs)}")


async def page(server: Server, *topics: str, **query: object) -> dict[str, Any]:
    answer = await ask(server, *topics, **query)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json"), answer.body
    said: dict[str, Any] = answer.json()
    return said


async def pages(server: Server, *topics: str, **query: object) -> list[dict[str, Any]]:
    """Return page after page, to the end."""
    found = [await page(server, *topics, **query)]
    while found[-1]["next"] is not None:
        found.append(await page(server, *topics, **{**query, "after": found[-1]["next"]}))
    return found


def ids(*pages: dict[str, Any]) -> list[str]:
    return [each["id"] for page in pages for each in page["notifications"]]


# ---- page by page ----


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 1_000])
async def test_the_pages_to_the_end_are_everything_once_and_in_order(serve: Serve, home: str, limit: int) -> None:
    server = await serve(log=home)
    sent = await send(server, *range(14), topic="a")
    await send(server, *range(3), topic="b")
    found = await pages(server, "a", limit=limit)
    assert ids(*found) == sent
    assert all(len(each["notifications"]) <= limit for each in found)
    assert all(each["recovered"] is True for each in found)
    assert [each["data"] for page in found for each in page["notifications"]] == list(range(14))


async def test_a_notification_comes_with_all_it_was_sent_with(serve: Serve, home: str) -> None:
    server = await serve(log=home)
    full = {"topics": ["a", "b"], "data": {"ü": [1.5, None]}, "type": "t", "retry": 7, "private": True}
    await server.publish({**full, "tags": {"k": 1, "e": "ü"}, "key": "once"})
    await server.publish({"topic": "b", "data": "两行\r\nof it"})
    first, second = (await page(server, "b"))["notifications"]
    assert first.pop("at") <= second.pop("at")
    epoch = server.hub.log.epoch
    assert first == {"id": f"{epoch}-1", **full, "tags": {"k": 1, "e": "ü"}}
    nothing = {"type": None, "retry": None, "private": False, "tags": None}
    assert second == {"id": f"{epoch}-2", "topics": ["b"], "data": "两行\r\nof it", **nothing}


def test_a_moment_is_in_utc_with_milliseconds() -> None:
    assert moment(AT) == "2023-11-14T22:13:20.250Z"
    assert moment(0.0) == "1970-01-01T00:00:00.000Z"


async def test_topics_are_those_of_a_subscription(server: Server) -> None:
    sent = [(await send(server, 0, topics=topics))[0] for topics in (["notifications"], ["a/b"], ["a/c", "b"], ["b"])]
    assert ids(await page(server)) == sent[:1]
    assert ids(await page(server, "a/*")) == sent[1:3]
    assert ids(await page(server, "a/b", "b")) == sent[1:]
    assert ids(await page(server, "**")) == sent
    assert ids(await page(server, "never")) == []
    assert ids(await page(server, *(f"t/{number}" for number in range(127)), "b")) == sent[2:]


@pytest.mark.parametrize("after", ["", "earliest"])
async def test_without_an_id_the_oldest_is_the_first(serve: Serve, after: str) -> None:
    server = await serve(retain_count=2)
    sent = await send(server, *range(5))
    said = await page(server, after=after)
    assert (ids(said), said["recovered"], said["next"]) == (sent[3:], True, None)


async def test_after_an_id_what_follows_it_comes(serve: Serve, home: str) -> None:
    server = await serve(log=home)
    sent = await send(server, *range(5))
    assert ids(await page(server, after=sent[1])) == sent[2:]
    assert await page(server, after=sent[4]) == {"notifications": [], "next": None, "recovered": True}
    assert ids(await page(server, after=f"{server.hub.log.epoch}-0")) == sent


async def test_a_page_that_ends_with_the_last_one_is_the_last(server: Server) -> None:
    await send(server, *range(4))
    assert [each["next"] is None for each in await pages(server, limit=2)] == [False, True]


async def test_what_is_not_announced_is_not_told(server: Server) -> None:
    sent = await send(server, *range(3))
    server.hub.fanout.begin(Position(server.hub.log.epoch, 2))
    said = await page(server)
    assert (ids(said), said["next"]) == (sent[:2], None)


async def test_parameters_it_does_not_know_are_left_alone(server: Server) -> None:
    assert (await page(server, envelope=7, page=3))["notifications"] == []


# ---- what is asked wrongly ----


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "", "ten", "+1", "1e2", "٣", "00001"])
async def test_a_limit_out_of_bounds_is_refused(server: Server, limit: str) -> None:
    answer = await ask(server, limit=limit)
    problem = answer.json()
    assert (answer.status, problem["field"]) == (400, "limit")
    assert problem["detail"] == "limit: is not a whole number from 1 to 1,000"


async def test_a_wrong_topic_is_refused_as_on_subscribe(server: Server) -> None:
    for topics in (["a//b"], [f"t/{number}" for number in range(129)]):
        answer = await ask(server, *topics)
        other = await server.ask("GET", server.subscribe_path(*topics))
        assert (answer.status, answer.json()) == (400, other.json())
    assert (await ask(server, *["a"] * 200)).status == 200


async def test_the_latest_are_for_streams_only(server: Server) -> None:
    answer = await ask(server, after="latest")
    assert (answer.status, answer.json()["field"]) == (400, "after")


async def test_other_methods_are_refused(server: Server) -> None:
    answer = await server.ask("PUT", PATH, body=b"")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, OPTIONS")


# ---- gaps ----


@pytest.mark.parametrize(
    ("after", "reason"),
    [("{epoch}-1", "trimmed"), ("0123456789-3", "epoch"), ("{epoch}-99", "unknown"), ("what?", "unknown")],
)
async def test_a_gap_is_told_as_on_subscribe(serve: Serve, home: str, after: str, reason: str) -> None:
    server = await serve(log=home, retain_count=3)
    sent = await send(server, *range(6))
    await until(lambda: server.hub.log.bounds().kept == 3)
    asked = after.format(epoch=server.hub.log.epoch)
    client = await server.subscribe(last_event_id=asked)
    opened = client.opened.json()
    said = await page(server, after=asked)
    assert ids(said) == sent[3:]
    gap = {name: said[name] for name in ("recovered", "reason", "oldest")}
    assert gap == {"recovered": False, "reason": reason, "oldest": sent[3]}
    assert gap == {name: opened[name] for name in gap}
    assert (await page(server, after=sent[2]))["recovered"] is True


async def test_a_quiet_topic_in_a_busy_log_has_no_gap(serve: Serve) -> None:
    server = await serve(retain_count=3)
    (first,) = await send(server, 0, topic="quiet")
    await send(server, *range(6), topic="busy")
    assert await page(server, "quiet", after=first) == {"notifications": [], "next": None, "recovered": True}


async def test_what_goes_between_two_pages_is_a_gap_of_the_next(serve: Serve) -> None:
    server = await serve(retain_count=4)
    sent = await send(server, *range(4))
    first = await page(server, limit=2)
    assert (ids(first), first["next"]) == (sent[:2], sent[1])
    sent += await send(server, *range(3))
    said = await page(server, after=first["next"])
    assert (ids(said), said["recovered"], said["reason"], said["oldest"]) == (sent[3:], False, "trimmed", sent[3])


def kept(*offsets: int) -> list[Notification]:
    return [Notification.accept(Draft.of("x"), Position("e", offset), AT) for offset in offsets]


def test_what_goes_while_the_pages_of_one_answer_are_read_is_a_gap_in_it() -> None:
    excerpt = Excerpt(Start(2, known=True), upto=9, limit=100)
    excerpt.take(Page(kept(3), 4, hole=False, oldest=1))
    excerpt.take(Page(kept(8), 9, hole=True, oldest=8))
    said = json.loads(excerpt.to_json("e"))
    assert (ids(said), said["recovered"], said["reason"], said["oldest"]) == (["e-3", "e-8"], False, "trimmed", "e-8")


def test_what_was_gone_before_the_oldest_is_no_gap_for_who_asked_for_the_oldest() -> None:
    excerpt = Excerpt(Start(0), upto=9, limit=100)
    excerpt.take(Page([], 4, hole="first", oldest=3))
    excerpt.take(Page(kept(5), 6, hole="first", oldest=5))
    assert json.loads(excerpt.to_json("e"))["recovered"] is True
    excerpt.take(Page(kept(7), 7, hole="first", oldest=5))
    assert json.loads(excerpt.to_json("e"))["recovered"] is True
    excerpt.take(Page(kept(9), 9, hole="second", oldest=8))
    assert json.loads(excerpt.to_json("e"))["recovered"] is False


# ---- bounds of one answer ----


async def test_an_answer_is_bounded_in_bytes(serve: Serve, home: str) -> None:
    server = await serve(log=home)
    sent = await send(server, *["x" * 300_000] * 7)
    found = await pages(server)
    assert [len(each["notifications"]) for each in found] == [3, 3, 1]
    assert ids(*found) == sent


async def test_one_that_alone_is_larger_is_an_answer(server: Server) -> None:
    sent = await send(server, "x", "x" * 1024 * 1024, "x")
    assert [ids(each) for each in await pages(server)] == [[id] for id in sent]


async def test_who_asks_for_little_in_a_large_log_gets_it_in_several_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(server, *range(35), topic="busy")
    (rare,) = await send(server, 0, topic="rare")
    read, reads = server.hub.log.read, 0

    def by_step(after: int, topics: Sequence[str], *, upto: int, **options: Any) -> asyncio.Future[Page]:
        nonlocal reads
        reads += 1
        return read(after, topics, upto=min(upto, after + 1), **options)

    monkeypatch.setattr(server.hub.log, "read", by_step)
    found = await pages(server, "rare")
    assert [ids(each) for each in found] == [[], [], [], [rare]]
    assert found[0]["next"] == f"{server.hub.log.epoch}-{history.MAX_PAGES}"
    assert reads == 36


# ---- when it can't be read; other origins ----


def away(*args: object, **options: object) -> asyncio.Future[Page]:
    answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
    answer.set_exception(LogUnavailable("it is away"))
    return answer


def gone() -> None:
    raise LogUnavailable("it is away")


@pytest.mark.parametrize(("name", "fails"), [("read", away), ("bounds", gone)])
async def test_while_the_log_is_away_the_client_is_told_when_to_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, fails: Callable[..., Any]
) -> None:
    monkeypatch.setattr(server.hub.log, name, fails)
    answer = await ask(server)
    assert (answer.status, answer.json()["type"]) == (503, "urn:broadcast-hub:log-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_pages_of_other_origins_may_read_if_they_are_named(serve: Serve) -> None:
    server = await serve(cors_origins=("https://shop.example.com",))
    for accept in ("*/*", ARCHIVE):
        for origin, allowed in (("https://shop.example.com", "https://shop.example.com"), ("https://else", None)):
            answer = await server.ask("GET", PATH, headers={"Origin": origin, "Accept": accept})
            assert answer.status == 200
            assert (answer.headers.get("Access-Control-Allow-Origin"), answer.headers["Vary"]) == (allowed, "Origin")
    preflight = await server.ask("OPTIONS", PATH, headers={"Origin": "https://shop.example.com"})
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, OPTIONS"


# ---- as an archive ----


async def export(server: Server, **options: Any) -> Answer:
    return await server.ask("GET", PATH, headers={"Accept": ARCHIVE}, **options)


class Exports:
    """How many exports are under way."""

    def __init__(self) -> None:
        self.begun = self.under_way = 0

    async def lines(self, log: MovableLog, upto: int) -> AsyncGenerator[bytes]:
        self.begun += 1
        self.under_way += 1
        try:
            async with aclosing(lines(log, upto)) as archive:
                async for some in archive:
                    yield some
        finally:
            self.under_way -= 1


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    exports = Exports()
    monkeypatch.setattr(history, "lines", exports.lines)
    return exports


async def archive_of(log: Log) -> bytes:
    assert isinstance(log, Movable)
    return b"".join([some async for some in lines(log, log.bounds().newest.offset)])


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_export_is_the_archive_of_all_topics(serve: Serve, home: str, version: str) -> None:
    server = await serve(log=home)
    await send(server, *["x" * 3_000] * 300, topic="a")
    await send(server, {"n": 1}, topics=["b", "c"], type="t", private=True, tags={"k": 1})
    answer = await export(server, version=version)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
        200,
        ARCHIVE,
        "no-store",
    )
    assert answer.body == await archive_of(server.hub.log)
    assert answer.body.count(b"\n") == 303


@pytest.mark.parametrize("accept", [f"text/html, {ARCHIVE};q=0.9", ARCHIVE.upper()])
async def test_who_accepts_an_archive_gets_it(server: Server, accept: str) -> None:
    answer = await server.ask("GET", f"{PATH}?limit=nonsense", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == ARCHIVE


async def test_an_export_that_can_not_go_on_is_cut(
    server: Server, monkeypatch: pytest.MonkeyPatch, complaints: Complaints
) -> None:
    await send(server, *["x" * 100_000] * 9)
    read = server.hub.log.read

    def soon_away(after: int, topics: Sequence[str], *, upto: int) -> asyncio.Future[Page]:
        return read(after, topics, upto=upto) if after == 0 else away()

    monkeypatch.setattr(server.hub.log, "read", soon_away)
    client = await server.client()
    await client.request("GET", PATH, headers={"Accept": ARCHIVE})
    assert await client.head() == 200
    await client.gone()
    assert not client.complete
    assert b'"newest"' not in client.received
    assert complaints.take() == ["an export was cut: the log is not available: it is away"]


async def test_while_the_log_is_away_an_export_does_not_begin(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.hub.log, "bounds", gone)
    assert (await export(server)).status == 503


@pytest.mark.both_loops
async def test_an_export_waits_for_its_client_and_others_go_on(serve: Serve) -> None:
    server = await serve(retain_bytes=10**9)
    await send(server, *["x" * 100_000] * 200)
    client = await server.client(receive_buffer=20_000)
    client.stop_reading()
    await client.request("GET", PATH, headers={"Accept": ARCHIVE})
    assert ids(await page(server, limit=1))
    whole = await archive_of(server.hub.log)
    client.read_on()
    await client.head()
    assert await client.body() == whole


@pytest.mark.both_loops
@pytest.mark.parametrize("leave", ["reset", "close"])
async def test_a_client_may_leave_in_mid_export(serve: Serve, exports: Exports, leave: str) -> None:
    server = await serve(retain_bytes=10**9)
    await send(server, *["x" * 100_000] * 200)
    client = await server.client(receive_buffer=20_000)
    await client.request("GET", PATH, headers={"Accept": ARCHIVE})
    await client.head()
    assert exports.under_way
    getattr(client, leave)()
    await until(lambda: not exports.under_way)


@pytest.mark.both_loops
async def test_a_client_that_takes_nothing_of_its_export_is_cut(serve: Serve, exports: Exports) -> None:
    server = await serve(retain_bytes=10**9, peer_timeout=0.2)
    await send(server, *["x" * 100_000] * 200)
    client = await server.client(receive_buffer=20_000)
    client.stop_reading()
    await client.request("GET", PATH, headers={"Accept": ARCHIVE})
    await until(lambda: exports.begun)
    await until(lambda: not exports.under_way)
    client.read_on()
    await client.head()
    await client.gone()
    assert not client.complete


async def test_while_draining_nothing_is_exported_but_pages_are_read(server: Server) -> None:
    await server.hub.drain(0)
    assert (await page(server))["notifications"] == []
    answer = await export(server)
    assert (answer.status, answer.json()["type"]) == (503, "urn:broadcast-hub:shutting-down")
    assert int(answer.headers["Retry-After"]) >= 1


# ---- and nothing in ----


async def test_nobody_brings_a_history_in_over_http(server: Server) -> None:
    log = server.hub.log
    assert isinstance(log, Movable)
    before = (log.epoch, log.bounds(), log.trimmed_state())
    for media_type in (ARCHIVE, "application/json"):
        archive = first_line("e0") + last_line(9, 0, TrimmedState(9, {}, 0))
        answer = await server.ask("POST", PATH, headers={"Content-Type": media_type}, body=archive)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, OPTIONS")
    large = await server.client()
    await large.request("POST", PATH, headers={"Content-Type": ARCHIVE, "Content-Length": "1000000000"})
    assert await large.head() == 405, "without reading it"
    large.close()
    assert (log.epoch, log.bounds(), log.trimmed_state()) == before
    assert await send(server, "goes on") == [f"{log.epoch}-1"]


# ---- a log that is another one by now ----

NEWEST = Position("8e844e1e90", 9)


async def become_another(server: Server) -> None:
    """Let the log of *server* be another one, with a history, and the hub hear of it."""

    async def others() -> AsyncIterator[Sequence[Notification]]:
        yield [Notification.accept(Draft.of(n), Position(NEWEST.epoch, n), AT) for n in (7, 8, 9)]

    assert isinstance(server.hub.log, Movable)
    await server.hub.log.adopt(NEWEST.epoch, NEWEST.offset, TrimmedState(6, {"notifications": 6}, 0), others())


async def heard(server: Server, cursor: str, count: int) -> tuple[dict[str, Any], list[Event]]:
    """Come back after *cursor*; return the opening and the next *count* notifications."""
    client = await server.subscribe(last_event_id=cursor)
    events = [await client.event()]
    while len([each for each in events if each.type == "message"]) < count:
        events.append(await client.event())
    return client.opened.json(), [each for each in events if each.type == "message"]


async def test_when_the_log_is_another_one_open_streams_end_and_come_back_to_all_of_it(serve: Serve, home: str) -> None:
    server = await serve(log=home)
    clients = [await server.subscribe(), await server.subscribe("**"), await server.subscribe(last_event_id="x-1")]
    await clients[2].next("hub.gap")
    await become_another(server)
    for client in clients:
        end = await client.next("hub.close")
        assert end.json() == {"reason": "log_unavailable"}
        assert 1_000 <= (client.decoder.retry or 0) <= 6_000
        with pytest.raises(StreamEnded):
            await client.event()
        assert client.complete
        opened, events = await heard(server, client.decoder.last_event_id, 3)
        assert (opened["reason"], opened["oldest"]) == ("epoch", "8e844e1e90-7")
        assert [each.id for each in events] == ["8e844e1e90-7", "8e844e1e90-8", "8e844e1e90-9"]


async def test_when_the_log_is_another_one_a_stream_begins_where_it_ends(serve: Serve, home: str) -> None:
    server = await serve(log=home, heartbeat=0.05)
    await become_another(server)
    client = await server.subscribe()
    assert client.opened.id == "8e844e1e90-9"
    await client.block()  # a heartbeat
    assert client.decoder.last_event_id == "8e844e1e90-9"
    assert await send(server, "new") == ["8e844e1e90-10"]
    assert (await client.next()).id == "8e844e1e90-10"
    assert (await server.ask("GET", "/notifications/stats")).json()["log"]["newest"] == "8e844e1e90-10"


async def test_while_the_log_is_the_same_nothing_begins_anew(server: Server) -> None:
    await send(server, "x")
    client = await server.subscribe()

    (sent,) = await send(server, "goes on")
    assert (await client.next()).id == sent
