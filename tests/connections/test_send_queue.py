from hypothesis import given
from hypothesis import strategies as st

from hub.connections.send_queue import _OVERHEAD, Dropped, SendQueue
from hub.notification import Draft, Notification, Position
from hub.settings import SlowPolicy


def n(offset: int, topic: str = "t", size: int = 10) -> Notification:
    return Notification.accept(Draft.of("x" * size, topic=topic), Position("e", offset), 0.0)


def fill(outbox: SendQueue, *notifications: Notification, room: int = 10**9) -> bool:
    kept = [outbox.offer(each, b"%d;" % each.position.offset, room) for each in notifications]
    return all(kept)


def room_for(frames: int) -> int:
    return frames * (_OVERHEAD + 2)


def test_disconnect_refuses_what_does_not_fit():
    outbox = SendQueue(SlowPolicy.DISCONNECT, after=0)
    assert fill(outbox, n(1), n(2), room=room_for(2))
    assert not fill(outbox, n(3), room=room_for(2))


def test_drop_oldest_says_in_place_what_it_dropped():
    outbox = SendQueue(SlowPolicy.DROP_OLDEST, after=7)
    assert fill(outbox, n(8), n(9), n(10), n(11), room=room_for(2) + 2)
    assert outbox.take(10**6) == [Dropped(2, after=7, before=10), b"10;", b"11;"]
    assert outbox.dropped == 2
    assert outbox.size == 0


def test_conflate_keeps_the_newest_of_each_set_of_topics_and_moves_it_to_the_end():
    outbox = SendQueue(SlowPolicy.CONFLATE, after=0)
    fill(outbox, n(1, "a"), n(2, "b"), n(3, "c"), n(4, "b"))
    assert outbox.take(10**6) == [b"1;", Dropped(1, after=1, before=3), b"3;", b"4;"]


def test_conflate_counts_all_that_went_at_one_place_together():
    outbox = SendQueue(SlowPolicy.CONFLATE, after=0)
    fill(outbox, *(n(offset, "a") for offset in range(1, 101)))
    assert outbox.take(10**6) == [Dropped(99, after=0, before=100), b"100;"]


def test_the_newest_stays_even_if_it_alone_is_too_large():
    for policy in (SlowPolicy.DROP_OLDEST, SlowPolicy.CONFLATE):
        outbox = SendQueue(policy, after=0)
        assert fill(outbox, n(1, "a"), n(2, "b"), room=1)
        assert outbox.take(10**6) == [Dropped(1, after=0, before=2), b"2;"]


def test_what_was_taken_is_never_dropped_afterwards():
    outbox = SendQueue(SlowPolicy.CONFLATE, after=0)
    fill(outbox, n(1, "a"), n(2, "b"))
    assert outbox.take(1) == [b"1;"]
    fill(outbox, n(3, "a"))
    assert outbox.take(10**6) == [b"2;", b"3;"]


def test_conflating_for_ever_costs_no_memory():
    outbox = SendQueue(SlowPolicy.CONFLATE, after=0)
    for offset in range(1, 10_000):
        fill(outbox, n(offset, "a" if offset % 2 else "b"))
    assert len(outbox) == 2
    assert len(outbox._waiting) < 100


@given(
    policy=st.sampled_from([SlowPolicy.DROP_OLDEST, SlowPolicy.CONFLATE]),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60),
    room=st.integers(1, 10),
)
def test_what_arrives_and_what_is_announced_as_dropped_is_everything_in_order(
    policy: SlowPolicy, steps: list[tuple[str, int]], room: int
):
    outbox = SendQueue(policy, after=0)
    seen: list[bytes | Dropped] = []
    for offset, (topic, takes) in enumerate(steps, 1):
        outbox.offer(n(offset, topic), b"%d;" % offset, room_for(room) + 4)
        assert len(outbox) <= room + 1
        if takes == 0:
            seen += outbox.take(1)
    seen += outbox.take(10**9)
    last = dropped = 0
    until: int | None = None
    for part in seen:
        if isinstance(part, Dropped):
            assert part.after == last
            assert part.before > part.after
            until = part.before
            dropped += part.count
        else:
            offset = int(part[:-1])
            assert offset > last
            assert until in {None, offset}, "the frame after a drop is the one it named"
            last, until = offset, None
    arrived = sum(isinstance(part, bytes) for part in seen)
    assert arrived + dropped == len(steps)
    assert dropped == outbox.dropped
    assert not steps or last == len(steps), "the newest is never dropped"
    assert not len(outbox)
    assert outbox.size == 0
