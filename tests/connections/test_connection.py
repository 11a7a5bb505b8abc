import asyncio
import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.client_stream import UNREAD_BYTES, CloseReason
from hub.connections.connection import SLICE_BYTES, Connection, Subscription, Wiring
from hub.connections.page_cache import PageCache
from hub.connections.registry import StreamRegistry
from hub.connections.seam import State
from hub.encoding import SSE, Encoding
from hub.errors import LogUnavailable
from hub.fanout import Fanout
from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.metrics import Metrics
from hub.notification import Position
from hub.notifications import NotificationService
from hub.settings import SlowPolicy
from tests.chance import examples
from tests.fakes import FakeTransport, SlowLog
from tests.wire import Block, blocks, dechunk

T = ("t",)
CHUNKED = SSE()


class Desk:
    """A hub without sockets: log, trunk, fan-out, and connections over fake transports.

    For its fan-out no time passes unless *now* says so: then it gathers by turns of the loop alone.
    """

    def __init__(
        self,
        log: Log | None = None,
        *,
        buffer_bytes: int = 1 << 20,
        slow: SlowPolicy = SlowPolicy.DISCONNECT,
        now: Callable[[], float] = lambda: 0.0,
    ):
        self.log = log or MemoryLog(epoch="e")
        self.metrics = Metrics()
        self.service = NotificationService(self.log, self.metrics)
        self.fanout = Fanout(self.metrics, now)
        self.fanout.begin(self.log.bounds().newest)
        self.service.subject.subscribe(self.fanout.on_next)
        self.pages = PageCache(self.log)
        self.streams = self.registry(buffer_bytes=buffer_bytes)
        self.wiring = Wiring(self.log, self.pages, self.fanout, self.metrics, self.streams, buffer_bytes, slow)

    def registry(self, **options: Any) -> StreamRegistry:
        """Return a registry, as a hub has one."""

        def before_sweep() -> None:
            self.log.trim()
            self.pages.trim()
            self.fanout.flush()

        return StreamRegistry(self.metrics, peer_timeout=30, before_sweep=before_sweep, **options)

    def send(self, *topics: str, data: Any = "x") -> int:
        return self.service.send_notification(data, topics=topics or T).result().offset

    def connect(
        self,
        last_event_id: str | None = None,
        topics: tuple[str, ...] = T,
        encoding: Encoding = CHUNKED,
        visibility: Visibility = EVERYTHING,
        **transport: Any,
    ) -> "Client":
        connection = Connection(Subscription(topics, last_event_id, encoding, visibility), self.wiring)
        client = Client(connection, FakeTransport(connection, **transport), encoding)
        connection.connection_made(client.transport)
        return client


async def test_hubs_on_several_threads_give_each_connection_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch):
    desk, ids, token_hex = Desk(), list[str](), secrets.token_hex

    def connect() -> None:
        ids.append(Connection(Subscription(T), desk.wiring).id)

    def meet_another_thread(size: int) -> str:
        monkeypatch.undo()
        with ThreadPoolExecutor(1) as another:
            another.submit(connect).result(10)
        return token_hex(size)

    monkeypatch.setattr(secrets, "token_hex", meet_another_thread)
    while secrets.token_hex is meet_another_thread:
        connect()
    for _ in range(300):
        connect()
    assert len(set(ids)) == len(ids)


class Client(NamedTuple):
    connection: Connection
    transport: FakeTransport
    encoding: Encoding = CHUNKED

    @property
    def blocks(self) -> list[Block]:
        received = bytes(self.transport.received)
        return blocks(dechunk(received) if self.encoding != SSE(chunked=False) else received)

    @property
    def offsets(self) -> list[int]:
        return [offset(block.id) for block in self.blocks if block.type == "message" and block.data is not None]

    @property
    def facts(self) -> dict[str, Any]:
        """What the hub's own blocks said, by type."""
        return {b.type: json.loads(b.data) for b in self.blocks if b.type.startswith("hub.") and b.data is not None}


def offset(id: str) -> int:
    return int(id.rpartition("-")[2])


async def quiet() -> None:
    """Let the fan-out finish gathering."""
    for _ in range(12):
        await asyncio.sleep(0)


async def test_a_new_stream_begins_at_the_newest_position_and_gets_what_follows():
    desk = Desk()
    desk.send()
    client = desk.connect()
    assert client.blocks[0].id == "e-1"
    assert client.facts["hub.open"] == {"connection": client.connection.id, "topics": ["t"], "recovered": None}
    assert 2_000 <= (client.blocks[0].retry or 0) <= 4_000
    desk.send()
    desk.send("other")
    desk.send()
    await quiet()
    assert client.offsets == [2, 4]


async def test_a_resumed_stream_replays_what_was_missed_and_goes_live_in_the_same_step():
    desk = Desk()
    for _ in range(5):
        desk.send()
    client = desk.connect("e-2")
    assert client.connection.state is State.LIVE
    assert client.blocks[0].id == "e-2"
    assert client.facts["hub.open"]["recovered"] is True
    desk.send()
    assert client.offsets == [3, 4, 5, 6]


async def test_what_was_gathered_before_a_connection_joins_does_not_reach_it_twice():
    desk = Desk()
    desk.connect()
    desk.send()
    desk.send()  # gathered, for a flush was just now
    client = desk.connect("e-0")
    desk.send()
    await quiet()
    assert client.offsets == [1, 2, 3]


async def test_a_new_stream_does_not_get_what_was_gathered_before_it():
    desk = Desk()
    desk.connect()
    desk.send()
    desk.send()  # gathered, for a flush was just now
    client = desk.connect()
    desk.send()
    await quiet()
    assert client.blocks[0].id == "e-2"
    assert client.offsets == [3]


@pytest.mark.parametrize(("asked", "reason"), [("old-3", "epoch"), ("e-99", "unknown"), ("nonsense", "unknown")])
async def test_a_foreign_id_is_a_gap_and_all_that_is_kept_follows(asked: str, reason: str):
    desk = Desk()
    desk.send("other")
    desk.send()
    desk.send()
    client = desk.connect(asked)
    gap = {"recovered": False, "reason": reason, "oldest": "e-1"}
    assert client.facts["hub.open"] == {"connection": client.connection.id, "topics": ["t"], **gap}
    assert client.facts["hub.gap"] == gap
    assert [block.type for block in client.blocks] == ["hub.open", "hub.gap", "message", "message"]
    assert client.blocks[0].id == "e-1", "the position just before the first that follows"
    assert client.offsets == [2, 3]


async def test_a_gap_with_nothing_kept_begins_at_the_newest_position():
    desk = Desk()
    desk.send("other")
    client = desk.connect("old-3")
    assert client.blocks[0].id == "e-1"
    assert client.facts["hub.open"]["oldest"] == "e-1"


async def test_a_gap_begins_before_the_first_that_follows_however_far_that_is():
    desk = Desk(MemoryLog(epoch="e", count=10**6))
    for number in range(25_000):
        desk.send(f"busy/{number % 5_000}")
    first = desk.send("rare/x")
    for topic in range(5_000):
        desk.send(f"rare/{topic}/y")
    client = desk.connect("old-1", ("rare/*", "rare/*/z"))
    for _ in range(20):  # pages, one in each turn of the loop
        await asyncio.sleep(0)
    assert client.blocks[0].id == f"e-{first - 1}"
    assert client.offsets == [first]


def since(epoch: str = "e", **floors: int) -> Visibility:
    return Visibility(None, frozenset((topic, Position(epoch, offset)) for topic, offset in floors.items()))


@pytest.mark.parametrize("asked", ["e-1", "earliest", "e-4", "old-3"])
async def test_a_reader_with_a_floor_gets_what_follows_it_and_what_is_live(asked: str):
    desk = Desk()
    for _ in range(5):
        desk.send()
    client = desk.connect(asked, visibility=since(t=3))
    desk.send()
    await quiet()
    assert client.offsets == ([5, 6] if asked == "e-4" else [4, 5, 6])


async def test_what_was_trimmed_below_the_floor_is_no_gap():
    desk = Desk(MemoryLog(epoch="e", count=2))
    for _ in range(5):
        desk.send()
    for floor, recovered in ((2, False), (3, True), (5, True)):
        client = desk.connect("e-1", visibility=since(t=floor))
        assert client.facts["hub.open"]["recovered"] is recovered
        assert client.offsets == [offset for offset in (4, 5) if offset > floor]


async def test_readers_with_different_floors_are_one_audience():
    desk = Desk()
    desk.send()
    clients = [desk.connect(asked, visibility=since(t=floor)) for asked in (None, "e-0") for floor in (0, 1)]
    clients.append(desk.connect())
    await quiet()
    assert len({id(client.connection._audience) for client in clients}) == 1
    assert {client.connection.visibility for client in clients} == {since(t=0), since(t=1), EVERYTHING}


@pytest.mark.parametrize("asked", ["e-1", "earliest"])
async def test_a_reader_whose_floor_belongs_to_an_earlier_history_comes_back_later(asked: str):
    desk = Desk()
    desk.send()
    desk.send()
    client = desk.connect(asked, visibility=since("old", t=0))
    assert client.connection.closed_because is CloseReason.LOG_UNAVAILABLE
    assert client.offsets == []


async def test_a_quiet_topic_in_a_busy_hub_is_not_a_gap():
    desk = Desk(MemoryLog(epoch="e", count=3))
    desk.send("quiet")
    seen = desk.send("busy")
    for _ in range(10):
        desk.send("busy")
    assert desk.connect(f"e-{seen}", ("quiet",)).facts["hub.open"]["recovered"] is True
    assert desk.connect("e-0", ("quiet",)).facts["hub.open"]["reason"] == "trimmed"
    assert desk.connect(f"e-{seen}", ("busy",)).facts["hub.open"]["reason"] == "trimmed"


async def test_a_hole_that_opens_during_a_replay_is_announced_where_it_is():
    desk = Desk(MemoryLog(epoch="e", count=1_500))
    for _ in range(1_500):
        desk.send(data="x" * 200)
    client = desk.connect("e-0", capacity=1_000, high=1_000)
    for _ in range(1_400):
        desk.send(data="y" * 200)
    while client.connection.state is not State.LIVE:
        client.transport.read(100_000)
        await quiet()
    client.transport.read(10**9)
    await quiet()
    kinds = [block.type for block in client.blocks]
    place = kinds.index("hub.gap")
    assert kinds.count("hub.gap") == 1
    assert client.facts["hub.open"]["recovered"] is True
    offsets = client.offsets
    before, after = offsets[: place - 1], offsets[place - 1 :]
    assert before == list(range(1, before[-1] + 1))
    assert after == list(range(after[0], 2_901))
    assert client.facts["hub.gap"] == {"recovered": False, "reason": "trimmed", "oldest": f"e-{after[0]}"}


@pytest.mark.parametrize("topics", [("news", "state/a"), ("news", "state/*"), ("**",)])
@pytest.mark.parametrize("begin", ["earliest", "e-0"])
async def test_what_was_gone_before_a_stream_began_is_told_once_at_most(begin: str, topics: tuple[str, ...]):
    desk = Desk(MemoryLog(epoch="e", topics={"state/*": 1}))
    for _ in range(500):
        desk.send("state/a")
        desk.send("news", data="x" * 900)
    client = desk.connect(begin, topics)
    while client.connection.state is not State.LIVE:
        await quiet()
        client.transport.read(10**9)
    client.transport.read(10**9)
    assert client.offsets == [*range(2, 1_000, 2), 999, 1_000]
    assert [block.type for block in client.blocks].count("hub.gap") == (begin != "earliest")


async def test_replay_is_paced_by_the_reader():
    desk = Desk()
    for _ in range(200):
        desk.send(data="x" * 10_000)
    client = desk.connect("e-0", capacity=0)
    assert len(client.transport.unsent) < 512 * 1024
    assert client.connection.state is State.REPLAYING
    while client.connection.state is not State.LIVE:
        client.transport.read(200_000)
        await quiet()
    client.transport.read(10**9)
    await quiet()
    assert client.offsets == list(range(1, 201))


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
async def test_a_replay_puts_little_into_the_transport_however_large_its_pages_are(size: int):
    desk = Desk()
    count = 2_000_000 // size
    for _ in range(count):
        desk.send(data="x" * size)
    client = desk.connect("e-0", capacity=0, high=16_384)
    while client.connection.state is State.REPLAYING:
        assert len(client.transport.unsent) <= 16_384 + SLICE_BYTES + 1_000
        client.transport.read(5_000)
        await quiet()
    client.transport.read(10**9)
    assert client.offsets == list(range(1, count + 1))


@pytest.mark.parametrize("slow", SlowPolicy)
async def test_a_reader_is_live_when_it_has_taken_its_history_and_judged_only_then(slow: SlowPolicy):
    desk = Desk(buffer_bytes=65_536, slow=slow)
    for _ in range(30):
        desk.send(data="x" * 2_000)
    client = desk.connect("e-0", capacity=0, high=16_384)
    count, states = 30, set()
    while client.transport.unsent and not client.transport.aborted:
        states.add(client.connection.state)
        client.transport.read(4_000)  # faster than what comes
        desk.send(data="x" * 2_000)
        count += 1
        await quiet()
    assert states == {State.REPLAYING, State.LIVE}
    assert (client.connection.closed_because, desk.metrics.dropped) == (None, 0)
    assert client.offsets == list(range(1, count + 1))


@pytest.mark.parametrize("slow", SlowPolicy)
async def test_what_was_held_is_no_reason_to_cut_its_reader(slow: SlowPolicy):
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log, buffer_bytes=65_536, slow=slow)
    desk.send()
    client = desk.connect("e-0", capacity=0, high=1_000)
    desk.send()
    client.transport.read(10_000)
    log.answer()  # all up to 1, but 2 has come: hold from here, read on
    await quiet()
    assert client.connection.state is State.HOLDING
    count = 2
    while client.connection.state is State.HOLDING and client.connection._waiting < 60_000:
        desk.send()
        count += 1
        await quiet()
    for _ in range(500):
        if log.pending:
            log.answer()
        if not client.transport.aborted:
            client.transport.read(3_000)
        await quiet()
    assert client.connection.state is State.LIVE
    assert (client.connection.closed_because, desk.metrics.dropped) == (None, 0)
    assert client.offsets == list(range(1, count + 1))


async def test_a_hold_is_given_up_while_the_reader_takes_its_time():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log)
    desk.send()
    client = desk.connect("e-0", capacity=1_000, high=5_000)
    desk.send(data="x" * 20_000)
    log.answer()  # all up to 1, but 2 has come: hold from here, read on
    await quiet()
    assert client.connection.state is State.HOLDING
    desk.send()
    log.answer()
    await quiet()
    assert client.connection.state is State.REPLAYING
    client.transport.read(10**6)
    await quiet()
    log.answer()
    await quiet()
    assert client.connection.state is State.LIVE
    assert client.offsets == [1, 2, 3]


async def test_a_stream_that_is_closed_in_the_middle_of_a_page_gets_the_rest_of_it_before_the_reason():
    desk = Desk()
    for _ in range(10):
        desk.send(data="x" * 5_000)
    client = desk.connect("e-0", capacity=7_000, high=5_000)
    client.connection.end(CloseReason.SHUTDOWN, retry=1_234)
    client.transport.read(10**6)
    assert client.offsets == list(range(1, 11))
    assert client.facts["hub.close"] == {"reason": "shutdown"}
    assert client.transport.received.endswith(b"0\r\n\r\n")


async def test_a_long_replay_gives_way_to_others_after_each_page():
    desk = Desk()
    for _ in range(3_500):
        desk.send()
    client = desk.connect(f"{desk.log.epoch}-0")
    turns = 0
    while client.connection.state is not State.LIVE:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 3, "pages of 1,000"
    assert [offset(block.id) for block in client.blocks[1:]] == list(range(1, 3_501))


async def test_envelopes_name_the_first_topic_the_subscription_wants():
    desk = Desk()
    desk.send("b/1", "a", "c", data={"n": 1})
    client = desk.connect("e-0", ("c", "a", "b/*"), SSE(envelope=True))
    desk.send("c", "b/2", data="text")
    assert [json.loads(b.data or "") for b in client.blocks if b.type == "message"] == [
        {"topic": "b/1", "data": {"n": 1}},
        {"topic": "c", "data": "text"},
    ]


async def test_a_client_without_chunks_gets_bare_frames():
    desk = Desk()
    desk.send()
    client = desk.connect("e-0", encoding=SSE(chunked=False))
    desk.send()
    assert client.transport.received.startswith(b"retry: ")
    assert client.offsets == [1, 2]


async def test_several_topics_of_one_notification_reach_a_connection_once():
    desk = Desk()
    client = desk.connect(topics=("a", "b", "*", "**"))
    desk.send("a", "b")
    assert client.offsets == [1]


async def test_a_log_that_cannot_be_read_sends_the_client_away_to_come_back():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log)
    desk.send()
    client = desk.connect("e-0")
    log.fail(LogUnavailable("disk full"))
    await quiet()
    assert client.facts["hub.close"] == {"reason": "log_unavailable"}
    assert client.transport.received.endswith(b"0\r\n\r\n")
    assert client.transport.closed


async def test_what_comes_while_the_last_page_is_read_follows_it_in_order():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log)
    desk.send()
    client = desk.connect("e-0")
    desk.send()
    log.answer()  # all up to 1, but 2 has come: hold from here, read on
    await quiet()
    desk.send()
    await quiet()
    desk.send()
    await quiet()
    assert client.offsets == [1]
    log.answer()
    await quiet()
    desk.send()
    assert client.offsets == [1, 2, 3, 4, 5]
    assert (desk.metrics.replayed, desk.metrics.delivered) == (2, 3)


async def test_a_hold_that_fills_is_dropped_and_reading_goes_on():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log, buffer_bytes=64 * 1024)
    desk.send()
    client = desk.connect("e-0")
    desk.send()
    log.answer()  # all up to 1, but 2 has come: hold from here, read on
    await quiet()
    assert client.connection.state is State.HOLDING
    for _ in range(100):
        desk.send(data="x" * 1_000)
    await quiet()
    assert client.connection.state is State.REPLAYING
    while client.connection.state is not State.LIVE:
        log.answer()
        await quiet()
    assert client.offsets == list(range(1, 103))
    assert desk.metrics.delivered == 0
    assert desk.metrics.replayed == 102


async def test_a_client_that_leaves_while_the_log_is_read_is_gone_at_once():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log)
    desk.send()
    client = desk.connect("e-0")
    client.transport.lose()
    log.answer()
    await quiet()
    assert not len(desk.streams)
    assert client.connection.closed_because is CloseReason.CLIENT


async def test_disconnect_cuts_a_slow_reader_and_nothing_is_kept_for_it():
    desk = Desk(buffer_bytes=100_000)
    slow, other = desk.connect(capacity=1_000), desk.connect()
    for _ in range(300):
        desk.send(data="x" * 1_000)
        await quiet()
    assert slow.transport.aborted
    assert slow.connection.closed_because is CloseReason.SLOW
    assert desk.metrics.slow_disconnects == 1
    assert other.offsets == list(range(1, 301))
    received = [b for b in blocks(dechunk(bytes(slow.transport.received))) if b.type == "message"]
    assert desk.metrics.delivered >= 300 + len(received)


async def test_dropped_frames_are_announced_in_place_and_counted():
    desk = Desk(buffer_bytes=100_000, slow=SlowPolicy.DROP_OLDEST)
    client = desk.connect(capacity=1_000)
    for _ in range(300):
        desk.send(data="x" * 1_000)
        await quiet()
    assert len(client.transport.unsent) <= 100_000
    while client.transport.unsent:
        client.transport.read(50_000)
        await quiet()
    dropped = client.facts["hub.dropped"]
    offsets = client.offsets
    place = offsets.index(offset(dropped["before"]))
    assert offsets[place - 1] == offset(dropped["after"])
    assert dropped["dropped"] == offsets[place] - offsets[place - 1] - 1 == desk.metrics.dropped
    assert len(offsets) + dropped["dropped"] == 300
    assert desk.metrics.delivered == len(offsets)
    assert client.connection.state is State.LIVE


async def test_who_floods_its_own_stream_is_cut():
    desk = Desk()
    client = desk.connect()
    client.connection.data_received(b"x" * UNREAD_BYTES)
    assert not client.transport.aborted
    client.connection.data_received(b"x")
    assert client.connection.closed_because is CloseReason.FLOOD
    assert client.transport.aborted


async def test_a_closed_stream_gets_what_waited_then_the_reason_then_the_end():
    desk = Desk(slow=SlowPolicy.CONFLATE)
    client = desk.connect(capacity=100, high=100)
    for _ in range(5):
        desk.send()
        await quiet()
    client.connection.end(CloseReason.SHUTDOWN, retry=1_234)
    client.transport.read(10**6)
    *_, newest, last = client.blocks
    assert offset(newest.id) == 5
    assert (last.type, last.data, last.retry) == ("hub.close", '{"reason":"shutdown"}', 1_234)
    assert client.transport.received.endswith(b"0\r\n\r\n")


async def test_after_all_have_left_nothing_remembers_them():
    desk = Desk()
    clients = [desk.connect(topics=(f"user/{n}", "news/*", "**")) for n in range(50)]
    for client in clients:
        client.transport.lose()
    assert not len(desk.streams)
    assert not desk.fanout._audiences
    assert not desk.fanout.wants("user/1")
    assert (desk.metrics.connects, desk.metrics.disconnects) == (50, 50)


# ---- the seam, under everything that can race ----

POLICIES = st.sampled_from(list(SlowPolicy))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["t", "u", "other"])),
        st.tuples(st.just("big"), st.just("t")),
        st.tuples(st.just("answer"), st.none()),
        st.tuples(st.just("read"), st.integers(1, 30_000)),
        st.tuples(st.just("tick"), st.none()),
        st.tuples(st.just("cut"), st.integers(0, 5_000)),
    ),
    min_size=5,
    max_size=80,
)


@settings(max_examples=examples(150, 4_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, slow=POLICIES, before=st.integers(0, 5), slow_log=st.booleans())
def test_nothing_is_lost_nothing_comes_twice_whatever_races(
    steps: list[tuple[str, Any]], slow: SlowPolicy, before: int, slow_log: bool
):
    asyncio.run(race(steps, slow, before, slow_log))


async def race(  # noqa: PLR0912 - one branch per thing that can happen
    steps: list[tuple[str, Any]], slow: SlowPolicy, before: int, slow_log: bool
) -> None:
    """Follow two topics through *steps*: cuts, resumes, slow reading, late answers. Then let everything arrive."""
    memory = MemoryLog(epoch="e")
    log = SlowLog(memory) if slow_log else None
    # At each look 50 microseconds have passed, so that what a flush costs is the same in every run.
    desk = Desk(log or memory, buffer_bytes=65_536, slow=slow, now=map((50e-6).__mul__, count()).__next__)
    wanted = [desk.send("t") for _ in range(before)]
    follower = Follower(desk, ("t", "u"), "e-0")
    for step, value in steps:
        if step == "send":
            sent = desk.send(value)
            wanted += [sent] if value in {"t", "u"} else []
        elif step == "big":
            wanted.append(desk.send("t", data="x" * 20_000))
        elif step == "answer" and log is not None and log.pending:
            log.answer()
        elif step == "read":
            follower.client.transport.read(value)
        elif step == "tick":
            await asyncio.sleep(0)
        elif step == "cut":
            follower.cut_after(value)
        follower.come_back_if_cut()
    for _ in range(2_000):
        if log is not None and log.pending:
            log.answer()
        follower.client.transport.read(50_000)
        await asyncio.sleep(0)
        if follower.come_back_if_cut() or (log is not None and log.pending) or follower.client.transport.unsent:
            continue
        if follower.client.connection.state is State.LIVE and desk.fanout.resting:
            break
    follower.take()
    for first, second in zip(follower.got, follower.got[1:], strict=False):
        assert first < second, "an id went backwards or came twice"
    missing = [each for each in wanted if each not in set(follower.got)]
    announced = follower.dropped
    assert len(missing) == sum(count for count, _, _ in announced)
    for one in missing:
        assert any(after < one < until for _, after, until in announced), f"{one} is missing and nobody said so"


class Follower:
    """A client that keeps its cursor the way `EventSource` does, and comes back with it."""

    def __init__(self, desk: Desk, topics: tuple[str, ...], last_event_id: str) -> None:
        self.desk, self.topics = desk, topics
        self.cursor = last_event_id
        self.got: list[int] = []
        self.dropped: list[tuple[int, int, int]] = []
        self._connect()

    def _connect(self) -> None:
        self.client = self.desk.connect(self.cursor, self.topics, capacity=0, high=16_384)

    def take(self, count: int | None = None) -> None:
        """Take the first *count* bytes received on this connection; later ones are as if they had never come."""
        for block in blocks(dechunk(bytes(self.client.transport.received[:count]))):
            if block.id:
                self.cursor = block.id
            if block.type == "message" and block.data is not None:
                self.got.append(offset(block.id))
            elif block.type == "hub.dropped":
                facts = json.loads(block.data or "")
                self.dropped.append((facts["dropped"], offset(facts["after"]), offset(facts["before"])))
            else:
                assert block.type != "hub.gap"

    def cut_after(self, count: int) -> None:
        """Lose the connection with only *count* bytes of it read."""
        self.take(count)
        self.client.transport.lose()
        self._connect()

    def come_back_if_cut(self) -> bool:
        if not self.client.transport.is_closing():
            return False
        self.take()
        self.client.transport.lose()
        self._connect()
        return True


@pytest.mark.parametrize("slow", [SlowPolicy.DROP_OLDEST, SlowPolicy.CONFLATE])
async def test_facts_add_up_under_a_slow_policy(slow: SlowPolicy):
    desk = Desk(slow=slow, buffer_bytes=4_000)
    client = desk.connect("e-0", capacity=100, high=100)
    for _ in range(100):
        desk.send(data="x" * 100)
        await quiet()
    while len(client.transport.unsent) or client.connection._queue:
        client.transport.read(500)
        await quiet()
    facts = client.connection.facts()
    assert facts.delivered == len(client.offsets) == desk.metrics.delivered
    assert facts.dropped == 100 - facts.delivered == desk.metrics.dropped > 0
    assert facts.buffered == 0
