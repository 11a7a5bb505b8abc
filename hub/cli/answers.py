"""What a hub has answered, before a command trusts it: whatever is at the address may have written it.

A text of it reaches a terminal, where control characters move the cursor, rename the window or hide what else is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 1_000

Shape = Callable[[Any], bool] | Mapping[str, Any]
"""What a value has to be: a question, or an object with at least these fields, each of its own shape."""


def printable(text: object, *, most: int = LONGEST, keep: str = "") -> str:
    """Return *text* with its control and format characters as escapes, as in a literal, cut to *most* characters.

    Args:
        text: anything; an object is shown as `str` does it.
        most: how long it may be.
        keep: characters that stay as they are.
    """
    shown = str(text)
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in shown
    )


def read(body: bytes | bytearray) -> Any:
    """Return what the JSON in *body* says; None if it is none, or is nested without end."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def fits(said: Any, shape: Shape) -> bool:
    """Return whether *said* is of the *shape* that a command reads."""
    if isinstance(shape, Mapping):
        return isinstance(said, Mapping) and all(
            name in said and fits(said[name], each) for name, each in shape.items()
        )
    return shape(said)


def number(said: Any) -> bool:
    """Return whether *said* is a number that can be counted with."""
    return isinstance(said, int | float) and math.isfinite(said) and abs(said) < 2**63


def whole(said: Any) -> bool:
    """Return whether *said* is a whole number."""
    return isinstance(said, int) and number(said)


def text(said: Any) -> bool:
    """Return whether *said* is a text."""
    return isinstance(said, str)


def flag(said: Any) -> bool:
    """Return whether *said* is true or false."""
    return isinstance(said, bool)


def maybe(shape: Shape) -> Callable[[Any], bool]:
    """Return the question whether something is null, or of *shape*."""
    return lambda said: said is None or fits(said, shape)


def every(shape: Shape) -> Callable[[Any], bool]:
    """Return the question whether something is an object, whose values are all of *shape*."""
    return lambda said: isinstance(said, Mapping) and all(fits(each, shape) for each in said.values())


def histogram(said: Any) -> bool:
    """Return whether *said* is what a histogram has counted."""
    if not fits(said, {"count": whole, "sum": number, "buckets": every(whole)}):
        return False
    try:
        return all(not math.isnan(float(name)) for name in said["buckets"])
    except ValueError:
        return False
