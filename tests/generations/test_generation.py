"""One generation without a hub around it: what is appended is delivered once, in order, to whoever watches."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import GenerationEnded, TooLarge
from hub.eventstream import compact_json
from hub.generations.generation import (
    LATENESS,
    LOOK_AHEAD_CHARACTERS,
    PART_CHARACTERS,
    SHARED,
    Ending,
    Generation,
    Head,
    Phase,
)
from tests.chance import examples
from tests.web.client import until

HEAD = Head("session", None, None, 0.0)


class Keeper:
    """Keeps when the test says so."""

    def __init__(self) -> None:
        self.given: list[tuple[Generation, str | Ending]] = []

    def __call__(self, stream: Generation, what: str | Ending) -> None:
        self.given.append((stream, what))

    def confirm(self, count: int | None = None) -> None:
        """Say that the oldest *count* are kept; None: all."""
        count = len(self.given) if count is None else count
        confirmed, self.given = self.given[:count], self.given[count:]
        for stream, what in confirmed:
            stream.kept(what)


class Watcher:
    """A client: takes what there is when it hears of it, unless it is held up, and remembers its last id."""

    def __init__(self, stream: Generation, after: int = 0, text: str = "") -> None:
        self.stream, self.after, self.text = stream, after, text
        self.endings: list[Ending] = []
        self.held_up = False
        self.heard = 0
        stream.watch(self)
        self.news()

    def abort(self) -> None:
        raise AssertionError("nothing went wrong")

    def news(self) -> None:
        self.heard += 1
        if self.held_up or self.endings:
            return
        if self.after < self.stream.newest:
            self.text += self.stream.text(self.after)
            self.after = self.stream.newest
        if self.stream.ending is not None:
            self.endings.append(self.stream.ending)
            self.stream.leave(self)


def test_what_is_appended_is_delivered_in_order_and_numbered_from_one():
    stream = Generation(HEAD)
    watcher = Watcher(stream)
    for number, piece in enumerate(["One", ", ", "两"], 1):
        stream.append(piece)
        assert (stream.newest, watcher.after) == (number, number)
    assert (watcher.text, stream.text()) == ("One, 两", "One, 两")


def test_the_text_behind_a_part_is_what_follows_it():
    stream = Generation(HEAD)
    for piece in "abcd":
        stream.append(piece)
        assert stream.text() == "abcd"[: stream.newest]  # what was joined once is joined on
    assert [stream.text(after) for after in range(5)] == ["abcd", "bcd", "cd", "d", ""]


def test_an_empty_piece_is_no_part():
    stream = Generation(HEAD)
    stream.append("")
    assert stream.newest == 0


def test_nobody_sees_what_is_not_kept_yet():
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    watcher = Watcher(stream)
    stream.append("a")
    stream.append("b")
    stream.finish()
    assert (watcher.text, stream.newest, stream.text(), stream.phase) == ("", 0, "", Phase.STREAMING)
    keeper.confirm(1)
    assert (watcher.text, watcher.endings) == ("a", [])
    keeper.confirm()
    assert (watcher.text, [ending.phase for ending in watcher.endings]) == ("ab", [Phase.DONE])


async def test_what_comes_within_the_window_is_one_part():
    keeper = Keeper()
    stream = Generation(HEAD, keeper, window=0.001)
    watcher = Watcher(stream)
    for piece in "abc":
        stream.append(piece)
    assert keeper.given == []
    await until(lambda: keeper.given)
    keeper.confirm()
    assert (watcher.text, watcher.after) == ("abc", 1)


async def test_an_ending_does_not_wait_for_the_window():
    stream = Generation(HEAD, window=3600)
    watcher = Watcher(stream)
    stream.append("a")
    stream.append("b")
    stream.finish("length", {"total_tokens": 2})
    assert (watcher.text, watcher.after) == ("ab", 1)
    assert watcher.endings == [Ending(Phase.DONE, {"finishReason": "length", "usage": {"total_tokens": 2}})]


@pytest.mark.parametrize("confirmed", ["at once", "later"])
@pytest.mark.parametrize("first", [Phase.DONE, Phase.FAILED, Phase.CANCELLED])
def test_it_ends_once_whatever_is_tried_later(first: Phase, confirmed: str):
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    ends, stops = [], []
    stream.on_end(lambda stream: ends.append(stream.phase))
    stream.stop_producer = lambda: stops.append(1)
    watcher = Watcher(stream)
    calls = {
        Phase.DONE: stream.finish,
        Phase.FAILED: lambda: stream.fail("reason", "message"),
        Phase.CANCELLED: stream.cancel,
    }
    for phase in [first, *calls]:
        calls[phase]()
        if confirmed == "at once":
            keeper.confirm()
    keeper.confirm()
    stream.lose("late", "too late")
    assert (stream.phase, ends, [ending.phase for ending in watcher.endings]) == (first, [first], [first])
    assert len(stops) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_is_added_to_what_has_ended(kept: bool):
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    stream.cancel()
    if kept:
        keeper.confirm()
    with pytest.raises(GenerationEnded):
        stream.append("more")
    keeper.confirm()
    assert stream.text() == ""


def test_an_answer_that_exceeds_its_bound_takes_nothing_of_what_exceeds_it():
    stream = Generation(HEAD, most=7)
    stream.append("两三")  # three bytes each
    with pytest.raises(TooLarge):
        stream.append("ab")
    stream.append("a")
    assert stream.text() == "两三a"


async def test_a_producer_waits_while_much_is_not_kept():
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    stream.append("x" * LOOK_AHEAD_CHARACTERS)
    await stream.room()
    stream.append("y")
    waiting = asyncio.create_task(stream.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    keeper.confirm(1)
    await waiting


@pytest.mark.parametrize("how", ["ended", "lost"])
async def test_who_waits_for_room_does_not_outlive_the_end(how: str):
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    stream.append("x" * (LOOK_AHEAD_CHARACTERS + 1))
    waiting = asyncio.create_task(stream.room())
    await asyncio.sleep(0)
    if how == "lost":
        stream.lose("unavailable", "gone")
    else:
        stream.cancel()
        keeper.confirm()
    await waiting


async def test_who_waits_for_the_end_is_told_when_it_is_kept():
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    waiting = asyncio.create_task(stream.ended())
    await asyncio.sleep(0)
    stream.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    keeper.confirm()
    await waiting
    await stream.ended()


def test_viewers_that_ask_the_same_share_the_bytes_until_there_is_news():
    stream = Generation(HEAD)
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return stream.text().encode()

    stream.append("a")
    first, second = stream.shared("key", make), stream.shared("key", make)
    assert first is second
    stream.shared("another", make)
    stream.append("b")
    assert stream.shared("key", make) == b"ab"
    assert len(made) == 3


def test_who_leaves_because_of_what_another_hears_hears_nothing_more():
    stream = Generation(HEAD)
    late = Watcher(stream)
    stream.leave(late)

    class Leaver(Watcher):
        def news(self) -> None:
            super().news()
            self.stream.leave(late)

    Leaver(stream)
    stream.watch(late)
    heard = late.heard
    stream.append("a")
    assert (late.heard, late.text) == (heard, "")


def test_what_can_not_be_kept_ends_it_and_says_so():
    keeper = Keeper()
    stream = Generation(HEAD, keeper)
    watcher = Watcher(stream)
    stream.append("a")
    keeper.confirm()
    stream.append("b")
    stream.lose("unavailable", "gone")
    keeper.confirm()  # what the log says later changes nothing
    assert (watcher.text, watcher.endings) == (
        "a",
        [Ending(Phase.FAILED, {"reason": "unavailable", "message": "gone"})],
    )
    with pytest.raises(GenerationEnded):
        stream.append("c")


async def test_an_ending_is_not_kept_behind_a_part_that_was_lost():
    given: list[str | Ending] = []

    def keep(stream: Generation, what: str | Ending) -> None:
        given.append(what)
        if isinstance(what, str):
            stream.lose("unavailable", "gone")

    stream = Generation(HEAD, keep, window=3600)
    stream.append("a")
    stream.finish()
    assert (given, stream.phase) == (["a"], Phase.FAILED)


@pytest.mark.parametrize("window", [0, 3600])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d", "\ude00两"], "a\N{GRINNING FACE}两"),
        (["\ud83d", "", "\ude00"], "\N{GRINNING FACE}"),
        (["\ud83d", "a"], "\ufffda"),
        (["b\ude00", "a"], "b\ufffda"),
        (["a\ud83d"], "a\ufffd"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd\N{GRINNING FACE}"),
    ],
)
async def test_a_character_that_comes_in_halves_is_whole_again(window: float, pieces: list[str], text: str):
    stream = Generation(HEAD, window=window)
    for piece in pieces:
        stream.append(piece)
    stream.finish()
    assert stream.text() == text


def test_any_text_can_be_cut_by_utf_16_units():
    whole = "a两\N{GRINNING FACE}\N{PILE OF POO}b"
    units = whole.encode("utf-16-le")
    stream = Generation(HEAD)
    for place in range(0, len(units), 2):
        stream.append(units[place : place + 2].decode("utf-16-le", "surrogatepass"))
    stream.finish()
    assert stream.text() == whole


# ---- whatever happens, in whatever order ----

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.text(max_size=5)),
        st.tuples(st.just("confirm"), st.integers(1, 3)),
        st.tuples(st.just("join"), st.booleans()),
        *(st.tuples(st.just(step), st.integers(0, 9)) for step in ("hold up", "go on", "cut", "come back")),
    ),
    max_size=40,
)


@settings(max_examples=examples(100, 3_000), deadline=None)
@given(steps=STEPS, end=st.sampled_from(["finish", "cancel", "fail"]), end_at=st.integers(0, 40), at_once=st.booleans())
def test_who_reaches_the_end_has_exactly_the_text_once(
    steps: list[tuple[str, object]], end: str, end_at: int, at_once: bool
) -> None:
    keeper = Keeper()
    stream = Generation(HEAD) if at_once else Generation(HEAD, keeper)
    watchers: list[Watcher] = []
    cut: list[Watcher] = []
    said = ""

    def finish() -> None:
        if end == "fail":
            stream.fail("reason", "message")
        elif end == "finish":
            stream.finish()
        else:
            stream.cancel()

    def pick(number: object) -> Watcher | None:
        assert isinstance(number, int)
        return watchers[number % len(watchers)] if watchers else None

    for number, (step, what) in enumerate(steps):
        if number == end_at:
            finish()
        watcher = pick(what) if isinstance(what, int) else None
        match step:
            case "append" if number < end_at:
                stream.append(str(what))
                said += str(what)
            case "confirm":
                keeper.confirm(int(str(what)))
            case "join":
                watchers.append(Watcher(stream))
            case "hold up" if watcher:
                watcher.held_up = True
            case "go on" if watcher:
                watcher.held_up = False
                watcher.news()
            case "cut" if watcher:
                stream.leave(watcher)
                watchers.remove(watcher)
                cut.append(watcher)
            case "come back" if cut:
                gone = cut.pop()
                if not gone.endings:
                    watchers.append(Watcher(stream, gone.after, gone.text))
        assert all(said.startswith(each.text) for each in watchers)
    finish()
    keeper.confirm()
    watchers += [Watcher(stream, gone.after, gone.text) for gone in cut if not gone.endings]
    for watcher in watchers:
        watcher.held_up = False
        watcher.news()
    for watcher in [*watchers, Watcher(stream)]:
        assert watcher.text == said
        assert len(watcher.endings) == 1
    assert stream.viewers == 0


def test_what_is_too_large_does_not_touch_the_half_character_before_it():
    stream = Generation(HEAD, most=8)
    stream.append("\ud83d")
    with pytest.raises(TooLarge):
        stream.append("\ude00" + "x" * 8)
    stream.append("\ude00")
    stream.finish()
    assert stream.text() == "\U0001f600"


async def test_who_fails_to_hear_of_the_end_keeps_nobody_else_from_it(caplog: pytest.LogCaptureFixture):
    stream = Generation(HEAD)
    heard: list[str] = []

    def fail(stream: Generation) -> None:
        raise RuntimeError("mine")

    stream.on_end(fail)
    stream.on_end(lambda stream: heard.append(stream.id))
    stream.finish()
    await stream.ended()
    assert heard == [stream.id]
    assert "failed to hear" in caplog.text


async def test_a_part_gathers_for_longer_while_the_loop_has_more_to_do_than_it_can():
    stream = Generation(HEAD, window=0.01)

    async def part_takes() -> float:
        began, newest = time.monotonic(), stream.newest
        stream.append("a")
        await until(lambda: stream.newest > newest)
        return time.monotonic() - began

    for late in (1, 2):
        stream.append("a")
        time.sleep(0.06)  # noqa: ASYNC251 - the loop does something else
        await until(lambda late=late: stream.newest == late)  # type: ignore[misc]
    assert await part_takes() >= 0.01 + LATENESS * 0.05
    while await part_takes() >= 0.1:  # until it has less to do again
        pass


@pytest.mark.parametrize("unsayable", [float("nan"), object(), "\ud800", {"cost": object()}])
async def test_an_end_that_nobody_can_be_told_is_told_without_that(unsayable: Any):
    done, failed = Generation(HEAD), Generation(HEAD)
    done.finish(unsayable, {"cost": unsayable})
    failed.fail(unsayable, unsayable)
    for stream in (done, failed):
        await stream.ended()
        assert stream.ending is not None
        compact_json(stream.ending.facts).encode()
    assert done.ending == Ending(Phase.DONE, {"finishReason": "stop", "usage": None})
    assert failed.ending == Ending(Phase.FAILED, {"reason": "failed", "message": "the answer failed"})


async def test_an_end_has_plain_values_whatever_a_provider_counts_with():
    stream = Generation(HEAD)
    stream.finish("stop", {"cost": Decimal("0.10"), "tokens": (1, 2)})
    await stream.ended()
    assert stream.ending == Ending(Phase.DONE, {"finishReason": "stop", "usage": {"cost": "0.10", "tokens": [1, 2]}})


async def test_a_viewer_that_fails_is_cut_and_nobody_else_feels_it(caplog: pytest.LogCaptureFixture):
    class Broken:
        cut = False

        def news(self) -> None:
            raise RuntimeError("mine")

        def abort(self) -> None:
            self.cut = True

    stream, broken = Generation(HEAD), Broken()
    stream.watch(broken)
    watcher = Watcher(stream)
    stream.append("a")
    stream.finish()
    await stream.ended()
    assert (broken.cut, watcher.text, len(watcher.endings), stream.viewers) == (True, "a", 1, 0)
    assert caplog.text.count("a viewer of generation") == 1


def test_what_is_shared_is_bounded_and_of_what_is_over_one():
    stream = Generation(HEAD)
    for letter in "abc":
        stream.append(letter)
    for key in range(1_000):
        assert stream.shared(key, lambda key=key: b"%d" % key) == b"%d" % key  # type: ignore[misc]
    assert len(stream._shared) <= SHARED
    stream.finish()
    for key in range(1_000):
        stream.shared(key, lambda: b"x")
    assert len(stream._shared) == 1


def test_a_large_piece_becomes_several_parts():
    stream = Generation(HEAD)
    text = "\n" * (2 * PART_CHARACTERS + 1)
    stream.append(text)
    stream.finish()
    assert (stream.newest, stream.text()) == (3, text)
    assert stream.text(2) == "\n"


def test_the_parts_of_what_is_over_are_found_as_before():
    stream = Generation(HEAD)
    parts = ["a", "两两", "b\n", "\U0001f600"]
    for part in parts:
        stream.append(part)
    stream.finish()
    kept = Generation.over(HEAD, parts, Ending(Phase.DONE, {}), 7.0)
    for each in (stream, kept):
        assert each.newest == 4
        assert [each.text(after) for after in range(5)] == ["".join(parts[after:]) for after in range(5)]
    assert (kept.size, kept.ended_at, kept.phase) == (stream.size, 7.0, Phase.DONE)
    with pytest.raises(GenerationEnded):
        kept.append("c")
