"""Names in segments: the grammar that topics (`user/42`) and events (`order.created`) share; and typos of names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

MAX_NAME_BYTES = 256

# Control, format and surrogate characters: nothing a reader of a log could not see, nothing UTF-8 cannot carry.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs"})


def fault(name: object, separator: str, most_segments: int = MAX_NAME_BYTES) -> str:
    """Say what is wrong with *name* as a name or pattern; empty if nothing is.

    A name has 1 to *most_segments* segments with *separator* between them, none of them empty, at most 256 bytes in
    UTF-8 and no control or format character. In a pattern whole segments may be `*` or `**`.
    """
    if not isinstance(name, str):
        return "is not a string"
    if len(name) > MAX_NAME_BYTES:  # what is too long stays out of the cache, which is bounded in entries only
        return _TOO_LONG
    return _fault(name, separator, most_segments)


_TOO_LONG = f"is longer than {MAX_NAME_BYTES} bytes"


@lru_cache(maxsize=8192)
def _fault(name: str, separator: str, most_segments: int) -> str:
    if any(unicodedata.category(character) in _FORBIDDEN for character in name):
        return "has a control or format character, or is not valid UTF-8"
    if len(name.encode()) > MAX_NAME_BYTES:
        return _TOO_LONG
    segments = name.split(separator)
    if "" in segments:
        return "has an empty segment" if name else "is empty"
    if len(segments) > most_segments:
        return f"has more than {most_segments} segments"
    if any("*" in segment and segment not in {"*", "**"} for segment in segments):
        return "has a '*' inside a segment: '*' and '**' stand for whole segments"
    return ""


def plain(name: str) -> str:
    """Return *name* without what its spellings differ in: capitals, hyphens and underscores."""
    return name.replace("-", "").replace("_", "").lower()


def nearest(name: str, known: Iterable[str], *, alike: float = 0.7) -> str:
    """Return the one of *known* that *name* is probably a typo of; empty if none is so much *alike* (0 to 1)."""
    spelled = {plain(each): each for each in known}
    found = get_close_matches(plain(name[:MAX_NAME_BYTES]), spelled, n=1, cutoff=alike)
    return spelled[found[0]] if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Return `did you mean …? ` for a typo of one of *known*; empty if *name* is like none of them."""
    meant = nearest(name, known)
    return f"did you mean {meant}? " if meant else ""
