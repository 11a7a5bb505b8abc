"""One producer at work: what it says, how it fails, how it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from hub.generations.generation import LOOK_AHEAD_CHARACTERS, Phase
from hub.generations.providers.provider import Delta, ProviderError
from tests.generations.support import HeldLog, Make, Source, over
from tests.web.client import until


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
    await asyncio.wait_for(closed.wait(), 60)


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


async def test_the_cleanup_of_a_provider_is_not_cancelled_by_what_made_it_necessary(make: Make):
    source = Source("a")
    stream, _ = await (await make()).start(source)
    await until(stream.text)
    source.say("b")  # it will be read in this turn of the loop, and be too late: then it is over before it is cancelled
    stream.cancel()
    await until(lambda: source.closed == 1)
    assert stream.text() == "a"


async def test_who_is_stopped_again_while_it_cleans_up_is_left_alone(make: Make):
    steps: list[str] = []
    go_on = asyncio.Event()

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            steps.append("begins to clean up")
            await go_on.wait()
            steps.append("has cleaned up")

    stream = await (await make()).stream_from(source())
    await until(stream.text)
    stream.stop_producer()
    await until(lambda: steps)
    stream.stop_producer()
    await asyncio.sleep(0)
    go_on.set()
    await until(lambda: len(steps) == 2)


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
