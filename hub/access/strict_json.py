"""JSON that has only one meaning: no member twice, no number that JSON does not know, bounded nesting."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # RFC 8259 leaves it open which of them counts: two readers could see two different rights.
        raise ValueError("has a member twice")
    return members


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("has a number that is too large")
    return number


def _constant(text: str) -> NoReturn:
    raise ValueError(f"has {text}, which is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_float=_number, parse_constant=_constant).decode


def object_in(data: bytes) -> dict[str, Any]:
    """Return the JSON object in *data*.

    Raises:
        ValueError: what is wrong, for a sentence that begins with the name of the text; no part of *data* is in it.
    """
    try:
        value = _decode(data.decode())
    except (UnicodeDecodeError, RecursionError, json.JSONDecodeError):
        raise ValueError("is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - content, not a type of Python
    return value
