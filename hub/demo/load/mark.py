"""What a load event carries: the run it belongs to, its number, and the moment it was due."""

from __future__ import annotations

from typing import NamedTuple

from hub.sse import Message, compact_json


class Mark(NamedTuple):
    """One event of a run. *stamp* is when it was due, in nanoseconds of the monotonic clock."""

    number: int
    stamp: int


END = Mark(-1, 0)
"""Published last: who has read it has read everything that was meant for it."""


def draft(run: str, topic: str, mark: Mark, pad: str = "") -> str:
    """Return the JSON of the draft that publishes *mark*; its key makes a retry safe."""
    data = {"run": run, "n": mark.number, "t": mark.stamp, "pad": pad}
    return compact_json({"topic": topic, "key": f"{run}-{mark.number}", "data": data})


def mark_of(message: Message, run: str) -> Mark | None:
    """Return the mark in *message*, or None if it belongs to somebody else."""
    try:
        match message.json():
            case {"run": str(by), "n": int(number), "t": int(stamp)} if by == run:
                return Mark(number, stamp)
    except (ValueError, RecursionError):
        pass
    return None
