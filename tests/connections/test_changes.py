"""Topics that change on an open stream: what is on the wire is what a simple model says, whatever races."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.changes import Sees, TopicChanges, TopicsChanged
from hub.connections.client_stream import CloseReason
from hub.connections.connection import Connection, Subscription
from hub.connections.seam import State
from hub.encoding import SSE
from hub.errors import InvalidInput, LogUnavailable, NotThere
from hub.log.memory import MemoryLog
from hub.notification import Position
from hub.patterns import compiled
from hub.settings import SlowPolicy
from tests.chance import examples
from tests.connections.test_connection import Client, Desk, offset, quiet
from tests.fakes import FakeTransport, SlowLog
from tests.wire import blocks, dechunk

TOPICS = ("a", "b", "c", "d/x", "d/*")
GRANTED = frozenset({"a", "c"})
"""The topics through which the readers of these tests see private notifications."""


def visibility(topics: Collection[str]) -> Visibility:
    granted = GRANTED.intersection(topics)
    return EVERYTHING if granted == set(topics) else Visibility(granted)


async def readable(stream: Connection, topics: Sequence[str], added: Sequence[str]) -> Sees:
    return visibility


class Changing(Desk):
    """A hub without sockets whose streams may change."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.changes = TopicChanges(self.wiring)
        self.changes.readable = readable

    async def change(self, client: Client, *, after: str | None = None, **topics: Collection[str]) -> TopicsChanged:
        """Return what a change answers when all that it brings has come: pages take a turn of the loop each."""
        changed = await self.changes.change(client.connection.id, after=after, **topics)
        await quiet()
        return changed

    def open(self, topics: Sequence[str], last_event_id: str | None = None, **transport: Any) -> Client:
        subscription = Subscription(tuple(topics), last_event_id, SSE(), visibility(topics))
        connection = Connection(subscription, self.wiring)
        client = Client(connection, FakeTransport(connection, **transport))
        connection.connection_made(client.transport)
        return client


def wire(client: Client) -> list[Any]:
    """Return what came after `hub.open`: data with the offset of the id, `hub.…` with its facts, ids alone."""
    said: list[Any] = []
    for block in client.blocks[1:]:
        if block.data is None:
            said.append(("id", offset(block.id)))
        elif block.type.startswith("hub."):
            said.append((block.type, json.loads(block.data)))
        else:
            said.append((block.data, offset(block.id) if block.id else None))
    return said


async def test_a_topic_that_is_added_counts_from_now_on():
    desk = Changing()
    client = desk.open(["a"])
    desk.send("b", data="before")
    desk.send("a", data="1")
    assert await desk.change(client, add=["b"]) == TopicsChanged(("a", "b"), Position("e", 2))
    desk.send("b", data="2")
    await quiet()
    assert wire(client) == [("1", 2), ("hub.topics", {"topics": ["a", "b"], "from": "e-2"}), ("2", 3)]
    assert client.connection.facts().topics in {("a", "b"), ("b", "a")}
    assert client.connection.state is State.LIVE


async def test_what_came_before_follows_without_ids_as_far_as_ids_were_written():
    desk = Changing()
    for number, topic in enumerate("bacbb", 1):
        desk.send(topic, data=str(number))
    client = desk.open(["a"], "e-1")
    desk.send("b", data="6")
    desk.send("a", data="7")
    desk.send("b", data="8")  # beyond the last id of this stream
    await quiet()
    assert (await desk.change(client, add=["b"], after="e-3")).position.offset == 3
    desk.send("b", data="9")
    await quiet()
    told = ("hub.topics", {"topics": ["a", "b"], "from": "e-3"})
    assert wire(client) == [("2", 2), ("7", 7), told, ("4", None), ("5", None), ("6", None), ("8", 8), ("9", 9)]


async def test_a_heartbeat_is_an_id_that_was_written():
    desk = Changing()
    client = desk.open(["a"])
    desk.send("b", data="1")
    await quiet()
    client.connection._touched = client.connection._audience.touched = -1e9  # type: ignore[union-attr]  # long ago
    desk.streams.sweep()
    desk.send("b", data="2")
    await quiet()
    await desk.change(client, add=["b"], after="e-0")
    told = ("hub.topics", {"topics": ["a", "b"], "from": "e-0"})
    assert wire(client) == [("id", 1), told, ("1", None), ("2", 2)]


async def test_what_the_stream_has_is_not_repeated():
    desk = Changing()
    desk.send("b", data="0")
    client = desk.open(["a"])
    desk.send("a", "b", data="both")
    desk.send("b", data="b")
    await quiet()
    await desk.change(client, add=["b"], after="e-0")
    assert [each[0] for each in wire(client)] == ["both", "hub.topics", "0", "b"]


async def test_what_the_stream_could_not_see_follows():
    """A private notification that matched, but not through a topic that is granted."""
    desk = Changing()
    client = desk.open(["b"])
    desk.service.send_notification("private", topics=["a", "b"], private=True)
    desk.service.send_notification("not theirs", topics=["b", "d/x"], private=True)
    await quiet()
    await desk.change(client, add=["a", "d/x"], after="e-0")
    assert [each[0] for each in wire(client)] == ["hub.topics", "private"]
    assert client.connection.visibility == Visibility(frozenset({"a"}))


async def test_a_topic_that_is_removed_is_gone_at_once():
    desk = Changing()
    client = desk.open(["a", "b"])
    await desk.change(client, remove=["b", "never"])
    desk.send("b")
    desk.send("a", data="x")
    await quiet()
    assert wire(client) == [("hub.topics", {"topics": ["a"], "from": "e-0"}), ("x", 2)]
    assert not desk.fanout.wants("b")


async def test_what_changes_nothing_says_nothing():
    desk = Changing()
    client = desk.open(["a"])
    desk.send("a", data="x")
    assert (await desk.change(client, add=["a"], remove=["b"], after="e-0")).position.offset == 1
    assert wire(client) == [("x", 1)]


@pytest.mark.parametrize(("after", "reason"), [("old-1", "epoch"), ("e-99", "unknown"), ("?", "unknown")])
async def test_a_gap_begins_right_before_the_first_that_follows(after: str, reason: str):
    desk = Changing()
    client = desk.open(["a"])
    desk.send("c")
    desk.send("b", data="x")
    await quiet()
    assert (await desk.change(client, add=["b"], after=after)).position.offset == 1
    gap = ("hub.gap", {"recovered": False, "reason": reason, "oldest": "e-1"})
    told = ("hub.topics", {"topics": ["a", "b"], "from": "e-1"})
    assert wire(client) == [told, gap, ("x", 2)]


async def test_what_was_trimmed_of_an_added_topic_is_a_gap_and_told_once():
    desk = Changing(MemoryLog(epoch="e", topics={"b": 1}))
    client = desk.open(["a"])
    for number in range(3):
        desk.send("b", data=str(number))
        desk.send("a", data="a")
    await quiet()
    assert (await desk.change(client, add=["b"], after="e-0")).position.offset == 4
    gap = ("hub.gap", {"recovered": False, "reason": "trimmed", "oldest": "e-2"})
    assert wire(client)[3:] == [("hub.topics", {"topics": ["a", "b"], "from": "e-4"}), gap, ("2", None)]


async def test_everything_that_is_kept_can_be_asked_for():
    desk = Changing()
    client = desk.open(["a"])
    assert (await desk.change(client, add=["b"], after="earliest")).position.offset == 0
    desk.send("c")
    desk.send("b", data="x")
    assert (await desk.change(client, remove=["b"])).position.offset == 2
    assert (await desk.change(client, add=["b"], after="earliest")).position.offset == 1
    assert [each[0] for each in wire(client)] == ["hub.topics", "x", "hub.topics", "hub.topics", "x"]


async def test_the_newest_of_each_topic_is_not_mixed_with_what_is_added():
    desk = Changing()
    for number in range(3):
        desk.send("a", data=f"a{number} " + "x" * 9_000)
        desk.send("c", data=f"c{number} " + "x" * 9_000)
        desk.send("b", data=f"b{number}")
    client = desk.open(["a", "c"], "latest", capacity=0, high=5_000)
    await desk.change(client, add=["b"], after="e-4")
    client.transport.read(10**6)
    await quiet()
    client.transport.read(10**6)
    desk.send("a", data="live")
    await quiet()
    said = [(data.split()[0] if isinstance(data, str) else data, id) for data, id in wire(client)]
    assert [data for data, _ in said] == ["a2", "c2", "hub.topics", "b1", "b2", "live"]
    assert [id for _, id in said][-3:] == [None, None, 10]


async def test_the_newest_of_each_added_topic_can_be_asked_for():
    desk = Changing()
    for number, topic in enumerate(["d/x", "b", "d/x", "b", "d/y", "c"], 1):
        desk.send(topic, data=str(number))
    client = desk.open(["a"])
    desk.send("a", data="7")
    desk.send("b", "d/y", data="8")
    assert (await desk.change(client, add=["d/*", "b"], after="latest")).position.offset == 2
    desk.send("d/x", data="9")
    await quiet()
    told = ("hub.topics", {"topics": ["a", "b", "d/*"], "from": "e-2"})
    assert wire(client) == [("7", 7), told, ("3", None), ("8", None), ("9", 9)]
    assert client.connection.state is State.LIVE


async def test_without_one_that_is_kept_the_latest_is_what_is_new():
    desk = Changing()
    desk.send("a", data="1")
    client = desk.open(["a"])
    assert (await desk.change(client, add=["b"], after="latest")).position.offset == 1
    desk.send("b", data="2")
    await quiet()
    assert wire(client)[1:] == [("2", 2)]


async def test_one_that_stands_behind_gets_the_newest_as_of_there_and_all_that_follows():
    """First what is left of the newest ones that it began with, which are not begun anew."""
    desk = Changing()
    for number in range(1, 5):
        desk.send("d/x" if number < 3 else "d/y", data=f"d{number}")
        desk.send("a", data=f"a{number} " + "x" * 9_000)
        desk.send("c", data=f"c{number} " + "x" * 9_000)
    client = desk.open(["a", "c"], "latest", capacity=0, high=5_000)
    desk.send("d/y", data="d5")
    await desk.change(client, add=["d/*"], after="latest")
    desk.send("d/x", data="d6")
    for _ in range(3):
        client.transport.read(10**6)
        await quiet()
    said = [data.split()[0] if isinstance(data, str) else data for data, _ in wire(client)]
    assert said == ["a4", "c4", "hub.topics", "d2", "d4", "d5", "d6"]


async def test_a_log_that_fails_leaves_the_stream_as_it_was():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Changing(log)
    client = desk.open(["a"])
    changing = asyncio.ensure_future(desk.change(client, add=["b"], after="old-1"))
    await quiet()
    log.fail(LogUnavailable("disk full"))
    with pytest.raises(LogUnavailable):
        await changing
    desk.send("a", data="x")
    await quiet()
    assert wire(client) == [("x", 1)]
    assert set(client.connection.topics) == {"a"}


async def test_a_page_that_comes_in_the_moment_of_a_change_is_not_taken_for_another():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Changing(log)
    for topic in "aba":
        desk.send(topic, data=topic)
    client = desk.open(["a"], "e-0")
    log.answer()  # its callback is due, and can't be taken back
    await desk.changes.change(client.connection.id, add=["b"], after="e-0")
    for _ in range(4):
        await quiet()
        if log.pending:
            log.answer()
    assert [each[0] for each in wire(client)] == ["hub.topics", "a", "b", "a"]


async def test_a_stream_that_ends_while_a_change_waits_is_not_there():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Changing(log)
    client = desk.open(["a"])
    changes = [asyncio.ensure_future(desk.change(client, add=["b"], after="old-1")) for _ in range(2)]
    await quiet()
    client.connection.end(CloseReason.REVOKED, 1_000)
    log.answer()
    for changing in changes:
        with pytest.raises(NotThere):
            await changing
    assert not desk.fanout._audiences


async def test_a_stream_that_has_not_begun_is_waited_for():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Changing(log)
    desk.send("a", data="1")
    client = desk.open(["a"], "earliest")
    changing = asyncio.ensure_future(desk.change(client, add=["b"]))
    await quiet()
    assert not changing.done()
    log.answer()
    await changing
    assert [each[0] for each in wire(client)] == ["1", "hub.topics"]


@pytest.mark.parametrize(
    ("topics", "field"),
    [
        ({"add": ["b/"]}, "add"),
        ({"add": [f"t/{number}" for number in range(128)]}, "add"),
        ({"remove": ["a"]}, "remove"),
        ({"add": ["b"], "remove": ["b"]}, "remove"),
        ({"add": "b"}, "add"),
    ],
)
async def test_a_wrong_change_is_refused_and_changes_nothing(topics: dict[str, Any], field: str):
    desk = Changing()
    client = desk.open(["a"])
    with pytest.raises(InvalidInput) as caught:
        await desk.change(client, **topics)
    assert caught.value.field == field
    assert wire(client) == []


async def test_a_reader_that_takes_nothing_can_not_be_changed_for_ever():
    desk = Changing()
    client = desk.open(["a"], capacity=100, high=100)
    desk.send("a", data="x" * 1_000)
    many = [f"{number}/{'y' * 240}" for number in range(120)]

    async def change_again_and_again() -> None:
        for _ in range(1_000):
            await desk.changes.change(client.connection.id, add=many)
            await desk.changes.change(client.connection.id, remove=many)

    with pytest.raises(NotThere):
        await change_again_and_again()
    assert client.connection.closed_because is CloseReason.SLOW


async def test_changes_that_are_not_read_take_no_more_than_the_buffer():
    desk = Changing()
    client = desk.open([f"{number}/{'y' * 240}" for number in range(120)], capacity=100, high=100)
    desk.send("a", data="x" * 1_000)
    most = 0

    async def change_again_and_again() -> None:
        nonlocal most
        for number in range(1_000):
            added, removed = (["a"], []) if number % 2 == 0 else ([], ["a"])
            await desk.changes.change(client.connection.id, add=added, remove=removed)
            most = max(most, client.connection.facts().buffered)

    with pytest.raises(NotThere):
        await change_again_and_again()
    assert desk.wiring.buffer_bytes / 2 < most < 2 * desk.wiring.buffer_bytes


async def test_others_get_their_turn_while_a_change_looks_for_its_beginning():
    desk = Changing()
    client = desk.open(["a"])
    for _ in range(10_000):
        desk.service.send_notification("x", topics=["b"], private=True)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await desk.changes.change(client.connection.id, add=["b"], after="earliest")
    running.cancel()
    assert turns > 5, "one a page"


# ---- everything that can race ----

SOME = st.lists(st.sampled_from(TOPICS), max_size=3, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.sampled_from(["a", "b", "c", "d/x", "d/y"]), min_size=1, max_size=2)),
        st.tuples(st.just("private"), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2)),
        st.tuples(st.just("big"), st.sampled_from([["a"], ["b"], ["c"]])),
        st.tuples(st.just("change"), st.tuples(SOME, SOME, st.none() | st.integers(0, 60))),
        st.tuples(st.just("change"), st.tuples(SOME, SOME, st.sampled_from([None, "earliest", "latest", "old-1"]))),
        st.tuples(st.just("answer"), st.none()),
        st.tuples(st.just("read"), st.integers(1, 30_000)),
        st.tuples(st.just("tick"), st.integers(1, 12)),
        st.tuples(st.just("beat"), st.none()),
        st.tuples(st.just("cut"), st.integers(0, 5_000)),
    ),
    min_size=5,
    max_size=70,
)


@pytest.mark.slow
@settings(max_examples=examples(150, 6_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    slow=st.sampled_from(list(SlowPolicy)),
    before=st.integers(0, 8),
    slow_log=st.booleans(),
    kept=st.sampled_from([10_000, 10_000, 12]),
)
def test_whatever_races_the_wire_is_what_the_model_says(
    steps: list[tuple[str, Any]], slow: SlowPolicy, before: int, slow_log: bool, kept: int
):
    async def race() -> None:
        await Race(slow, slow_log, kept).run(steps, before)

    asyncio.run(race())


class Race:
    """One client and its stream under steps; each connection is compared with the model when it has ended."""

    def __init__(self, slow: SlowPolicy, slow_log: bool, kept: int) -> None:
        memory = MemoryLog(epoch="e", count=kept)
        self.memory = memory
        self.log = SlowLog(memory) if slow_log else None
        # At each look 50 microseconds have passed, so that what a flush costs is the same in every run.
        now = map((50e-6).__mul__, count()).__next__
        self.desk = Changing(self.log or memory, buffer_bytes=65_536, slow=slow, now=now)
        self.sent: dict[int, tuple[tuple[str, ...], bool]] = {}
        self.changes: list[asyncio.Future[Answered]] = []
        self.asked: list[tuple[list[str], list[str]]] = []
        self.cursor: str | None = "e-0"

    def send(self, topics: list[str], *, private: bool = False, size: int = 0) -> None:
        data = str(len(self.sent) + 1) + " " * size
        topics = list(dict.fromkeys(topics))
        place = self.desk.service.send_notification(data, topics=topics, private=private).result().offset
        assert place == len(self.sent) + 1
        self.sent[place] = tuple(topics), private

    def connect(self) -> None:
        self.changes = []
        self.client = self.desk.open(["a", "b"], self.cursor, capacity=0, high=16_384)

    async def run(self, steps: list[tuple[str, Any]], before: int) -> None:
        for number in range(before):
            self.send([TOPICS[number % 4]])
        self.connect()
        for step, value in steps:
            await self.do(step, value)
            if self.client.transport.is_closing():
                await self.come_back(None)
        for _ in range(3_000):
            if self.log is not None and self.log.pending:
                self.log.answer()
            if not self.client.transport.is_closing():
                self.client.transport.read(50_000)
            # A change of a stream that had not begun looks again after some milliseconds.
            await asyncio.sleep(0 if all(each.done() for each in self.changes) else 0.0001)
            if self.client.transport.is_closing():
                await self.come_back(None)
                continue
            if (self.log is not None and self.log.pending) or not all(each.done() for each in self.changes):
                continue
            live = self.client.connection.state is State.LIVE and self.client.connection.has_begun
            if live and self.desk.fanout.resting and not self.client.transport.unsent:
                break
        else:
            raise AssertionError("it never came to rest")
        await self.compare(None, at_rest=True)

    async def do(self, step: str, value: Any) -> None:
        transport = self.client.transport
        if step == "send":
            self.send(value)
        elif step == "private":
            self.send(value, private=True)
        elif step == "big":
            self.send(value, size=20_000)
        elif step == "change":
            add, remove, after = value
            remove = [each for each in remove if each not in {*add, "a"}]
            after = f"e-{min(after, len(self.sent))}" if isinstance(after, int) else after
            self.changes.append(asyncio.ensure_future(self.change(add, remove, after)))
            await asyncio.sleep(0)
        elif step == "answer" and self.log is not None and self.log.pending:
            self.log.answer()
        elif step == "read":
            transport.read(value)
        elif step == "tick":
            for _ in range(value):
                await asyncio.sleep(0)
        elif step == "beat":
            connection = self.client.connection
            connection._touched = -1e9
            if connection._audience is not None:
                connection._audience.touched = -1e9
            self.desk.streams.sweep()
        elif step == "cut":
            await self.come_back(value)

    async def change(self, add: list[str], remove: list[str], after: str | None) -> Answered:
        id = self.client.connection.id
        changed = await self.desk.changes.change(id, add=add, remove=remove, after=after)
        return Answered(changed, len(self.sent) if after == "latest" else None)

    async def come_back(self, taken: int | None) -> None:
        """Lose the connection with only *taken* bytes of it read, and come back with the cursor of an `EventSource`."""
        if not self.client.transport.is_closing():
            self.client.connection.abort(CloseReason.CLIENT)
        self.client.connection.connection_lost(None)
        while not all(each.done() for each in self.changes):
            if self.log is not None and self.log.pending:
                self.log.answer()
            await asyncio.sleep(0.001)
        await self.compare(taken, at_rest=False)
        self.connect()

    async def compare(self, taken: int | None, *, at_rest: bool) -> None:
        answers = []
        for each in self.changes:
            if not isinstance(each.exception(), NotThere):
                answers.append(each.result())
        received = blocks(dechunk(bytes(self.client.transport.received[:taken])))
        if not received:
            return
        model = Model(self.sent, self.memory, answers)
        for block in received:
            model.take(block)
        self.cursor = model.cursor
        if at_rest:
            model.at_rest(max(self.sent, default=0))
            assert set(self.client.connection.topics) == model.topics
            facts = self.client.connection.facts()
            came = sum(block.type == "message" and block.data is not None for block in received)
            assert (facts.delivered, facts.dropped, facts.buffered) == (came, model.dropped, 0)


class Answered(NamedTuple):
    """The answer to a change, and where the newest stood by then, if these were asked for."""

    changed: TopicsChanged
    newest: int | None


class Model:
    """What one connection owes its client, notification by notification."""

    def __init__(
        self, sent: dict[int, tuple[tuple[str, ...], bool]], log: MemoryLog, answers: Sequence[Answered]
    ) -> None:
        self.sent, self.log = sent, log
        self.answers = iter(answers)
        self.topics = {"a", "b"}
        self.owed: dict[int, set[str]] = {}
        self.may: dict[int, set[str]] = {}  # it is told of the newest as of where it stands, not as of now
        self.had: dict[int, set[str]] = {}
        self.as_newest: set[int] = set()  # if it was trimmed before it was read, nobody says so; and it may come again
        self.cursor = ""
        self.newest_id = 0
        self.since_change: bool = True  # a new id has come since the topics were changed
        self.gaps = 0
        self.dropped = 0
        self.missing: list[int] = []

    def through(self, place: int, topics: Collection[str]) -> set[str]:
        """Return those of *topics* through which the notification at *place* may reach the client."""
        own, private = self.sent[place]
        matching = {each for each in topics if any(map(compiled(frozenset({each})).match, own))}
        return matching & GRANTED if private else matching

    def owe(self, topics: Collection[str], after: int, latest: int | None = None) -> None:
        newest: dict[str, int] = {}
        reached = {place: self.through(place, topics) for place in self.sent if place > after}
        for place in filter(reached.get, sorted(reached) if latest is not None else ()):
            if place <= (latest or 0):
                newest |= dict.fromkeys(self.seen(place, topics), place)
        for place in filter(reached.get, reached):
            if self.had.get(place, set()) & self.topics and place not in self.as_newest:
                continue
            sure = latest is None or place > latest or place in newest.values()
            if place in self.as_newest or not sure:
                self.may.setdefault(place, set()).update(reached[place])
            if sure:
                self.owed.setdefault(place, set()).update(reached[place])
            if latest is not None and place <= latest:
                self.as_newest.add(place)

    def seen(self, place: int, topics: Collection[str]) -> set[str]:
        """Return the own topics of the notification at *place* that *topics* match."""
        return {each for each in self.sent[place][0] if compiled(frozenset(topics)).match(each)}

    def take(self, block: Any) -> None:
        facts = json.loads(block.data) if block.type.startswith("hub.") and block.data else {}
        if block.type == "hub.open":
            self.gaps += facts["recovered"] is False
            self.owe(self.topics, offset(block.id))
        elif block.type == "hub.topics":
            assert not block.id
            topics = set(facts["topics"])
            removed, added = self.topics - topics, topics - self.topics
            for owed in self.owed, self.may:
                for place in list(owed):
                    owed[place] -= removed
                    if not owed[place]:
                        del owed[place]
            for had in self.had.values():  # one that is added once more counts from there
                had.difference_update(removed)
            # Changes that changed nothing answer with what is there, and say nothing in the stream.
            said = facts["topics"], facts["from"]
            answers = ((list(each.topics), str(each.position), newest) for each, newest in self.answers)
            latest = next(newest for *answer, newest in answers if tuple(answer) == said)
            self.owe(added, offset(facts["from"]), latest)
            self.topics = topics
            self.since_change = False
        elif block.type == "hub.gap":
            self.gaps += 1
        elif block.type == "hub.dropped":
            self.dropped += facts["dropped"]
        elif block.type == "message" and block.data is not None:
            self.notification(int(block.data), block.id)
        if block.id:
            self.id(block.id)

    def notification(self, place: int, id: str) -> None:
        assert place in self.owed or place in self.may, f"{place} came, and is not owed"
        if place not in self.as_newest:  # which come before what else was asked for by then
            self.skip(below=place)
        self.had[place] = self.owed.pop(place, set()) | self.may.get(place, set())
        if place not in self.as_newest:
            self.may.pop(place, None)
        if id:
            assert offset(id) == place
        else:
            assert place <= max([self.newest_id, *self.had, *self.sent])

    def skip(self, below: int) -> None:
        """Note what did not come, though something that follows it did."""
        for each in [each for each in self.owed if each < below]:
            trimmed = each in self.as_newest and each not in self.log._kept
            # What was had: all that brought it had been removed, and it may come again or not.
            if each not in self.had and not trimmed:
                self.missing.append(each)
            del self.owed[each]

    def id(self, id: str) -> None:
        assert offset(id) >= self.newest_id, "an id went backwards"
        self.since_change = self.since_change or offset(id) > self.newest_id
        self.newest_id, self.cursor = offset(id), id
        if self.since_change:  # a client that resumes from a new id misses nothing of any topic
            self.skip(below=offset(id) + 1)
        else:
            assert not [each for each, topics in self.owed.items() if each <= offset(id) and "a" in topics]
        gone = [each for each in self.missing if each in self.log._kept]
        assert len(gone) <= self.dropped, f"{gone} did not come, and nobody said so"
        assert len(self.missing) <= self.dropped or self.gaps, f"{self.missing} did not come, and nobody said so"

    def at_rest(self, newest: int) -> None:
        self.skip(below=newest + 1)
        self.id(f"e-{max(newest, self.newest_id)}")
