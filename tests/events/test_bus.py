"""The event bus: who hears an event, in which order, and what becomes of those who fail."""

import asyncio
import functools
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops

from hub.errors import BusNotOpen, HandlerCancelled, InvalidEventName, ShuttingDown
from hub.events.bus import EventBus
from hub.events.event import Event
from tests.events.handlers import NOON, Failing, Gate, Recorder, fail, fail_later, note, steps

# ---- patterns ----


NAMES = ["foo", "foo.bar", "foo.bar.baz", "created", "order.created", "shop.order.created", "a.z", "a.b.z", "a.b.c.z"]


@pytest.mark.parametrize(
    ("pattern", "heard"),
    [
        ("foo", ["foo"]),
        ("foo.*", ["foo.bar"]),
        ("foo.**", ["foo", "foo.bar", "foo.bar.baz"]),
        ("*.created", ["order.created"]),
        ("**.created", ["created", "order.created", "shop.order.created"]),
        ("a.*.z", ["a.b.z"]),
        ("a.**.z", ["a.z", "a.b.z", "a.b.c.z"]),
        ("*", ["foo", "created"]),
        ("**", NAMES),
    ],
)
async def test_patterns_hear_what_they_hear_in_eventemitter2(bus: EventBus, pattern: str, heard: list[str]) -> None:
    recorder = Recorder()
    bus.on(pattern, recorder)
    for name in NAMES:
        bus.emit(name)
    assert recorder.names == heard


def matches(pattern: list[str], name: list[str]) -> bool:
    """Decide by the words of the rule, slowly."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return matches(pattern[1:], name) or bool(name and matches(pattern, name[1:]))
    return bool(name) and pattern[0] in {"*", name[0]} and matches(pattern[1:], name[1:])


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5), min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6),
)
def test_exactly_the_matching_handlers_hear_an_event_once_each(patterns: list[list[str]], name: list[str]) -> None:
    async def heard() -> list[int]:
        bus, numbers = EventBus(), list[int]()
        for number, pattern in enumerate(patterns):
            bus.on(".".join(pattern), functools.partial(note, numbers, number))
        bus.open()
        bus.emit(".".join(name))
        return numbers

    assert asyncio.run(heard()) == [number for number, pattern in enumerate(patterns) if matches(pattern, name)]


async def test_the_cost_of_an_event_does_not_grow_with_handlers_of_other_events(bus: EventBus) -> None:
    for pattern in ("order.created", "order.*", "**"):
        bus.on(pattern, Recorder())
    bus.emit("order.created")  # its name is checked once
    alone = steps(lambda: bus.emit("order.created"))
    for number in range(2_500):
        bus.on((f"order.{number}", f"stock.{number}.*", f"**.{number}"), Recorder())
    assert steps(lambda: bus.emit("order.created")) == alone


# ---- events ----


async def test_emit_returns_the_event_that_the_handlers_hear(bus: EventBus) -> None:
    heard: list[Event] = []
    bus.on("order.created", heard.append)
    event = bus.emit("order.created", {"id": 1})
    assert heard[0] is event
    assert (event.name, event.payload, event.at) == ("order.created", {"id": 1}, NOON)


async def test_events_have_unique_ids_and_never_change(bus: EventBus) -> None:
    first, second = bus.emit("tick"), bus.emit("tick")
    assert first.id != second.id
    assert len({first, second}) == 2
    with pytest.raises(AttributeError):
        first.name = "tock"  # type: ignore[misc]  # the point of the test


# ---- plain handlers ----


async def test_plain_handlers_have_run_when_emit_returns_by_priority_then_registration(bus: EventBus) -> None:
    calls: list[str] = []
    for name, pattern, priority in [("c", "x", 0), ("a", "*", 9), ("d", "**", 0), ("e", "x", -1), ("b", "x", 9)]:
        bus.on(pattern, functools.partial(note, calls, name), priority=priority)
    bus.emit("x")
    assert calls == ["a", "b", "c", "d", "e"]


async def test_a_handler_with_several_matching_patterns_is_called_once_per_event(bus: EventBus) -> None:
    recorder = Recorder()
    bus.on(("order.created", "order.*", "order.created", "**"), recorder)
    bus.emit("order.created")
    assert recorder.names == ["order.created"]


async def test_a_once_handler_hears_only_the_first_event_even_if_it_emits_the_next_itself(bus: EventBus) -> None:
    recorder = Recorder()

    def emit_again(event: Event) -> None:
        recorder(event)
        bus.emit("order.paid")

    bus.on(("order.created", "order.paid"), emit_again, once=True)
    bus.emit("order.created")
    bus.emit("order.created")
    assert recorder.names == ["order.created"]


async def test_a_disposed_handler_is_not_called_again_and_disposing_twice_is_harmless(bus: EventBus) -> None:
    recorder, other = Recorder(), Recorder()
    subscription = bus.on(("order.*", "**"), recorder)
    bus.on("order.*", other)
    subscription.dispose()
    subscription.dispose()
    bus.emit("order.created")
    assert (recorder.names, other.names) == ([], ["order.created"])


async def test_a_handler_disposed_by_an_earlier_one_does_not_hear_the_event_under_way(bus: EventBus) -> None:
    recorder = Recorder()
    bus.on("x", lambda _: later.dispose(), priority=1)
    later = bus.on("x", recorder)
    bus.emit("x")
    assert recorder.names == []


async def test_a_handler_bound_during_an_event_hears_the_next_one_first(bus: EventBus) -> None:
    recorder = Recorder()
    bus.on("x", lambda _: bus.on("x", recorder), once=True)
    bus.emit("x")
    assert recorder.names == []
    bus.emit("x")
    assert recorder.names == ["x"]


async def test_what_a_handler_emits_is_heard_before_its_emit_returns(bus: EventBus) -> None:
    recorder = Recorder()

    def pay(event: Event) -> None:
        bus.emit("order.paid")
        recorder(event)

    bus.on("order.paid", recorder)
    bus.on("order.created", pay)
    bus.emit("order.created")
    assert recorder.names == ["order.paid", "order.created"]


@pytest.mark.parametrize("error", [LookupError("gone"), asyncio.CancelledError(), RecursionError()])
async def test_a_failing_handler_is_logged_by_name_and_stops_neither_others_nor_the_emitter(
    bus: EventBus, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def broken(_: Event) -> None:
        raise error

    recorder = Recorder()
    bus.on("order.created", broken, priority=1)
    bus.on("order.created", recorder)
    bus.emit("order.created")
    assert recorder.names == ["order.created"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert f"{__name__}.{broken.__qualname__}" in record.getMessage()
    assert "order.created" in record.getMessage()
    assert error.__class__.__name__ in caplog.text


async def test_a_keyboard_interrupt_in_a_handler_reaches_the_emitter(bus: EventBus) -> None:
    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    bus.on("x", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bus.emit("x")


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (fail, "fail"),
        (Failing(), "Failing"),
        (Failing().method, "Failing.method"),
        (functools.partial(functools.partial(Failing().method)), "Failing.method"),
    ],
)
async def test_the_log_names_any_kind_of_handler(
    bus: EventBus, caplog: pytest.LogCaptureFixture, handler: Callable[[Event], None], name: str
) -> None:
    bus.on("x", handler)
    bus.emit("x")
    assert f"handler {fail.__module__}.{name} failed" in caplog.text


def test_a_handler_needs_a_pattern_and_something_to_call() -> None:
    with pytest.raises(ValueError, match="at least one"):
        EventBus().on((), Recorder())
    with pytest.raises(TypeError, match="cannot"):
        EventBus().on("x", None)  # type: ignore[arg-type]  # the point of the test


# ---- async handlers ----


async def test_async_handlers_are_started_and_emit_does_not_wait_for_them(bus: EventBus) -> None:
    gate = Gate()
    bus.on("x", gate)
    bus.emit("x")
    assert not gate.entered.is_set()
    await gate.entered.wait()
    gate.release.set()
    await bus.aclose()
    assert gate.ended == ["done"]


async def test_async_handlers_start_in_the_order_of_their_priority(bus: EventBus) -> None:
    started: list[int] = []

    async def start(priority: int, _: Event) -> None:
        started.append(priority)

    for priority in (0, 7, 3):
        bus.on("x", functools.partial(start, priority), priority=priority)
    await bus.publish("x")
    assert started == [7, 3, 0]


async def test_the_bus_holds_a_running_handler_and_lets_go_of_an_ended_one(bus: EventBus) -> None:
    tasks: list[weakref.ref[asyncio.Future[Any]]] = []
    parked = asyncio.Event()

    async def park(_: Event) -> None:
        release = asyncio.get_running_loop().create_future()  # held by this task alone
        tasks.extend(weakref.ref(future) for future in (asyncio.current_task(), release) if future)
        parked.set()
        await release

    bus.on("x", park)
    bus.emit("x")
    await parked.wait()
    gc.collect()
    task, release = tasks
    assert task() is not None
    gate = release()
    assert gate is not None
    gate.set_result(None)
    await bus.aclose()
    gc.collect()
    assert task() is None


async def test_a_failing_async_handler_is_logged_by_name_and_stops_no_other(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    gate.release.set()
    bus.on("x", fail_later)
    bus.on("x", gate)
    bus.emit("x")
    await bus.aclose()
    assert gate.ended == ["done"]
    assert f"handler {fail_later.__module__}.fail_later failed at event x" in caplog.text
    assert "ValueError: x" in caplog.text


async def test_an_async_handler_that_ends_by_a_foreign_cancellation_is_logged(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_for_nothing(_: Event) -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    bus.on("x", wait_for_nothing)
    bus.emit("x")
    await bus.aclose()
    assert "wait_for_nothing was cancelled while handling x" in caplog.text


async def test_anything_awaitable_that_a_handler_returns_is_waited_for(bus: EventBus) -> None:
    ended = asyncio.get_running_loop().create_future()
    bus.on("x", lambda _: ended)
    publishing = asyncio.ensure_future(bus.publish("x"))
    await asyncio.sleep(0)
    assert not publishing.done()
    ended.set_result(None)
    await publishing


# ---- publish ----


async def test_publish_returns_the_event_after_all_handlers_have_ended(bus: EventBus) -> None:
    first, second, recorder = Gate(), Gate(), Recorder()
    for handler in (first, second, recorder):
        bus.on("x", handler)
    publishing = asyncio.ensure_future(bus.publish("x", 1))
    await first.entered.wait()
    first.release.set()
    await second.entered.wait()
    assert recorder.names == ["x"]
    assert not publishing.done()
    second.release.set()
    assert (await publishing).payload == 1
    assert first.ended == second.ended == ["done"]


async def test_publish_without_handlers_returns_at_once(bus: EventBus) -> None:
    assert (await bus.publish("x")).name == "x"


async def test_publish_reports_every_error_in_one_group_after_all_have_ended(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    async def cancel(_: Event) -> None:
        raise asyncio.CancelledError

    gate = Gate()
    gate.release.set()
    for handler in (fail_later, fail, cancel, gate):
        bus.on("x", handler)
    with pytest.raises(ExceptionGroup, match="handlers of x failed") as caught:
        await bus.publish("x")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, LookupError, HandlerCancelled]
    assert gate.ended == ["done"]
    assert caplog.records == []  # reported once, to the one who waits


async def test_cancelling_publish_leaves_the_handlers_running_and_logs_what_they_raise(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    async def fail_in_the_end(event: Event) -> None:
        await gate(event)
        raise LookupError("too late")

    bus.on("x", fail)
    bus.on("x", fail_in_the_end)
    publishing = asyncio.ensure_future(bus.publish("x"))
    await gate.entered.wait()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    gate.release.set()
    await bus.aclose()
    assert gate.ended == ["done"]
    assert "too late" in caplog.text
    assert f"{fail.__module__}.fail failed" in caplog.text


async def test_publish_is_refused_before_the_bus_is_open_instead_of_waiting_for_ever() -> None:
    with pytest.raises(BusNotOpen, match="emit"):
        await EventBus().publish("x")


# ---- waiting for an event ----


async def test_wait_for_returns_the_next_event_that_matches_pattern_and_filter(bus: EventBus) -> None:
    waiting = asyncio.ensure_future(bus.wait_for("order.*", filter=lambda event: event.payload > 1))
    await asyncio.sleep(0)
    bus.emit("order.created", 1)
    wanted = bus.emit("order.paid", 2)
    bus.emit("order.paid", 3)
    assert await waiting is wanted


async def test_wait_for_gives_up_after_its_timeout_and_hears_nothing_more(bus: EventBus) -> None:
    asked: list[Event] = []
    with pytest.raises(TimeoutError):
        await bus.wait_for("x", timeout=0, filter=asked.append)
    bus.emit("x")
    assert asked == []


async def test_wait_for_raises_what_its_filter_raises(bus: EventBus) -> None:
    waiting = asyncio.ensure_future(bus.wait_for("x", filter=lambda event: event.payload["missing"]))
    await asyncio.sleep(0)
    bus.emit("x", {})
    with pytest.raises(KeyError, match="missing"):
        await waiting


async def test_wait_for_ends_with_an_error_when_the_bus_closes(bus: EventBus) -> None:
    waiting = asyncio.ensure_future(bus.wait_for("x"))
    await asyncio.sleep(0)
    await bus.aclose()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await bus.wait_for("x")


# ---- observables ----


async def test_an_observable_brings_matching_events_until_it_is_disposed(bus: EventBus) -> None:
    recorder = Recorder()
    subscription = bus.observable("order.*").subscribe(recorder)
    bus.emit("order.created")
    bus.emit("user.registered")
    subscription.dispose()
    bus.emit("order.paid")
    assert recorder.names == ["order.created"]


async def test_observables_complete_when_the_bus_closes_and_at_once_afterwards(bus: EventBus) -> None:
    before, after = Recorder(), Recorder()
    bus.observable("x").pipe(ops.take(5)).subscribe(before, on_completed=before.complete)
    assert before.names == []
    await bus.aclose()
    bus.observable("x").subscribe(after, on_completed=after.complete)
    assert before.names == after.names == ["(completed)"]


async def test_a_disposed_observable_does_not_complete(bus: EventBus) -> None:
    recorder = Recorder()
    bus.observable("x").subscribe(recorder, on_completed=recorder.complete).dispose()
    await bus.aclose()
    assert recorder.names == []


async def test_one_raising_observer_hurts_nobody(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    def fail_to_complete() -> None:
        raise LookupError("completion")

    recorder = Recorder()
    bus.observable("x").subscribe(fail, on_completed=fail_to_complete)
    bus.observable("x").pipe(ops.map(fail)).subscribe()
    bus.observable("x").subscribe(recorder, on_completed=recorder.complete)
    bus.emit("x")
    bus.emit("x")
    await bus.aclose()
    assert recorder.names == ["x", "x", "(completed)"]
    assert "handler observable('x') failed at event x" in caplog.text
    assert "observable('x') failed at its completion" in caplog.text


async def test_disposing_a_subscription_does_not_cost_more_among_thousands(bus: EventBus) -> None:
    alone = bus.observable("order.created").subscribe(Recorder())
    cost = steps(alone.dispose)
    subscriptions = [bus.observable("order.created").subscribe(Recorder()) for _ in range(5_000)]
    assert steps(subscriptions[2_500].dispose) <= cost


def test_an_observable_of_a_wrong_pattern_is_refused_before_anybody_subscribes() -> None:
    with pytest.raises(InvalidEventName):
        EventBus().observable("order..created")
