"""What the blocks of a stream say, found out once for all connections that receive the same bytes."""

from __future__ import annotations

from typing import NamedTuple

from hub.demo.load.mark import END, Mark, mark_of
from hub.sse import Decoder, Message

MAX_KNOWN = 256
MAX_KNOWN_BYTES = 16 * 1024


class Reading(NamedTuple):
    """What some blocks say to a subscriber.

    Attributes:
        marks: the events of this run.
        cursor: the id to resume from, empty if the blocks bring none.
        retry: seconds until the return after a lost connection, if the blocks say so.
        notices: what the hub says about the stream (`hub.open`, `hub.gap`, …).
        end: the run is over for whoever reads this.
        plain: there is nothing here beside marks and a cursor.
    """

    marks: tuple[Mark, ...]
    cursor: str
    retry: float | None
    notices: tuple[Message, ...]
    end: bool
    plain: bool


class Reader:
    """Reads the blocks of one run. Equal bytes say the same to everybody, so they are read once.

    Attributes:
        known: readings by the bytes that were received, at most 4 MiB of them.
    """

    def __init__(self, run: str) -> None:
        self.known: dict[bytes, Reading] = {}
        self._run = run

    def read(self, blocks: bytes) -> Reading:
        """Return what *blocks* say; they are whole and end with LF, as the hub writes them."""
        decoder = Decoder()
        messages = list(decoder.feed(blocks))
        notices = tuple(message for message in messages if message.type.startswith("hub."))
        found = [mark_of(message, self._run) for message in messages if not message.type.startswith("hub.")]
        marks = tuple(mark for mark in found if mark is not None and mark.number >= 0)
        retry = None if decoder.retry is None else decoder.retry / 1000
        end = END in found
        plain = not notices and retry is None and not end
        return Reading(marks, decoder.last_event_id, retry, notices, end, plain)

    def remember(self, received: bytes, reading: Reading) -> None:
        """Keep *reading* for the next stream that receives the same bytes between two blocks."""
        if len(received) <= MAX_KNOWN_BYTES:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[received] = reading
