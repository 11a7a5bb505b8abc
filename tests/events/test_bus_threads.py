"""Other threads: what they may do with a bus, and what waits for the loop."""

import asyncio
import threading

import pytest

from hub.errors import EventBufferFull, HubError, ShuttingDown, WrongThread
from hub.events.bus import MAX_WAITING, EventBus
from tests.events.handlers import Recorder


async def test_an_event_emitted_by_another_thread_is_handled_on_the_loops_thread(bus: EventBus) -> None:
    threads: list[int] = []
    bus.on("x", lambda _: threads.append(threading.get_ident()))
    event = await asyncio.to_thread(bus.emit, "x", 1)
    assert event.payload == 1
    assert threads == [threading.get_ident()]


async def test_the_events_of_another_thread_keep_their_order(bus: EventBus) -> None:
    recorder = Recorder()
    names = [str(number) for number in range(500)]
    bus.on("*", recorder)
    await asyncio.to_thread(lambda: [bus.emit(name) for name in names])
    assert recorder.names == names


async def test_a_thread_that_is_faster_than_the_loop_meets_the_bound(bus: EventBus) -> None:
    recorder, refused = Recorder(), list[HubError]()
    bus.on("*", recorder)

    def flood() -> None:
        try:
            for _ in range(MAX_WAITING + 1):
                bus.emit("x")
        except EventBufferFull as error:
            refused.append(error)

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join()  # the loop takes nothing over meanwhile
    assert len(refused) == 1
    await bus.aclose()
    assert len(recorder.names) == MAX_WAITING


async def test_a_thread_that_emits_after_the_loop_has_ended_is_told_so() -> None:
    bus = EventBus()

    async def open_only() -> None:
        bus.open()

    await asyncio.to_thread(asyncio.run, open_only())
    with pytest.raises(ShuttingDown):
        bus.emit("x")


async def test_waiting_belongs_to_the_loop_of_the_bus(bus: EventBus) -> None:
    for wait in (bus.publish, bus.wait_for):
        with pytest.raises(WrongThread):
            await asyncio.to_thread(asyncio.run, wait("x"))


async def test_other_threads_may_bind_and_dispose_while_events_happen(bus: EventBus) -> None:
    recorder, done = Recorder(), threading.Event()

    def churn() -> None:
        for number in range(2_000):
            bus.on((f"x.{number % 7}", "**"), recorder).dispose()
        done.set()

    thread = threading.Thread(target=churn)
    thread.start()
    while not done.is_set():
        bus.emit("x.1")
        await asyncio.sleep(0)
    thread.join()
    recorder.names.clear()
    bus.emit("x.1")
    assert recorder.names == []
