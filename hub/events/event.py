"""Events of the application, the grammar of their names, and the decorator that marks their handlers.

A name is `.`-separated segments (`order.created`). A pattern is a name in which whole segments may be `*`
(exactly one segment) or `**` (zero or more segments), anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from hub.errors import InvalidEventName
from hub.names import fault

_MARK = "__hub_on_event__"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened inside the application.

    `id` is unique; `at` is in seconds since 1970. Two events with the same id are equal, whatever they carry.
    """

    name: str
    payload: Any = field(compare=False)
    id: str
    at: float


F = TypeVar("F", bound=Callable[..., object])


def check_event_name(name: str) -> str:
    """Return *name* if it is a valid event name.

    Raises:
        InvalidEventName: it breaks the grammar, or is a pattern.
    """
    check_event_pattern(name)
    if "*" in name:
        raise InvalidEventName(name, "is a pattern: an event needs a name without '*'")
    return name


def check_event_pattern(pattern: str) -> str:
    """Return *pattern* if it is a valid event name or pattern.

    Raises:
        InvalidEventName: it breaks the grammar.
    """
    why = fault(pattern, ".")
    if why:
        raise InvalidEventName(pattern, why)
    return pattern


def check_event_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return *patterns* as a tuple if there is at least one and all are valid.

    Raises:
        InvalidEventName: one breaks the grammar.
        ValueError: *patterns* is empty.
    """
    checked = tuple(map(check_event_pattern, patterns))
    if not checked:
        raise ValueError("a handler needs at least one event name or pattern")
    return checked


class Hearing(NamedTuple):
    """The patterns and options that a method was marked with by `on_event`."""

    patterns: tuple[str, ...]
    priority: int
    once: bool


def on_event(*patterns: str, priority: int = 0, once: bool = False) -> Callable[[F], F]:
    """Mark a method of a listener class as the handler of the events that match any of *patterns*.

    One event calls it once, however many patterns match. A method may be marked several times; the patterns add up.

    Args:
        patterns: at least one name or pattern.
        priority: higher is called earlier; equal priorities in the order of registration.
        once: call the method for the first event only.

    Raises:
        InvalidEventName: a pattern breaks the grammar.
        ValueError: there is no pattern, or a second mark has another *priority* or *once*.
    """
    checked = check_event_patterns(patterns)

    def mark(function: F) -> F:
        earlier = hearing_of(function) or Hearing((), priority, once)
        if (earlier.priority, earlier.once) != (priority, once):
            raise ValueError(f"{qualified_name(function)} is marked twice, with different options")
        setattr(_unbound(function), _MARK, Hearing((*checked, *earlier.patterns), priority, once))
        return function

    return mark


def hearing_of(method: object) -> Hearing | None:
    """Return the mark that `on_event` put on *method*, or None."""
    mark = getattr(_unbound(method), _MARK, None)
    return mark if isinstance(mark, Hearing) else None


def _unbound(method: object) -> object:
    """Return the function inside a static, class or bound method: the mark is stored there."""
    return getattr(method, "__func__", method)


def qualified_name(handler: Callable[..., object]) -> str:
    """Return the module and qualified name of *handler*, for logs and errors; of a `partial`, its function's."""
    while isinstance(handler, partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"
