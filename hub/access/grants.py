"""What somebody may read or publish: patterns that are granted, and what they cover.

A grant is matched as a subscription is: a wildcard in its first segment does not reach the reserved topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hub.patterns import Patterns, canonical
from hub.topics import MAX_SEGMENTS, RESERVED, is_pattern

REMEMBERED = 1_024
COMPILED = 128


@dataclass(frozen=True, slots=True)
class Grants:
    """Topics and patterns that are granted. Equal ones are equal, in whatever order they were given.

    Attributes:
        patterns: the topics and patterns, each once, in order. They have been checked.
    """

    patterns: tuple[str, ...]
    _named: frozenset[str] = field(repr=False, compare=False)
    _wild: frozenset[str] = field(repr=False, compare=False)

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        named = frozenset(patterns)
        object.__setattr__(self, "patterns", tuple(sorted(named)))
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_wild", frozenset(filter(is_pattern, named)))

    def cover(self, asked: str) -> bool:
        """Return whether a grant covers *asked*, a topic or a pattern.

        Grants do not add up: `a` and `a/*/**` together reach all that `a/**` does, but neither of them covers it.
        """
        if asked in self._named:
            return True
        if not self._wild:
            return False
        if not is_pattern(asked):  # one grant that matches a topic covers it, and all are compared at the same time
            return _compiled(self._wild).match(asked)
        return any(covers(grant, asked) for grant in self._wild)


# Users have a topic of their own, but mostly the same patterns: they share what is compiled.
@lru_cache(maxsize=COMPILED)
def _compiled(patterns: frozenset[str]) -> Patterns:
    return Patterns(patterns, RESERVED)


@lru_cache(maxsize=REMEMBERED)
def covers(grant: str, pattern: str) -> bool:
    """Return whether every topic that *pattern* matches is matched by *grant*; both may be plain topics.

    This is exact for topics of at most 16 segments of any text. Both have been checked.
    """
    wanted, granted = pattern.split("/"), grant.split("/")
    if wanted[0] != granted[0] and ("*" not in granted[0] or wanted[0] in RESERVED):
        return False  # most are told apart by that
    return _contained(canonical(wanted), canonical(granted[::-1])[::-1])


def _contained(wanted: Sequence[str], granted: Sequence[str]) -> bool:
    """Look for a topic that *wanted* matches and *granted* does not, and return whether there is none.

    Segments that wildcards of *wanted* stand for are all made the same one, which nobody names: if that is matched, any
    is. Topics grow by a segment at a time, all of them together: what counts of one is how far *wanted* is matched, and
    the places up to which *granted* may be, as the bits of a number; so topics that agree in both are one. In *granted*
    each `**` comes before the `*` beside it: with a `**` that is reached, no place before it counts any more.
    """
    masks, stars, repeats, end = _bits(granted)
    least = [sum(segment != "**" for segment in wanted[place:]) for place in range(len(wanted) + 1)]
    now = {(0, 1)}
    seen: set[tuple[int, int]] = set()  # but for the empty topic, which does not count
    for left in range(MAX_SEGMENTS, -1, -1):  # segments that may still come
        grown: set[tuple[int, int]] = set()
        for place, state in _with_empty_repeats(now, wanted):
            if place == len(wanted):
                if left < MAX_SEGMENTS and not state & end:  # there is no empty topic
                    return False
                continue
            segment = wanted[place]
            if segment in RESERVED and place and left == MAX_SEGMENTS:
                continue  # in the first place of the topic, but not of the pattern: that does not match
            following = place if segment == "**" else place + 1
            if least[following] >= left:
                continue  # it would be too long
            mask = stars if segment in {"*", "**"} else masks.get(segment, stars)
            after = (state & mask) << 1 | state & repeats
            if not after:
                return False
            reached = after & repeats
            after &= -(1 << reached.bit_length() - 1) if reached else -1
            if (following, after) not in seen and after & repeats & end != after:
                seen.add((following, after))
                grown.add((following, after))
        now = grown
    return True


def _bits(granted: Sequence[str]) -> tuple[dict[str, int], int, int, int]:
    """Return, as bits of places: those where each segment goes on, where any does, where `**` stays, and the end."""
    masks: dict[str, int] = {}
    stars = repeats = 0
    bit = 1
    for segment in granted:
        if segment == "**":
            repeats |= bit
            continue
        if segment == "*":
            stars |= bit
        else:
            masks[segment] = masks.get(segment, 0) | bit
        bit <<= 1
    return {segment: mask | stars for segment, mask in masks.items()}, stars, repeats, bit


def _with_empty_repeats(now: Iterable[tuple[int, int]], wanted: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield what is there *now*, and the same behind each `**` that stands for nothing more."""
    for place, state in now:
        yield place, state
        if place < len(wanted) and wanted[place] == "**":
            yield place + 1, state
