"""Names in segments: the grammar that topics (`user/42`) and events (`order.created`) share; and typos of names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

MAX_NAME_BYTES = 256
ALIKE = 0.7
"""How much like a known name, from 0 to 1, is what may stand for it."""
LONG = 8
"""From so many letters on a name has hardly another word beside it, and room for two slips."""

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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the one of *known* that *name* may stand for; empty if it is like none of them.

    It is generous: it is for a hint about what is wrong anyway. `mistyped` is for what would be right otherwise.
    """
    spelled = {plain(each): each for each in known}
    found = get_close_matches(plain(name[:MAX_NAME_BYTES]), spelled, n=1, cutoff=ALIKE)
    return spelled[found[0]] if found else ""


def mistyped(name: str, known: Iterable[str]) -> str:
    """Return the one of *known* that *name* is another spelling or a typo of; empty if it is a name of its own.

    A typo begins with the right letter. A name of 8 letters or more may have two letters too many, too few or swapped
    with their neighbours, or one that is wrong. A shorter one is soon another word (`tonic`, `tropic` and `topical`
    are no `topic`): there it is one letter left out, typed twice, added at the end or swapped.
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
    """Count the letters that are too many, too few or swapped with their neighbour; a wrong one is both of the first.

    This is the distance of optimal string alignment without replacements; each row has one more letter of *said*.
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
    """Return `did you mean …? ` for a typo of one of *known*; empty if *name* is like none of them."""
    meant = nearest(name, known)
    return f"did you mean {meant}? " if meant else ""
