"""All generations of a hub: their bounds, their producers, their end, and what of them survives a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hub.errors import (
    GenerationExpired,
    HubError,
    KeyReused,
    LogUnavailable,
    ShuttingDown,
    TooManyGenerations,
    UnknownGeneration,
)
from hub.generation import LOOK_AHEAD_CHARACTERS, Phase, TokenStream
from hub.generations import Generations, Limits
from hub.log import MemoryLog, Receipt, make_log
from hub.log.log import Announce, Log
from hub.notification import Draft
from hub.providers import Delta, ProviderError
from tests.web.client import until


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A provider's answer that comes as the test says.

    Attributes:
        begun: how often it was asked for.
        closed: how often it has come to an end, its cleanup awaited.
    """

    def __init__(self, *script: Delta | str | Exception | None) -> None:
        self.more: asyncio.Queue[Delta | str | Exception | None] = asyncio.Queue()
        self.begun = self.closed = 0
        for each in script:
            self.say(each)

    def __call__(self) -> AsyncGenerator[Delta, None]:
        self.begun += 1
        return self._stream()

    def say(self, what: Delta | str | Exception | None) -> None:
        """Say *what* next; None: end."""
        self.more.put_nowait(what)

    async def _stream(self) -> AsyncGenerator[Delta, None]:
        try:
            while (what := await self.more.get()) is not None:
                if isinstance(what, Exception):
                    raise what
                yield Delta(what) if isinstance(what, str) else what
        finally:
            await asyncio.sleep(0)  # as it takes to close a connection
            self.closed += 1


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    made: list[Generations] = []

    async def make(
        *, log: Log | None = None, on_end: Callable[[TokenStream], None] = lambda stream: None, **limits: Any
    ) -> Generations:
        generations = Generations(Limits(**{"window": 0.0, **limits}), log=log, on_end=on_end, clock=clock)
        await generations.open()
        made.append(generations)
        return generations

    yield make
    for each in made:
        await each.aclose()


Make = Callable[..., Any]


async def over(stream: TokenStream) -> dict[str, Any]:
    """Return the facts of the end of *stream* as soon as it has come."""
    async with asyncio.timeout(10):
        await stream.ended()
    assert stream.ending is not None
    return {"phase": stream.phase, **stream.ending.facts}


# ---- an answer ----


async def test_an_answer_is_read_to_its_end_and_its_source_closed(make: Make):
    source = Source("Hel", "lo", Delta("!", "length"), Delta(usage={"total_tokens": 3}))
    stream, new = await (await make()).start(source, model="m")
    source.say(None)
    assert new
    assert await over(stream) == {"phase": "done", "finishReason": "length", "usage": {"total_tokens": 3}}
    assert (stream.text(), stream.head.model) == ("Hello!", "m")
    await until(lambda: source.closed == 1)


async def test_an_iterator_of_text_is_an_answer_too(make: Make):
    class Words:
        closed = False

        def __init__(self) -> None:
            self.words = ["a", "b"]

        def __aiter__(self) -> AsyncIterator[str]:
            return self

        async def __anext__(self) -> str:
            if not self.words:
                raise StopAsyncIteration
            return self.words.pop(0)

        async def aclose(self) -> None:
            self.closed = True

    words = Words()
    stream = await (await make()).stream_from(words, owner="ann")
    assert (await over(stream))["phase"] == "done"
    assert (stream.text(), stream.head.owner) == ("ab", "ann")
    assert words.closed


async def test_a_source_that_is_stopped_before_its_first_step_is_closed_all_the_same(make: Make):
    generations = await make()
    closed = asyncio.Event()

    class Never:
        def __aiter__(self) -> AsyncIterator[str]:
            return self

        async def __anext__(self) -> str:
            await asyncio.Event().wait()
            raise AssertionError

        async def aclose(self) -> None:
            closed.set()

    (await generations.stream_from(Never())).cancel()
    await asyncio.wait_for(closed.wait(), 10)


async def test_on_end_hears_of_each_end_once(make: Make):
    ended: list[tuple[Phase, str]] = []
    generations = await make(on_end=lambda stream: ended.append((stream.phase, stream.text())))
    stream, _ = await generations.start(Source("a"))
    await until(stream.text)
    stream.cancel()
    stream.cancel()
    assert ended == [(Phase.CANCELLED, "a")]
    assert generations.streaming == 0


# ---- bounds ----


async def test_there_is_a_bound_for_each_owner_and_one_for_all(make: Make):
    generations = await make(owned=2, total=3)
    first, _ = await generations.start(Source(), owner="ann")
    await generations.start(Source(), owner="ann")
    with pytest.raises(TooManyGenerations, match="of one owner") as refused:
        await generations.start(Source(), owner="ann")
    assert refused.value.status == 429
    await generations.start(Source(), owner="bob")
    source = Source()
    with pytest.raises(TooManyGenerations, match="altogether"):
        await generations.start(source)
    assert source.begun == 0
    first.cancel()
    await generations.start(source, owner="ann")
    assert generations.streaming == 3


async def test_an_answer_that_grows_too_large_fails_with_what_there_is(make: Make):
    source = Source("abc", "def")
    stream, _ = await (await make(size=5)).start(source)
    facts = await over(stream)
    assert (facts["phase"], facts["reason"], stream.text()) == ("failed", "too_large", "abc")
    await until(lambda: source.closed)


async def test_an_iterator_that_can_not_be_closed_is_read_to_its_end(make: Make):
    class Plain:
        def __init__(self) -> None:
            self.left = ["a", "b"]

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    stream = await (await make()).stream_from(Plain())
    assert (await over(stream))["phase"] == "done"
    assert stream.text() == "ab"


async def test_who_has_said_it_all_and_never_ends_is_done(make: Make):
    source = Source("a", Delta("", "length", {"total_tokens": 1}))
    stream, _ = await (await make(gap=0.02)).start(source)
    assert await over(stream) == {"phase": "done", "finishReason": "length", "usage": {"total_tokens": 1}}
    await until(lambda: source.closed)


async def test_viewers_hear_of_the_end_before_the_provider_has_cleaned_up(make: Make):
    class Slow(Source):
        async def _stream(self) -> AsyncGenerator[Delta, None]:
            try:
                yield Delta("a")
                await asyncio.Event().wait()
            finally:
                await until(lambda: self.closed)

    for limits in ({"gap": 0.02}, {"whole": 0.02}):
        source = Slow()
        stream, _ = await (await make(**limits)).start(source)
        assert (await over(stream))["reason"] == "timeout"
        source.closed = 1


async def test_shutdown_leaves_a_provider_behind_that_never_cleans_up(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Stuck(Source):
        async def _stream(self) -> AsyncGenerator[Delta, None]:
            try:
                yield Delta("a")
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()

    monkeypatch.setattr("hub.generations.CLEANUP_SECONDS", 0.05)
    generations = await make()
    stream, _ = await generations.start(Stuck())
    await until(stream.text)
    await generations.aclose()
    assert "1 providers did not clean up" in caplog.text


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_provider_that_fails_to_clean_up_spoils_nothing(
    make: Make, caplog: pytest.LogCaptureFixture, cancelled: bool
):
    class Spoiled:
        def __init__(self) -> None:
            self.source = Source("a", *([] if cancelled else [None]))()

        def __aiter__(self) -> Spoiled:
            return self

        async def __anext__(self) -> Delta:
            return await anext(self.source)

        async def aclose(self) -> None:
            raise RuntimeError("mine")

    stream = await (await make()).stream_from(Spoiled())
    await until(stream.text)
    if cancelled:
        stream.cancel()
    assert (await over(stream))["phase"] == ("cancelled" if cancelled else "done")
    assert stream.text() == "a"
    await until(lambda: "a provider failed to clean up" in caplog.text)


async def test_a_producer_that_never_waits_leaves_everybody_else_their_turn(make: Make):
    async def flood() -> AsyncGenerator[str, None]:
        while True:
            yield ""

    stream = await (await make()).stream_from(flood())
    for _ in range(10):
        await asyncio.sleep(0)
    stream.cancel()
    assert (await over(stream))["phase"] == "cancelled"


# ---- idempotency ----


async def test_a_key_leads_to_the_generation_that_began_with_it(make: Make):
    generations = await make()
    source = Source("a", None)
    stream, new = await generations.start(source, key="k")
    assert new
    assert await generations.start(source, key="k") == (stream, False)
    await over(stream)
    assert await generations.start(source, key="k") == (stream, False)
    assert source.begun == 1


async def test_a_key_is_its_owners(make: Make):
    generations = await make()
    streams = {(await generations.start(Source(), owner=owner, key="k"))[0].id for owner in (None, "ann", "bob")}
    assert len(streams) == 3


async def test_a_key_of_what_is_forgotten_begins_anew(make: Make, clock: Clock):
    generations = await make(keep=10)
    source = Source()
    stream, _ = await generations.start(source, key="k")
    stream.cancel()
    clock.now += 10
    generations.sweep()
    again, new = await generations.start(source, key="k")
    assert new
    assert again is not stream


async def test_a_key_stands_for_one_question(make: Make):
    generations = await make()
    source = Source()
    stream, _ = await generations.start(source, key="k", asked="one")
    with pytest.raises(KeyReused, match="Idempotency-Key: was used with another question"):
        await generations.start(source, key="k", asked="two")
    assert await generations.start(source, key="k", asked="one") == (stream, False)
    assert source.begun == 1


async def test_a_key_leads_to_its_generation_after_a_restart_too(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=file(tmp_path, clock))
    source = Source("a", None)
    stream, _ = await before.start(source, owner="ann", key="k", asked="one")
    await over(stream)
    await before.aclose()
    after = await make(log=file(tmp_path, clock), keep=300)
    answers = await asyncio.gather(*(after.start(source, owner="ann", key="k", asked="one") for _ in range(3)))
    assert {(again.id, again.text(), new) for again, new in answers} == {(stream.id, "a", False)}
    with pytest.raises(KeyReused):
        await after.start(source, owner="ann", key="k", asked="two")
    assert source.begun == 1
    for owner in ("bob", None):
        assert (await after.start(source, owner=owner, key="k", asked="one"))[1]
    clock.now += 300
    after.sweep()
    assert (await after.start(source, owner="ann", key="k", asked="two"))[1]


async def test_two_at_once_with_one_key_are_one_generation_while_the_log_is_being_opened(make: Make, tmp_path: Path):
    generations = await make(log=file(tmp_path))
    source = Source()
    answers = await asyncio.gather(*(generations.start(source, key="k") for _ in range(5)))
    assert source.begun == 1
    assert len({stream.id for stream, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1


# ---- time ----


@pytest.mark.parametrize(
    ("limits", "said", "message"),
    [
        ({"first": 0.01}, [], "the provider said nothing for 0.01 s"),
        ({"first": 0.01}, [""], "the provider said nothing for 0.01 s"),
        ({"gap": 0.01}, ["a"], "the provider said nothing more for 0.01 s"),
        ({"whole": 0.01}, ["a"], "the answer was not complete after 0.01 s"),
    ],
)
async def test_a_provider_that_takes_too_long_is_given_up(
    make: Make, limits: dict[str, float], said: list[str], message: str
):
    source = Source(*said)
    stream, _ = await (await make(**limits)).start(source)
    assert await over(stream) == {"phase": "failed", "reason": "timeout", "message": message}
    assert stream.text() == "".join(said)
    await until(lambda: source.closed == 1)


async def test_a_generation_that_nobody_appends_to_has_lost_its_producer(make: Make):
    generations = await make(lease=60)
    stream = await generations.begin()
    stream.append("a")
    generations.sweep()
    assert stream.phase is Phase.STREAMING
    stream.touched -= 60
    generations.sweep()
    assert (await over(stream))["reason"] == "producer_lost"
    assert stream.text() == "a"


async def test_only_what_the_caller_appends_to_has_a_lease(make: Make):
    generations = await make(lease=0)
    stream, _ = await generations.start(Source())
    generations.sweep()
    assert stream.phase is Phase.STREAMING


async def test_what_ended_first_goes_when_all_together_are_too_large(make: Make, clock: Clock):
    generations = await make(kept_size=9)
    streams = []
    for _ in range(3):
        stream = await generations.begin()
        stream.append("12345")
        streams.append(stream)
    for stream in (streams[1], streams[0]):
        clock.now += 1
        stream.finish()
    generations.sweep()
    with pytest.raises(GenerationExpired):
        await generations.find(streams[1].id)
    assert [await generations.find(streams[place].id) for place in (0, 2)] == [streams[0], streams[2]]
    streams[2].append("1234567")
    clock.now += 1
    streams[2].finish()
    for _ in range(2):
        generations.sweep()
        with pytest.raises(GenerationExpired):
            await generations.find(streams[0].id)
        assert await generations.find(streams[2].id) is streams[2]  # the newest stays, however large


async def test_a_log_that_takes_long_is_no_silence_of_the_provider(make: Make):
    log = HeldLog()
    generations = await make(log=log, first=0.05, gap=0.05)
    source = Source("x" * (LOOK_AHEAD_CHARACTERS + 1))
    stream, _ = await generations.start(source)
    await until(lambda: log.waiting)
    await asyncio.sleep(0.2)
    assert stream.phase is Phase.STREAMING
    log.confirm()
    source.say(None)
    await until(lambda: log.waiting)
    log.confirm()
    assert (await over(stream))["phase"] == "done"


async def test_what_nobody_watches_is_stopped_if_that_is_wanted(make: Make):
    class Somebody:
        def news(self) -> None: ...

        def abort(self) -> None: ...

    generations = await make(unwatched=0.0)
    source, somebody = Source(), Somebody()
    stream, _ = await generations.start(source)
    stream.watch(somebody)
    generations.sweep()
    assert stream.phase is Phase.STREAMING
    stream.leave(somebody)
    generations.sweep()
    assert stream.phase is Phase.CANCELLED
    await until(lambda: source.closed)


async def test_by_default_it_goes_on_without_anybody(make: Make):
    generations = await make()
    stream, _ = await generations.start(Source())
    generations.sweep()
    assert stream.phase is Phase.STREAMING


# ---- failures ----

SECRET = "sk-secret"


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (ProviderError("rate_limited", "too much to do", SECRET), "rate_limited", "too much to do"),
        (RuntimeError(SECRET), "provider_failed", "the provider failed"),
        (TimeoutError(SECRET), "timeout", "the provider did not answer in time"),
    ],
)
async def test_viewers_learn_that_a_provider_failed_and_no_secret(
    make: Make, error: Exception, reason: str, message: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "hub.generations")
    source = Source("a", error)
    stream, _ = await (await make()).start(source)
    assert await over(stream) == {"phase": "failed", "reason": reason, "message": message}
    assert (stream.text(), source.closed) == ("a", 1)
    if reason != "timeout":
        assert SECRET in caplog.text  # who runs the hub wants to know


async def test_a_provider_that_can_not_even_begin_is_a_failure(make: Make, caplog: pytest.LogCaptureFixture):
    def broken() -> AsyncGenerator[Delta, None]:
        raise RuntimeError(SECRET)

    generations = await make()
    stream, _ = await generations.start(broken)
    assert (await over(stream))["reason"] == "provider_failed"
    assert generations.streaming == 0


async def test_a_cancel_reaches_the_provider_and_is_awaited(make: Make):
    source = Source("a")
    generations = await make()
    stream, _ = await generations.start(source)
    await until(stream.text)
    stream.cancel()
    assert stream.phase is Phase.CANCELLED
    await until(lambda: source.closed == 1)
    await until(lambda: not generations._tasks)
    assert stream.text() == "a"


# ---- finding, forgetting ----


async def test_what_ended_is_kept_for_its_time_and_then_it_is_known_to_be_gone(make: Make, clock: Clock):
    generations = await make(keep=300)
    stream, _ = await generations.start(Source("a"))
    clock.now += 10_000  # only the end begins the time
    generations.sweep()
    stream.cancel()
    clock.now += 299.9
    generations.sweep()
    assert await generations.find(stream.id) is stream
    clock.now += 0.1
    generations.sweep()
    with pytest.raises(GenerationExpired):
        await generations.find(stream.id)
    assert len(generations) == 0


async def test_what_is_being_watched_is_not_forgotten(make: Make, clock: Clock):
    class Slow:
        def news(self) -> None: ...

        def abort(self) -> None: ...

    generations = await make(keep=0)
    stream, _ = await generations.start(Source())
    slow = Slow()
    stream.watch(slow)
    stream.cancel()
    generations.sweep()
    assert await generations.find(stream.id) is stream
    stream.leave(slow)
    generations.sweep()
    assert len(generations) == 0


async def test_what_is_anothers_is_unknown_also_when_it_has_expired(make: Make, clock: Clock):
    generations = await make(keep=0)
    stream, _ = await generations.start(Source(), owner="ann")
    for stranger in ("bob", None):
        with pytest.raises(UnknownGeneration):
            await generations.find(stream.id, stranger)
    assert await generations.find(stream.id, "ann") is stream
    stream.cancel()
    generations.sweep()
    for stranger in ("bob", None):
        with pytest.raises(UnknownGeneration):
            await generations.find(stream.id, stranger)
    with pytest.raises(GenerationExpired):
        await generations.find(stream.id, "ann")


async def test_ids_can_not_be_guessed_and_fit_in_a_path(make: Make):
    generations = await make()
    ids = [(await generations.begin()).id for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(len(id) >= 22 and set(id) <= set("-_" + "".join(map(chr, range(48, 123)))) for id in ids)


# ---- the end of the hub ----


async def test_shutdown_ends_what_streams_and_waits_for_its_producers(make: Make):
    generations = await make()
    source = Source("a")
    stream, _ = await generations.start(source)
    own = await generations.begin()
    await until(stream.text)
    await generations.aclose()
    assert source.closed == 1
    for each in (stream, own):
        assert (await over(each))["reason"] == "producer_lost"
    with pytest.raises(ShuttingDown):
        await generations.start(source)


# ---- with a log ----


def file(folder: Path, clock: Callable[[], float] | None = None) -> Log:
    """A log in a file of *folder*."""
    options: dict[str, Any] = {"count": 10**6, "size": None, "age": None, "topics": {}, "unobserved": print}
    return make_log(f"sqlite:///{folder / 'ai.db'}", clock=clock or Clock(), **options)


async def test_nothing_is_seen_before_the_log_has_it(make: Make):
    log = HeldLog()
    generations = await make(log=log)
    stream = await generations.begin()
    stream.append("a")
    stream.finish()
    assert (stream.text(), stream.phase) == ("", Phase.STREAMING)
    log.confirm()
    assert (stream.text(), stream.phase) == ("a", Phase.DONE)


async def test_whoever_gives_up_while_the_log_opens_spoils_it_for_nobody(make: Make, tmp_path: Path):
    generations = await make(log=file(tmp_path))
    impatient = asyncio.create_task(generations.find("nobody"))
    patient = asyncio.create_task(generations.start(Source("a", None)))
    await asyncio.sleep(0)
    impatient.cancel()
    stream, _ = await patient
    assert (await over(stream))["phase"] == "done"


async def test_a_log_whose_opening_is_cancelled_can_be_opened_again(tmp_path: Path):
    log = file(tmp_path)
    for seconds in (0.0, 0.01, 0.05, 0.1):
        with suppress(TimeoutError):
            await asyncio.wait_for(log.open(), seconds)
            await log.aclose()
            break
        log = file(tmp_path)
    again = file(tmp_path)
    await again.open()
    await again.aclose()


async def test_what_has_lost_its_beginning_is_gone_and_not_unknown(make: Make):
    log = MemoryLog(count=2, clock=Clock())
    stream = await (await make(log=log)).begin()
    for piece in "ab":  # with which the beginning goes
        stream.append(piece)
    after = await make(log=log)
    with pytest.raises(GenerationExpired):
        await after.find(stream.id)


async def test_what_was_restored_counts_among_what_is_kept(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=file(tmp_path, clock))
    ids = []
    for _ in range(3):
        stream, _ = await before.start(Source("12345", None))
        await over(stream)
        ids.append(stream.id)
        clock.now += 1
    await before.aclose()
    after = await make(log=file(tmp_path, clock), kept_size=10)
    for id in ids:
        assert (await after.find(id)).size == 5
    after.sweep()
    with pytest.raises(GenerationExpired):
        await after.find(ids[0])
    assert len(after) == 2


async def test_a_large_piece_is_kept_in_a_log_too(make: Make, tmp_path: Path):
    text = "\x01" * 600_000  # of which JSON makes six times as much
    stream, _ = await (await make(log=file(tmp_path))).start(Source(text, None))
    assert (await over(stream))["phase"] == "done"
    assert stream.text() == text


async def test_nothing_has_begun_before_the_log_has_it(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, total=1)
    source = Source()
    starting = asyncio.create_task(generations.start(source))
    await until(lambda: log.waiting)
    assert (source.begun, generations.streaming) == (0, 1)
    with pytest.raises(TooManyGenerations):
        await generations.begin()
    log.confirm()
    stream, _ = await starting
    await until(lambda: source.begun)
    assert await generations.find(stream.id) is stream


async def test_what_could_not_begin_leaves_nothing(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, total=1)
    source = Source()
    for _ in range(2):
        starting = asyncio.create_task(generations.start(source, key="k"))
        await until(lambda: log.waiting)
        log.fail()
        with pytest.raises(LogUnavailable):
            await starting
        assert (source.begun, generations.streaming, len(generations)) == (0, 0, 0)


async def test_what_has_begun_goes_on_without_the_caller(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log)
    source = Source("a")
    starting = asyncio.create_task(generations.start(source, key="k"))
    await until(lambda: log.waiting)
    starting.cancel()
    await asyncio.wait([starting])
    log.holds = False
    log.confirm()
    stream, new = await generations.start(source, key="k")
    assert (source.begun, new) == (1, False)
    assert stream.phase is Phase.STREAMING


async def test_what_began_for_a_caller_who_left_has_a_lease(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, lease=0)
    beginning = asyncio.create_task(generations.begin())
    await until(lambda: log.waiting)
    beginning.cancel()
    await asyncio.wait([beginning])
    log.confirm()
    await until(lambda: len(generations) == 1)
    log.holds = False
    generations.sweep()
    log.confirm()
    await until(lambda: generations.streaming == 0)


@pytest.mark.parametrize("how", ["start", "begin"])
async def test_a_shutdown_in_the_middle_of_a_beginning_waits_for_it(make: Make, how: str):
    log = HeldLog(holds=True)
    generations = await make(log=log)

    async def begin() -> TokenStream:
        stream: TokenStream
        if how == "begin":
            stream = await generations.begin()
        else:
            stream, _ = await generations.start(Source("a"))
        return stream

    starting = asyncio.create_task(begin())
    await until(lambda: log.waiting)
    closing = asyncio.create_task(generations.aclose())
    await asyncio.sleep(0)
    log.holds = False
    log.confirm()
    stream = await starting
    await closing
    assert (await over(stream))["reason"] == "producer_lost"


async def test_what_was_done_is_done_after_a_restart(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=file(tmp_path, clock))
    source = Source("两", "\nb", Delta("", "stop", {"total_tokens": 2}))
    stream, _ = await before.start(source, owner="ann", model="m")
    source.say(None)
    facts = await over(stream)
    await before.aclose()
    after = await make(log=file(tmp_path, clock))
    again = await after.find(stream.id, "ann")
    assert (again.text(), again.newest, again.head) == ("两\nb", 2, stream.head)
    assert await over(again) == facts
    assert await after.find(stream.id, "ann") is again
    with pytest.raises(UnknownGeneration):
        await after.find(stream.id, "bob")


async def test_what_was_streaming_has_lost_its_producer_after_a_restart(make: Make, tmp_path: Path, clock: Clock):
    log = file(tmp_path, clock)
    before = await make(log=log)
    stream = await before.begin()
    stream.append("a")
    stream.append("b")
    await until(lambda: stream.text() == "ab")
    await log.aclose()  # as if it had been killed: no end is kept
    after = await make(log=file(tmp_path, clock))
    again, other = await asyncio.gather(after.find(stream.id), after.find(stream.id))
    assert again is other
    assert (again.text(), (await over(again))["reason"]) == ("ab", "producer_lost")


async def test_what_expired_while_the_hub_was_down_is_known_to_be_gone(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=file(tmp_path, clock), keep=300)
    stream = await before.begin()
    stream.finish()
    await over(stream)
    await before.aclose()
    clock.now += 300
    after = await make(log=file(tmp_path, clock), keep=300)
    for _ in range(2):
        with pytest.raises(GenerationExpired):
            await after.find(stream.id)


@pytest.mark.parametrize("id", ["*", "**", "", "nobody", "a b", "a/b", "*?", "x" * 1_000, "a\0b"])
async def test_what_is_no_id_finds_nothing_also_in_a_log(make: Make, tmp_path: Path, clock: Clock, id: str):
    before = await make(log=file(tmp_path, clock))
    stream = await before.begin()
    stream.append("somebody's")
    await until(stream.text)
    await before.aclose()
    after = await make(log=file(tmp_path, clock))
    with pytest.raises(UnknownGeneration):
        await after.find(id)


class HeldLog:
    """A memory log that confirms, or fails, when the test says so; a beginning at once, unless it *holds* that too."""

    def __init__(self, *, holds: bool = False) -> None:
        self.holds = holds
        self._log = MemoryLog(clock=Clock())
        self._announce: Announce = lambda notifications: None
        self.waiting: list[tuple[Sequence[Draft], list[Receipt]]] = []
        self.refuses = False

    async def open(self) -> None:
        await self._log.open()

    def announce_to(self, announce: Announce) -> None:
        self._log.announce_to(announce)

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self.refuses:
            raise LogUnavailable("too much waits")
        if drafts[0].type == "start" and not self.holds:
            return self._log.append(drafts)
        receipts = [Receipt(draft.topics) for draft in drafts]
        self.waiting.append((drafts, receipts))
        return receipts

    def confirm(self, count: int | None = None) -> None:
        for drafts, receipts in self._take(count):
            for receipt, kept in zip(receipts, self._log.append(drafts), strict=True):
                receipt.confirm(kept.result())

    def fail(self, count: int | None = None) -> None:
        for _, receipts in self._take(count):
            for receipt in receipts:
                receipt.fail(LogUnavailable("the disk is full"), print)

    async def aclose(self) -> None:
        self.confirm()
        await self._log.aclose()

    def _take(self, count: int | None) -> list[tuple[Sequence[Draft], list[Receipt]]]:
        count = len(self.waiting) if count is None else count
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_when_the_log_fails_the_generation_fails_and_viewers_are_told(
    make: Make, caplog: pytest.LogCaptureFixture
):
    log = HeldLog()
    source = Source("a")
    generations = await make(log=log)
    stream, _ = await generations.start(source)
    await until(lambda: log.waiting)
    log.confirm()
    source.say("b")
    await until(lambda: log.waiting)
    log.fail()
    assert await over(stream) == {
        "phase": "failed",
        "reason": "unavailable",
        "message": "the answer could not be kept",
    }
    assert stream.text() == "a"
    await until(lambda: source.closed)
    assert generations.streaming == 0


async def test_no_text_with_a_hole_is_delivered(make: Make, caplog: pytest.LogCaptureFixture):
    log = HeldLog()
    generations = await make(log=log)
    stream = await generations.begin()
    for piece in "abc":
        stream.append(piece)
    stream.finish()
    log.confirm(1)
    log.fail(1)
    log.confirm()
    assert stream.text() == "a"
    assert (await over(stream))["reason"] == "unavailable"
    again = await (await make(log=log)).find(stream.id)
    assert (again.text(), (await over(again))["reason"]) == ("a", "producer_lost")


@pytest.mark.parametrize("window", [0.0, 3600.0])
async def test_when_the_log_refuses_the_generation_fails(make: Make, window: float, caplog: pytest.LogCaptureFixture):
    log = HeldLog()
    generations = await make(log=log, window=window)
    stream = await generations.begin()
    log.confirm()
    log.refuses = True
    stream.append("a")
    stream.finish()
    assert (await over(stream))["reason"] == "unavailable"
    with pytest.raises(HubError):
        await generations.begin()


async def test_a_log_that_can_not_be_opened_is_said_to_whoever_begins(make: Make, tmp_path: Path):
    (tmp_path / "ai.db").mkdir()
    generations = await make(log=file(tmp_path))
    source = Source()
    with pytest.raises(LogUnavailable):
        await generations.start(source)
    assert source.begun == 0
