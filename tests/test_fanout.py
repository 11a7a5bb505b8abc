import asyncio
import json
import re
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.access.visibility import Visibility
from hub.encoding import SSE, Envelope
from hub.fanout import GATHER_BYTES, Audience, Batch, Fanout
from hub.metrics import Metrics
from hub.notification import Draft, Notification, Position
from tests.test_topics import reaches


class Reader:
    """A receiver that remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.aborted = False

    def on_next(self, batch: Batch) -> None:
        self.batches.append(batch)

    def abort(self) -> None:
        self.aborted = True

    @property
    def text(self) -> str:
        return b"".join(batch.payload for batch in self.batches).decode()

    @property
    def offsets(self) -> list[int]:
        return [each.position.offset for batch in self.batches for each in batch.notifications]


class Broken(Reader):
    """A receiver that raises."""

    def on_next(self, batch: Batch) -> None:
        raise RuntimeError("broken")


class Feed:
    """A fan-out, and the trunk's end of it. No time passes: it gathers by turns of the loop alone."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.fanout = Fanout(self.metrics, lambda: 0.0)
        self.fanout.begin(Position("e", 0))

    def send(self, *topics: str, data: object = "x", private: bool = False) -> int:
        offset = self.fanout.newest.offset + 1
        draft = Draft.of(data, topics=topics, private=private)
        self.fanout.on_next(Notification.accept(draft, Position("e", offset), 0.0))
        return offset

    def join(self, reader: Reader, *topics: str, envelope: bool = False) -> Audience:
        self.fanout.flush()
        return self.fanout.join(reader, topics, SSE(envelope=envelope))


async def rest(feed: Feed) -> None:
    """Return when what was gathered has been flushed and nothing is expected any more."""
    while not feed.fanout.resting:  # noqa: ASYNC110 - a turn of the loop is all it waits for
        await asyncio.sleep(0)


async def test_the_first_notification_is_flushed_before_the_publisher_goes_on():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    feed.send("a")
    assert reader.offsets == [1]


async def test_what_comes_right_after_a_flush_goes_out_together():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    for _ in range(50):
        feed.send("a")
    await rest(feed)
    assert [len(batch) for batch in reader.batches] == [1, 49]
    assert reader.batches[1].payload == b"".join(reader.batches[1].frames)


async def test_when_they_come_in_bursts_the_first_one_gathers_too():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    for _ in range(3):
        for _ in range(50):
            feed.send("a")
        await rest(feed)
    assert [len(batch) for batch in reader.batches] == [1, 49, 50, 50]


async def test_a_single_notification_ends_the_expectation_of_bursts():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    for size in (2, 1):
        for _ in range(size):
            feed.send("a")
        await rest(feed)
    feed.send("a")
    assert reader.offsets == [1, 2, 3, 4], "flushed before the publisher goes on"


async def test_gathering_is_bounded_in_bytes():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    for _ in range(100):
        feed.send("a", data="x" * 10_000)
    assert len(reader.offsets) >= 90
    assert all(len(batch.payload) <= GATHER_BYTES + 11_000 for batch in reader.batches)


async def test_gathering_ends_although_more_arrives_at_every_tick():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    sent = 0
    while len(reader.batches) < 3:
        feed.send("a")
        sent += 1
        await asyncio.sleep(0)
    assert reader.offsets == list(range(1, len(reader.offsets) + 1))
    assert len(reader.offsets) <= sent


async def test_receivers_with_the_same_subscription_share_one_batch():
    feed, one, two, other = Feed(), Reader(), Reader(), Reader()
    feed.join(one, "a", "b")
    feed.join(two, "b", "a")
    feed.join(other, "a")
    feed.send("a")
    assert one.batches[0] is two.batches[0]
    assert other.batches[0] is not one.batches[0]
    assert feed.metrics.delivered == 3


async def test_a_receiver_that_raises_is_aborted_and_nobody_else_feels_it():
    feed, first, broken, last = Feed(), Reader(), Broken(), Reader()
    for reader in (first, broken, last):
        feed.join(reader, "a")
    feed.send("a")
    assert broken.aborted
    assert first.offsets == last.offsets == [1]


async def test_a_receiver_may_leave_while_it_is_offered_something():
    feed = Feed()

    class Leaver(Reader):
        def on_next(self, batch: Batch) -> None:
            super().on_next(batch)
            feed.fanout.leave(self, audience)

    leaver, stayer = Leaver(), Reader()
    audience = feed.join(leaver, "a")
    feed.join(stayer, "a")
    feed.send("a")
    feed.send("a")
    await rest(feed)
    assert leaver.offsets == [1]
    assert stayer.offsets == [1, 2]


async def test_an_envelope_with_topics_names_all_through_which_the_receiver_sees_it():
    feed = Feed()
    readers = [Reader() for _ in range(3)]
    feed.fanout.join(readers[0], ["b", "c", "d"], SSE(Envelope.TOPICS))
    feed.fanout.join(readers[1], ["*", "b"], SSE(Envelope.TOPICS), Visibility(frozenset({"b"})))
    feed.fanout.join(readers[2], ["**"], SSE(Envelope.TOPICS), Visibility(frozenset({"**"})))
    feed.send("a", "b", "c", "user/1", private=True)
    feed.send("a", "b", "c", "user/1")
    feed.fanout.flush()
    assert [re.findall(r'"topics":(\[.*?\])', reader.text) for reader in readers] == [
        ['["b","c"]', '["b","c"]'],
        ['["b"]', '["a","b","c"]'],
        ['["a","b","c"]', '["a","b","c"]'],
    ]


async def test_an_envelope_names_the_first_topic_that_is_wanted():
    feed, reader = Feed(), Reader()
    feed.join(reader, "b", "c", envelope=True)
    feed.send("a", "c", "b", data={"n": 1})
    line = next(part for part in reader.batches[0].payload.split(b"\n") if part.startswith(b"data: "))
    assert json.loads(line[6:]) == {"topic": "c", "data": {"n": 1}}


async def test_whether_anybody_wants_a_topic():
    feed, reader = Feed(), Reader()
    audience = feed.join(reader, "news", "stock/*")
    assert feed.fanout.wants("news")
    assert feed.fanout.wants("stock/A")
    assert not feed.fanout.wants("stock")
    feed.fanout.leave(reader, audience)
    assert not feed.fanout.wants("news")
    assert feed.fanout.topics == 0


async def test_the_end_of_the_trunk_flushes_what_was_gathered():
    feed, reader = Feed(), Reader()
    feed.join(reader, "a")
    feed.send("a")
    feed.send("a")
    feed.fanout.on_completed()
    assert reader.offsets == [1, 2]


# ---- against a fan-out of ten lines ----


class Wish(NamedTuple):
    """What one reader of the reference asked for, and what it must have got."""

    topics: tuple[str, ...]
    expected: list[int]


topics = st.lists(st.sampled_from(["a", "b", "a/b", "a/c", "b/c", "user/b", "user"]), min_size=1, max_size=3)
wishes = st.lists(
    st.sampled_from(["a", "b", "a/b", "*", "a/*", "**", "**/b", "user/*", "user/**"]), min_size=1, max_size=3
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), wishes),
        st.tuples(st.just("send"), topics),
        st.tuples(st.just("leave"), st.integers(0, 20).map(str).map(lambda n: [n])),
        st.tuples(st.just("tick"), st.just(["1"])),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=steps)
def test_the_fast_way_delivers_what_the_plain_way_does(steps: list[tuple[str, list[str]]]):
    asyncio.run(compare(steps))


async def compare(steps: list[tuple[str, list[str]]]) -> None:
    feed = Feed()
    there: dict[Reader, tuple[Wish, Audience]] = {}
    gone: list[tuple[Reader, Wish]] = []
    for step, value in steps:
        if step == "join":
            reader, wish = Reader(), Wish(tuple(value), [])
            there[reader] = wish, feed.join(reader, *value)
        elif step == "send":
            offset = feed.send(*value)
            for wish, _ in there.values():
                if any(reaches(pattern, topic) for pattern in wish.topics for topic in value):
                    wish.expected.append(offset)
        elif step == "leave" and there:
            reader = list(there)[int(value[0]) % len(there)]
            wish, audience = there.pop(reader)
            feed.fanout.leave(reader, audience)
            gone.append((reader, wish))
        elif step == "tick":
            await asyncio.sleep(0)
    feed.fanout.flush()
    for reader, (wish, _) in there.items():
        assert reader.offsets == wish.expected
    for reader, wish in gone:
        assert reader.offsets == wish.expected[: len(reader.offsets)]


async def test_what_could_not_be_written_yet_is_not_counted_as_delivered():
    class Slow(Reader):
        def on_next(self, batch: Batch) -> None:
            audience.defer(batch)

    class Failing(Slow):
        def on_next(self, batch: Batch) -> None:
            super().on_next(batch)
            raise RuntimeError("broken")

    feed = Feed()
    for reader in (Reader(), Slow(), Failing()):
        audience = feed.join(reader, "a")
    counted = []
    for _ in range(3):
        feed.send("a")
        await rest(feed)
        counted.append(feed.metrics.delivered)
    assert counted == [1, 2, 3]


@pytest.mark.parametrize("granted", [None, frozenset[str](), frozenset({"a"})])
async def test_a_private_notification_is_offered_to_those_who_may_see_it(granted: frozenset[str] | None):
    feed, reader = Feed(), Reader()
    feed.fanout.join(reader, ["a", "b"], SSE(), Visibility(granted))
    for offset, topic in ((1, "a"), (2, "b")):
        draft = Draft.of("x", topic=topic, private=True)
        feed.fanout.on_next(Notification.accept(draft, Position("e", offset), 0.0))
    feed.send("a")
    await rest(feed)
    assert reader.offsets == {None: [1, 2, 3], frozenset(): [3], frozenset({"a"}): [1, 3]}[granted]
