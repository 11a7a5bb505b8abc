"""A bus before it is open: what waits, how much of it, and in which order it is heard then."""

import asyncio
import threading

import pytest

from hub.errors import EventBufferFull, WrongThread
from hub.events.bus import MAX_WAITING, EventBus
from hub.events.event import Event
from tests.events.handlers import Recorder


async def test_events_emitted_before_the_bus_is_open_are_heard_in_order_when_it_opens() -> None:
    bus, recorder = EventBus(), Recorder()
    for name in ("a", "b", "c"):
        bus.emit(name)
    bus.on("*", recorder)
    assert recorder.names == []
    bus.open()
    assert recorder.names == ["a", "b", "c"]


async def test_what_handlers_emit_while_the_bus_opens_comes_behind_what_waited() -> None:
    bus, recorder = EventBus(), Recorder()
    bus.on("a", lambda _: bus.emit("from.a"), priority=1)
    bus.on("from.a", lambda _: bus.emit("from.from.a"))
    bus.on("**", recorder)
    bus.emit("a")
    bus.emit("b")
    bus.open()
    assert recorder.names == ["a", "b", "from.a", "from.from.a"]
    bus.emit("a")  # at once again
    assert recorder.names[4:] == ["from.from.a", "from.a", "a"]


async def test_what_another_thread_emits_while_the_bus_opens_comes_behind_what_waited_too() -> None:
    bus, recorder = EventBus(), Recorder()

    def elsewhere(_: Event) -> None:
        thread = threading.Thread(target=bus.emit, args=("elsewhere",))
        thread.start()
        thread.join()

    bus.on("a", elsewhere)
    bus.on("*", recorder)
    bus.emit("a")
    bus.emit("b")
    bus.open()
    assert recorder.names == ["a", "b", "elsewhere"]


async def test_handlers_that_answer_each_event_with_another_one_do_not_keep_the_bus_from_opening(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, recorder = EventBus(), Recorder()
    bus.on("a", recorder)
    bus.on("a", lambda _: bus.emit("a"))
    bus.emit("a")
    bus.emit("a")
    bus.open()
    assert len(recorder.names) == MAX_WAITING + 2
    assert "10,000 events already wait" in caplog.text


async def test_what_waits_when_a_handler_ends_the_process_is_not_lost() -> None:
    bus, recorder = EventBus(), Recorder()

    def end(_: Event) -> None:
        raise SystemExit

    bus.on("a", end)
    bus.on("b", recorder)
    for name in ("a", "b", "b"):
        bus.emit(name)
    with pytest.raises(SystemExit):
        bus.open()
    await bus.aclose()
    assert recorder.names == ["b", "b"]


async def test_as_many_events_as_may_wait_are_kept_and_one_more_is_refused() -> None:
    bus, recorder = EventBus(), Recorder()
    bus.on("*", recorder)
    for _ in range(MAX_WAITING):
        bus.emit("x")
    with pytest.raises(EventBufferFull, match="10,000"):
        bus.emit("x")
    bus.open()
    assert len(recorder.names) == MAX_WAITING == 10_000


def test_a_bus_opens_on_a_running_loop_only() -> None:
    with pytest.raises(RuntimeError):
        EventBus().open()


async def test_opening_twice_is_harmless_and_opening_on_a_second_loop_is_refused(bus: EventBus) -> None:
    bus.open()

    async def open_elsewhere() -> None:
        bus.open()

    with pytest.raises(WrongThread):
        await asyncio.to_thread(asyncio.run, open_elsewhere())
