"""Streams that begin with what is there: everything that is kept, or the newest of each topic; and many at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.log.log import Framing, Log
from hub.log.sqlite.log import SQLiteLog
from tests.spec_decoder import Event
from tests.web.client import Client, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.web.test_resume import EventSource

pytestmark = [pytest.mark.both_loops, pytest.mark.slow]

WAYS = ["query", "header", "body"]


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the log lives."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


async def ask(server: Server, wanted: str, *topics: str, way: str = "query") -> Client:
    """Open a stream of *topics* that begins with what is *wanted*, and read its `hub.open`."""
    if way == "query":
        return await server.subscribe(*topics, query={"lastEventId": wanted})
    if way == "header":
        return await server.subscribe(*topics, last_event_id=wanted)
    client = await server.client()
    body = json.dumps({"topics": topics, "lastEventId": wanted}).encode()
    headers = {"Content-Type": "application/json"}
    await client.request("POST", server.subscribe_path(), headers=headers, body=body)
    assert await client.head() == 200
    client.opened = await client.next("hub.open")
    return client


async def send(server: Server, *topics: str, **options: Any) -> list[str]:
    """Publish one notification per item in *topics* (several with commas), its own topics as data; return the ids."""
    receipts = [server.hub.notifications.send_notification(t, topics=t.split(","), **options) for t in topics]
    return [str(await receipt) for receipt in receipts]


async def upto(client: Client, id: str) -> list[str]:
    """Return the ids of the notifications up to *id*."""
    ids: list[str] = []
    while not ids or ids[-1] != id:
        ids.append((await client.next()).id)
    return ids


def before(id: str) -> str:
    """Return the position right before *id*."""
    epoch, _, offset = id.rpartition("-")
    return f"{epoch}-{int(offset) - 1}"


@pytest.mark.parametrize("way", WAYS)
async def test_the_earliest_is_everything_that_is_kept_and_then_what_comes(serve: Serve, home: str, way: str) -> None:
    server = await serve(log=home, retain_count=6)
    ids = await send(server, *["a", "b"] * 5)
    client = await ask(server, "earliest", "a", way=way)
    assert (client.opened.json()["recovered"], client.opened.id) == (True, before(ids[4]))
    assert "reason" not in client.opened.json()
    (live,) = await send(server, "a")
    assert await upto(client, live) == [ids[4], ids[6], ids[8], live]


@pytest.mark.parametrize("way", WAYS)
async def test_the_latest_is_the_newest_of_each_topic_and_then_what_comes(serve: Serve, home: str, way: str) -> None:
    server = await serve(log=home)
    ids = await send(server, "s/a", "s/b", "s/a", "other", "s/c", "s/b", "other")
    client = await ask(server, "latest", "s/*", way=way)
    assert (client.opened.json()["recovered"], client.opened.id) == (True, before(ids[2]))
    live = await send(server, "s/b", "s/a", "other", "s/d")
    assert await upto(client, live[-1]) == [ids[2], ids[4], ids[5], live[0], live[1], live[3]]


@pytest.mark.parametrize("wanted", ["earliest", "latest"])
@pytest.mark.parametrize("topics", [("never",), ("never/*",)])
async def test_where_nothing_is_kept_the_stream_begins_at_the_newest(
    serve: Serve, home: str, wanted: str, topics: tuple[str, ...]
) -> None:
    server = await serve(log=home, retain_count=3)
    empty = await ask(server, wanted, *topics)
    assert (empty.opened.json()["recovered"], empty.opened.id) == (True, f"{server.hub.log.epoch}-0")
    ids = await send(server, *["some"] * 9)
    client = await ask(server, wanted, *topics)
    assert (client.opened.json()["recovered"], client.opened.id) == (True, ids[-1])
    live = await send(server, "some", "never/x,never")
    for each in (empty, client):
        assert await upto(each, live[-1]) == [live[-1]]


async def test_the_latest_of_topics_with_bounds_of_their_own_are_all_that_is_there(serve: Serve, home: str) -> None:
    server = await serve(log=home, retain_topics={"s/*": 1})
    await send(server, *(f"s/{number}" for number in range(1_500)))
    ids = await send(server, *(f"s/{number}" for number in range(1_500)))
    for wanted in ("latest", "earliest"):
        client = await ask(server, wanted, "s/*")
        assert client.opened.id == before(ids[0])
        assert await upto(client, ids[-1]) == ids


async def test_an_id_that_came_with_the_latest_is_an_id_like_any_other(serve: Serve, home: str) -> None:
    server = await serve(log=home)
    ids = await send(server, "s/a", "s/b", "s/a", "s/c")
    client = await ask(server, "latest", "s/*")
    await upto(client, ids[-1])
    again = await server.subscribe("s/*", last_event_id=ids[1], query={"lastEventId": "latest"})
    assert again.opened.json()["recovered"] is True
    assert await upto(again, ids[-1]) == ids[2:], "the header wins: a browser that comes back resumes"


# ---- while others publish ----


def newest_of_each(history: Sequence[tuple[str, str]]) -> list[str]:
    """Return the id of the newest of each topic, in order; *history* is ids and topics."""
    newest = {topic: id for id, topic in history}
    return [id for id, topic in history if newest[topic] == id]


@pytest.mark.parametrize("wanted", ["earliest", "latest"])
async def test_what_is_there_and_what_comes_meet_without_a_loss_or_a_repeat(
    serve: Serve, home: str, wanted: str
) -> None:
    server = await serve(log=home, heartbeat=0.05)
    chance = random.Random(5)
    history: list[tuple[str, str]] = []
    done = False

    async def publish() -> None:
        while not done:
            topics = [f"s/{chance.randint(0, 20)}" for _ in range(chance.choice([1, 1, 5, 30]))]
            history.extend(zip(await send(server, *topics), topics, strict=True))
            await asyncio.sleep(chance.choice([0, 0, 0.001]))

    publishing = asyncio.create_task(publish())
    await until(lambda: len(history) > 50)
    clients: list[Client] = []
    for _ in range(25):
        clients.append(await ask(server, wanted, "s/*"))
        await asyncio.sleep(chance.choice([0, 0.002]))
    done = True
    await publishing
    (end,) = await send(server, "s/end")
    history.append((end, "s/end"))
    ids = [id for id, _ in history]
    for client in clients:
        heard = await upto(client, end)
        assert client.opened.json()["recovered"] is True
        assert client.opened.id == before(heard[0])
        if wanted == "earliest":
            assert heard == ids
        else:
            # As of some moment, and then everything.
            assert any(heard == newest_of_each(history[:moment]) + ids[moment:] for moment in range(len(ids)))


@pytest.mark.parametrize("bounds", [{}, {"s/*": 1}], ids=["unbounded", "bounded"])
async def test_a_snapshot_that_was_cut_ends_with_the_right_values(
    serve: Serve, home: str, bounds: dict[str, int]
) -> None:
    server = await serve(log=home, retain_topics=bounds)
    chance = random.Random(11)
    values: dict[str, str] = {}

    async def change(*topics: int) -> str:
        drafts = [(f"s/{topic}", f"{topic}={chance.randint(0, 10**6)}") for topic in topics]
        values.update(drafts)
        receipts = [server.hub.notifications.send_notification(value, topic=topic) for topic, value in drafts]
        return [str(await receipt) for receipt in receipts][-1]

    await change(*range(20), *range(6))
    for _ in range(40):
        source = EventSource()
        client = await stream_of(server, source)
        source.hears(await client.exactly(chance.randint(0, 700)))
        client.reset()
        last = await change(*(chance.randint(0, 19) for _ in range(chance.choice([1, 5]))))
        client = await stream_of(server, source)
        body = b""
        while f"id: {last}\n".encode() not in body or not body.endswith(b"\n\n\r\n"):
            body += await client.at_most(100_000)
        source.hears(body)
        await client.aclose()
        ids = [id for id, _ in source.notifications]
        assert len(set(ids)) == len(ids)
        assert {f"s/{data.partition('=')[0]}": data for _, data in source.notifications} == values


async def stream_of(server: Server, source: EventSource) -> Client:
    """Return a connection of a page that asks for the latest, and comes back with the id it has by then."""
    client = await server.client()
    headers = {"Last-Event-ID": source.cursor} if source.cursor else {}
    await client.request("GET", server.subscribe_path("s/*", lastEventId="latest"), headers=headers)
    assert await client.head() == 200
    return client


# ---- a storm ----

CLIENTS = 300
MISSED = 200


class Asked:
    """Counts what is asked of a log."""

    def __init__(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[tuple[Any, ...]] = []
        assert isinstance(log, Framing)
        frames = log.frames

        def count(*asked: Any, **options: Any) -> Any:
            self.questions.append((*asked, *options.items()))
            return frames(*asked, **options)

        monkeypatch.setattr(log, "frames", count)


async def test_clients_that_missed_nothing_cost_no_read(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(log=f"sqlite:///{tmp_path}/hub.db")
    (newest,) = await send(server, "t")
    asked = Asked(server.hub.log, monkeypatch)
    clients = [await server.subscribe("t", last_event_id=newest) for _ in range(20)]
    live = await send(server, "t")
    for client in clients:
        assert (client.opened.id, client.opened.json()["recovered"]) == (newest, True)
        assert await upto(client, live[0]) == live
    assert not asked.questions


async def test_a_storm_of_clients_that_resume_at_the_same_id_is_read_for_once(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(log=f"sqlite:///{tmp_path}/hub.db")
    assert isinstance(server.hub.log, SQLiteLog)
    (start,) = await send(server, "t")
    history = await send(server, *["t"] * MISSED)
    asked = Asked(server.hub.log, monkeypatch)
    resuming = [asyncio.create_task(server.subscribe("t", last_event_id=start)) for _ in range(CLIENTS)]
    for arrived in range(0, CLIENTS, 15):
        await until(partial(has_streams, server, arrived))
        history += await send(server, "t")
    clients = await asyncio.gather(*resuming)
    history += await send(server, "t")
    heard = await asyncio.gather(*(events_upto(client, history[-1]) for client in clients))
    for client, events in zip(clients, heard, strict=True):
        assert (client.opened.id, client.opened.json()["recovered"]) == (start, True)
        assert [event.id for event in events] == history
    assert len([after for after, *_ in asked.questions if after == 1]) < CLIENTS / 50, "what all of them had missed"
    assert len(asked.questions) < CLIENTS / 3


def has_streams(server: Server, count: int) -> bool:
    return len(server.hub.connections) >= count


async def events_upto(client: Client, id: str) -> list[Event]:
    """Return the notifications up to *id*."""
    events = [await client.next()]
    while events[-1].id != id:
        events.append(await client.next())
    return events
