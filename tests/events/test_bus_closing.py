"""A bus that closes: what still runs is waited for, then cancelled, and never for ever."""

import asyncio
import contextlib
import gc
import threading

import pytest

from hub.errors import ShuttingDown
from hub.events.bus import EventBus
from hub.events.event import Event, qualified_name
from hub.metrics import Metrics
from tests.events.handlers import Gate, Recorder


async def test_closing_waits_for_the_handlers_that_run(bus: EventBus) -> None:
    gate = Gate()
    bus.on("x", gate)
    bus.emit("x")
    closing = asyncio.ensure_future(bus.aclose(timeout=None))
    await gate.entered.wait()
    assert not closing.done()
    gate.release.set()
    await closing
    assert gate.ended == ["done"]


async def test_closing_cancels_the_handlers_that_outlast_the_timeout_and_logs_their_names(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    bus.on("x", gate)
    bus.emit("x")
    await gate.entered.wait()
    await bus.aclose(timeout=0)
    assert gate.ended == ["cancelled"]
    assert f"handler {Gate.__module__}.Gate was cancelled while handling x" in caplog.text


async def test_a_handler_cancelled_before_its_first_step_was_never_inside(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    running, late = Gate(), Gate()
    bus.on("a", running)
    bus.on("b", late)
    bus.emit("a")
    await running.entered.wait()
    closing = asyncio.ensure_future(bus.aclose(timeout=None))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(bus.emit, "b")  # runs just before the cancelled close goes on
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await bus.aclose()
    gc.collect()  # a coroutine that was never awaited would warn now
    assert (running.ended, late.entered.is_set()) == (["cancelled"], False)
    assert "was cancelled while handling b" in caplog.text


async def test_closing_awaits_the_cleanup_of_a_cancelled_handler(bus: EventBus) -> None:
    gate, cleaned = Gate(), list[bool]()

    async def clean_up(event: Event) -> None:
        try:
            await gate(event)
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            cleaned.append(True)

    bus.on("x", clean_up)
    bus.emit("x")
    await gate.entered.wait()
    await bus.aclose(timeout=0)
    assert cleaned == [True]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait long for a cleanup."""
    monkeypatch.setattr("hub.cleanup.CLEANUP_SECONDS", 0.05)
    monkeypatch.setattr("hub.cleanup.LAST_SECONDS", 0.05)


@pytest.mark.usefixtures("hurried")
async def test_closing_does_not_wait_for_ever_for_a_cleanup(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    async def clean_up(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    bus.on("x", clean_up)
    bus.emit("x")
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await bus.aclose(timeout=0)
    assert f"handler {qualified_name(clean_up)} still cleans up after 0.05 s: it is cancelled" in caplog.text
    assert not bus._running


@pytest.mark.usefixtures("hurried")
async def test_closing_leaves_a_handler_behind_that_does_not_let_itself_be_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, free = Metrics(), asyncio.Event()
    bus = EventBus(metrics=metrics)
    bus.open()

    async def deaf(event: Event) -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    bus.on("x", deaf)
    bus.emit("x")
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await bus.aclose(timeout=0)
    assert f"handler {qualified_name(deaf)} does not end: it is left behind" in caplog.text
    assert len(bus._running) == metrics.left_behind == 1
    free.set()
    await asyncio.wait(bus._running)


async def test_what_a_handler_emits_while_the_bus_closes_is_still_heard(bus: EventBus) -> None:
    gate, recorder = Gate(), Recorder()

    async def finish(event: Event) -> None:
        await gate(event)
        bus.emit("order.archived")

    bus.on("order.created", finish)
    bus.on("order.archived", recorder)
    bus.emit("order.created")
    closing = asyncio.ensure_future(bus.aclose())
    await gate.entered.wait()
    gate.release.set()
    await closing
    assert recorder.names == ["order.archived"]


async def test_an_event_handed_over_by_a_thread_before_closing_is_still_heard(bus: EventBus) -> None:
    recorder = Recorder()
    bus.on("x", recorder)
    thread = threading.Thread(target=bus.emit, args=("x",))
    thread.start()
    thread.join()
    await bus.aclose()
    assert recorder.names == ["x"]


async def test_a_closed_bus_refuses_everything_with_a_clear_error(bus: EventBus) -> None:
    await bus.aclose()
    with pytest.raises(ShuttingDown, match="shutting down"):
        bus.emit("x")
    with pytest.raises(ShuttingDown):
        await bus.publish("x")
    with pytest.raises(ShuttingDown):
        bus.on("x", Recorder())
    with pytest.raises(ShuttingDown):
        bus.open()
    with pytest.raises(ShuttingDown):
        await asyncio.to_thread(bus.emit, "x")


async def test_closing_twice_and_disposing_afterwards_are_harmless(bus: EventBus) -> None:
    subscription = bus.on("x", Recorder())
    await bus.aclose()
    await bus.aclose()
    subscription.dispose()


async def test_a_handler_may_close_the_bus_without_waiting_for_itself(bus: EventBus) -> None:
    closed = asyncio.Event()

    async def close(_: Event) -> None:
        await bus.aclose(timeout=None)
        closed.set()

    bus.on("x", close)
    bus.emit("x")
    await closed.wait()


async def test_cancelling_the_close_still_closes_and_cancels_the_handlers(bus: EventBus) -> None:
    gate, recorder = Gate(), Recorder()
    bus.on("x", gate)
    bus.observable("x").subscribe(recorder, on_completed=recorder.complete)
    bus.emit("x")
    await gate.entered.wait()
    closing = asyncio.ensure_future(bus.aclose(timeout=None))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert recorder.names == ["x", "(completed)"]
    await bus.aclose()
    assert gate.ended == ["cancelled"]


async def test_a_bus_that_closes_unopened_says_how_many_events_nobody_heard(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    bus.emit("a")
    bus.emit("b")
    await bus.aclose()
    assert "2 events that nobody heard" in caplog.text
