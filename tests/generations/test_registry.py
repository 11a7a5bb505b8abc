"""All generations of a hub: their bounds, their keys, their time, their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from hub.errors import (
    GenerationExpired,
    KeyReused,
    ShuttingDown,
    TooManyGenerations,
    UnknownGeneration,
)
from hub.generations.generation import Phase
from hub.generations.providers.provider import Delta
from tests.generations.support import Clock, HeldLog, Make, Source, over
from tests.web.client import until

# ---- an end ----


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

    monkeypatch.setattr("hub.cleanup.CLEANUP_SECONDS", 0.05)
    generations = await make()
    stream, _ = await generations.start(Stuck())
    await until(stream.text)
    await generations.aclose()
    assert f"the provider of generation {stream.id[:6]} still cleans up after 0.05 s" in caplog.text
    assert not generations._tasks


async def test_shutdown_leaves_a_provider_behind_that_does_not_let_itself_be_cancelled(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    free = asyncio.Event()

    class Deaf(Source):
        async def _stream(self) -> AsyncGenerator[Delta, None]:
            yield Delta("a")
            while not free.is_set():
                with suppress(asyncio.CancelledError):
                    await free.wait()

    monkeypatch.setattr("hub.cleanup.CLEANUP_SECONDS", 0.05)
    monkeypatch.setattr("hub.cleanup.LAST_SECONDS", 0.05)
    generations = await make()
    stream, _ = await generations.start(Deaf())
    await until(stream.text)
    await generations.aclose()
    assert f"the provider of generation {stream.id[:6]} does not end: it is left behind" in caplog.text
    assert len(generations._tasks) == generations._metrics.left_behind == 1
    free.set()
    await until(lambda: not generations._tasks)


async def test_shutdown_does_not_wait_for_ever_for_a_beginning_that_the_log_does_not_confirm(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("hub.cleanup.CLEANUP_SECONDS", 0.05)
    generations = await make(log=HeldLog(holds=True))
    beginning = asyncio.create_task(generations.start(Source("a")))
    await until(lambda: generations._beginning)
    await generations.aclose()
    assert "the beginning of a generation still cleans up" in caplog.text
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert generations.streaming == 0


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


# ---- time ----


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
    generations = await make(kept_size=50_000)
    streams = []
    for _ in range(3):
        stream = await generations.begin()
        stream.append("x" * 30_000)
        streams.append(stream)
    for stream in (streams[1], streams[0]):
        clock.now += 1
        stream.finish()
    generations.sweep()
    with pytest.raises(GenerationExpired):
        await generations.find(streams[1].id)
    assert [await generations.find(streams[place].id) for place in (0, 2)] == [streams[0], streams[2]]
    streams[2].append("x" * 30_000)
    clock.now += 1
    streams[2].finish()
    for _ in range(2):
        generations.sweep()
        with pytest.raises(GenerationExpired):
            await generations.find(streams[0].id)
        assert await generations.find(streams[2].id) is streams[2]  # the newest stays, however large


async def test_a_key_goes_with_the_generation_that_it_leads_to(make: Make, clock: Clock):
    generations = await make(keep=10)
    for number in range(3):
        stream, _ = await generations.start(Source(), key=str(number))
        stream.cancel()
    assert len(generations._keys) == 3
    clock.now += 10
    generations.sweep()
    assert (len(generations), len(generations._keys)) == (0, 0)


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
