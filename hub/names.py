"""Names: the grammar that topics (`user/42`) and events (`order.created`) share, and the detection of typos."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

MAX_NAME_BYTES = 256
ALIKE = 0.7
"""Minimum similarity, from 0 to 1, of a name to a known one for a hint."""
LONG = 8
"""Number of letters from which a known name may have two slips: it hardly becomes another word."""

# Control and format characters are invisible in a log; surrogates can't be encoded in UTF-8.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs"})


def fault(name: object, separator: str, most_segments: int = MAX_NAME_BYTES) -> str:
    """Return what is wrong with *name* as a name or pattern; empty if it is valid.

    A name has 1 to *most_segments* non-empty segments with *separator* between them, at most 256 bytes in UTF-8, and
    no control or format character. In a pattern, whole segments may be `*` or `**`.
    """
    if not isinstance(name, str):
        return "is not a string"
    if len(name) > MAX_NAME_BYTES:  # not into the cache, which has a maximum number of entries but not of bytes
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
    """Return *name* in lower case, without hyphens and underscores: equal for all spellings of the same name."""
    return name.replace("-", "").replace("_", "").lower()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name in *known* that is most similar to *name*; empty if none is similar enough.

    This is tolerant: it is for hints about names that are wrong in any case. For names that are valid unless they are
    typos, use `mistyped`.
    """
    spelled = {plain(each): each for each in known}
    found = get_close_matches(plain(name[:MAX_NAME_BYTES]), spelled, n=1, cutoff=ALIKE)
    return spelled[found[0]] if found else ""


def mistyped(name: str, known: Iterable[str]) -> str:
    """Return the name in *known* of which *name* is another spelling or a typo; empty if there is none.

    A typo begins with the right letter. If the known name has 8 letters or more, a typo may have two slips (a letter
    too many, too few, or swapped with its neighbour) or one wrong letter. A shorter name easily becomes another word
    (`tonic`, `tropic` and `topical` are no `topic`): its typos have one letter left out, typed twice, added at the end,
    or swapped with its neighbour.
    """
    said = plain(name)
    return next((each for each in known if _is_typo(said, plain(each))), "")


def _is_typo(said: str, meant: str) -> bool:
    most = 2 if len(meant) >= LONG else 1
    if said[:1] != meant[:1] or abs(len(said) - len(meant)) > most:
        return False
    if most == 1 and len(said) > len(meant):
        return said.startswith(meant) or any(said == meant[:at] + meant[at - 1 :] for at in range(1, len(meant)))
    return _slips(said, meant) <= most


def _slips(said: str, meant: str) -> int:
    """Return the number of slips: letters too many, too few or swapped with their neighbour; a wrong letter counts two.

    This is the optimal string alignment distance without replacements; each row adds one letter of *said*.
    """
    above, row = list[int](), list(range(len(meant) + 1))
    for i, letter in enumerate(said):
        two_above, above, row = above, row, [i + 1]
        for j, wanted in enumerate(meant):
            slips = above[j] if letter == wanted else min(above[j + 1], row[j]) + 1
            if i and j and letter == meant[j - 1] and said[i - 1] == wanted:
                slips = min(slips, two_above[j - 1] + 1)
            row.append(slips)
    return row[-1]


def hint(name: str, known: Iterable[str]) -> str:
    """Return `did you mean …? ` with the name in *known* that is similar to *name*; empty if none is."""
    meant = nearest(name, known)
    return f"did you mean {meant}? " if meant else ""
