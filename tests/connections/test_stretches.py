"""Stretches of the history: topics that count from different positions on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.seam import State
from hub.connections.stretches import OPEN, Covered, Stretch, Stretches, with_added
from hub.log.memory import MemoryLog
from hub.notification import Draft, Notification, Position
from tests.connections.test_changes import Changing
from tests.connections.test_connection import Client, Desk, quiet

A, AB = frozenset("a"), frozenset("ab")


def walk(stretches: Stretches) -> list[Stretch]:
    """Return the stretches in the order in which they are read."""
    read = [stretches.present]
    while not stretches.is_last:
        stretches.reach(stretches.present.until)
        read.append(stretches.present)
    return read


def test_a_subscription_is_one_stretch():
    assert walk(Stretches.begin(5, "ab")) == [Stretch(5, OPEN, AB)]


def changed(stretches: Stretches, added: str, after: int, topics: str, **change: Any) -> list[Stretch]:
    had = Covered.of("a", 0)
    options = {"had": had, "written": stretches.cursor, **change}
    stretches.change(frozenset(topics), EVERYTHING, added=frozenset(added), after=after, **options)
    return walk(stretches)


def test_an_added_topic_is_read_up_to_where_the_stream_is_then_all():
    read = changed(Stretches(9, [Stretch(9, OPEN, A)]), "b", 4, "ab", written=6)
    had = Covered.of("a", 0)
    assert read == [
        Stretch(4, 6, frozenset("b"), but=had),
        Stretch(6, 9, frozenset("b"), but=had),
        Stretch(9, OPEN, AB),
    ]


def test_ids_are_left_out_up_to_the_greatest_that_was_written():
    stretches = Stretches(9, [Stretch(9, OPEN, A)])
    stretches.change(AB, EVERYTHING, added=frozenset("b"), after=4, had=Covered.of("a", 0), written=6)
    assert not stretches.with_ids
    stretches.reach(6)
    assert stretches.with_ids


def test_a_topic_that_is_added_further_on_begins_there():
    read = changed(Stretches(3, [Stretch(3, OPEN, A)]), "b", 8, "ab")
    assert read == [Stretch(3, 8, A), Stretch(8, OPEN, AB)]


def test_a_second_change_goes_back_and_takes_the_first_along():
    stretches = Stretches(9, [Stretch(9, OPEN, A)])
    stretches.change(AB, EVERYTHING, added=frozenset("b"), after=4, had=Covered.of("a", 0), written=9)
    stretches.reach(6)
    had = Covered.of("ab", {"a": 0, "b": 4})
    stretches.change(frozenset("abc"), EVERYTHING, added=frozenset("c"), after=2, had=had, written=6)
    assert [(each.after, each.until, "".join(sorted(each.topics))) for each in walk(stretches)] == [
        (2, 6, "c"),
        (6, 9, "bc"),
        (9, OPEN, "abc"),
    ]


def test_what_is_removed_is_gone_from_all_of_the_way():
    stretches = Stretches(0, [Stretch(0, 5, A), Stretch(5, OPEN, AB)])
    assert changed(stretches, "", 9, "b") == [Stretch(5, OPEN, frozenset("b"))]


def test_a_stream_without_topics_still_has_a_way():
    stretches = Stretches(3, [Stretch(3, 9, A), Stretch(9, OPEN, A)])
    assert changed(stretches, "", 9, "") == [Stretch(9, OPEN, frozenset())]


@pytest.mark.parametrize(
    ("offset", "topics", "private", "covered"),
    [
        (3, ("a",), False, False),  # before it counted
        (4, ("a",), False, True),
        (4, ("b",), False, False),
        (8, ("b",), False, True),
        (8, ("b",), True, False),  # not through a topic that is granted
        (8, ("a", "b"), True, True),
        (8, ("c",), False, False),
    ],
)
def test_what_was_given_is_judged_by_topic_position_and_right(
    offset: int, topics: tuple[str, ...], private: bool, covered: bool
):
    given = Covered.of("ab", {"a": 3, "b": 7}, Visibility(A))
    draft = Draft.of("x", topics=topics, private=private)
    assert given.judge()(Notification.accept(draft, Position("e", offset), 0.0)) is covered


def test_what_is_below_a_floor_was_not_given():
    floors = frozenset({("a", ("e", 5))})
    given = Covered.of("ab", 0, Visibility(None, floors)).judge()
    private = Covered.of("ab", 0, Visibility(A, floors)).judge()
    for offset, topics, is_private, covered in (
        (5, ["a"], False, False),
        (5, ["a", "b"], False, True),
        (5, ["a", "b"], True, False),
        (6, ["a"], True, True),
    ):
        draft = Draft.of("x", topics=topics, private=is_private)
        seen = Notification.accept(draft, Position("e", offset), 0.0)
        assert (private if is_private else given)(seen) is covered


def test_what_is_added_counts_from_there_and_the_rest_stays():
    assert with_added(5, "a", "b", 9) == {"a": 5, "b": 9}
    assert with_added({"a": 5, "b": 9}, "a", "c", 7) == {"a": 5, "c": 7}
    assert with_added({"a": 5, "b": 9}, "", "cd", 7) == 7


# ---- a stream with topics that count later ----


def floors(since: dict[str, int]) -> Visibility:
    return Visibility(None, frozenset((topic, ("e", offset)) for topic, offset in since.items()))


def connect(desk: Desk, last_event_id: str | None, since: dict[str, int], **transport: Any) -> Client:
    return desk.connect(last_event_id, ("a", "b/*", "c"), visibility=floors(since), **transport)


OFFSETS = st.integers(0, 30)


@given(
    sent=st.lists(st.lists(st.sampled_from(["a", "b/1", "b/2", "c", "d"]), min_size=1, max_size=2, unique=True)),
    since=st.dictionaries(st.sampled_from(["a", "b/1", "c"]), OFFSETS),
    after=OFFSETS | st.sampled_from(["earliest", "latest"]),
    later=st.integers(0, 5),
)
async def test_each_topic_counts_after_the_position_of_the_client_and_its_own(
    sent: list[list[str]], since: dict[str, int], after: int | str, later: int
):
    desk = Desk()
    newest = len(sent)
    since = {topic: min(offset, newest) for topic, offset in since.items()}
    after = min(after, newest) if isinstance(after, int) else after
    for topics in sent:
        desk.send(*topics)
    client = connect(desk, f"e-{after}" if isinstance(after, int) else after, since)
    for _ in range(later):
        desk.send("b/1", "c")
    while client.connection.state is not State.LIVE:
        await quiet()
    await quiet()
    begin = after if isinstance(after, int) else 0
    sent += [["b/1", "c"]] * later

    def counts(offset: int, topic: str) -> bool:
        return topic != "d" and offset > max(begin, since.get(topic, 0))

    expected = [place for place, topics in enumerate(sent, 1) if any(counts(place, each) for each in topics)]
    if after == "latest":
        newest_of: dict[str, int] = {}
        for place in (each for each in expected if each <= newest):
            newest_of |= {topic: place for topic in sent[place - 1] if counts(place, topic)}
        expected = [each for each in expected if each > newest or each in newest_of.values()]
    assert client.offsets == expected
    if isinstance(after, int):
        assert client.facts["hub.open"]["recovered"] is True


async def test_what_was_trimmed_before_a_topic_counted_is_no_gap():
    desk = Desk(MemoryLog(epoch="e", topics={"a": 1, "c": 1}))
    for _ in range(5):
        desk.send("a")
    for after, since, told in (("e-0", 4, True), ("e-0", 3, False), ("e-4", 0, True), ("e-3", 0, False)):
        client = connect(desk, after, {"a": since})
        await quiet()  # a page takes a turn of the loop
        assert client.facts["hub.open"]["recovered"] is told
        assert ("hub.gap" in client.facts) is not told


async def test_what_a_floor_hid_follows_through_a_topic_that_is_added():
    desk = Changing()
    for topics in (("a", "d"), ("d",), ("a", "d"), ("a",)):
        desk.send(*topics)
    client = connect(desk, "e-0", {"a": 2})
    await quiet()
    assert client.offsets == [3, 4]

    async def readable(*_: Any) -> Any:
        return lambda topics: floors({"a": 2})

    desk.changes.readable = readable
    await desk.change(client, add=["d"], after="e-0")
    assert [each.data for each in client.blocks if each.type == "message"] == ["x"] * 4
    assert client.connection._since == {"a": 0, "b/*": 0, "c": 0, "d": 0}
