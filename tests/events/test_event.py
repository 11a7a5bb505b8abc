"""Names, patterns and the mark `on_event`."""

import pytest

from hub.errors import InvalidEventName
from hub.events.bus import EventBus
from hub.events.event import Event, check_event_name, check_event_pattern, hearing_of, on_event
from tests.events.handlers import fail

# ---- names and patterns ----


@pytest.mark.parametrize("name", ["order", "order.created", "订单.创建", "a b.c/d", "x" * 256])
def test_a_name_of_nonempty_segments_is_accepted(name: str) -> None:
    assert check_event_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        (".", "empty segment"),
        ("order.", "empty segment"),
        ("order..created", "empty segment"),
        ("order\n.created", "control"),
        ("order\u202e.created", "format"),
        ("\ud800", "UTF-8"),
        ("x" * 257, "256 bytes"),
        ("单" * 86, "256 bytes"),
        ("x" * 100_000, "256 bytes"),
        ("order.cre*", "whole segments"),
        (7, "not a string"),
    ],
)
def test_a_name_that_breaks_the_grammar_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(InvalidEventName, match=why):
        check_event_pattern(name)
    with pytest.raises(InvalidEventName, match=why):
        EventBus().emit(name)
    with pytest.raises(InvalidEventName, match=why):
        on_event("order.created", name)


@pytest.mark.parametrize("name", ["*", "**", "order.*", "**.created"])
def test_a_pattern_cannot_be_emitted(name: str) -> None:
    assert check_event_pattern(name) == name
    with pytest.raises(InvalidEventName, match="is a pattern"):
        EventBus().emit(name)


# ---- marks ----


def test_on_event_marks_a_function_and_returns_it() -> None:
    marked = on_event("order.created", "order.paid", priority=3, once=True)(fail)
    try:
        assert marked is fail
        assert hearing_of(fail) == (("order.created", "order.paid"), 3, True)
    finally:
        vars(fail).clear()
    assert hearing_of(fail) is None


def test_marks_on_one_function_add_up_if_their_options_agree() -> None:
    @on_event("order.created")
    @on_event("order.paid")
    def both(_: Event) -> None: ...

    hearing = hearing_of(both)
    assert hearing is not None
    assert hearing.patterns == ("order.created", "order.paid")
    with pytest.raises(ValueError, match="both is marked twice"):
        on_event("order.shipped", priority=1)(both)


def test_on_event_needs_at_least_one_pattern() -> None:
    with pytest.raises(ValueError, match="at least one"):
        on_event()
