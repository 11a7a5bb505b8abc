"""Bytes of a stream, taken apart for a test to look at: chunks first, then blocks."""

from __future__ import annotations

from typing import NamedTuple

from tests.spec_decoder import SpecDecoder
from tests.web.client import Chunks


class Block(NamedTuple):
    """One whole block. `data` is None if a browser dispatches nothing; `id` is empty if the block has none."""

    type: str
    data: str | None
    id: str
    retry: int | None


def dechunk(stream: bytes) -> bytes:
    """Return the body that a chunked answer carries so far, cut wherever *stream* is cut."""
    return Chunks().feed(stream)


def blocks(body: bytes) -> list[Block]:
    """Return the whole blocks of *body*; what is cut in the middle is not there, as the standard has it."""
    return [_read(block + b"\n\n") for block in body.split(b"\n\n")[:-1]]


def _read(block: bytes) -> Block:
    decoder = SpecDecoder()
    events = decoder.feed(block)
    assert len(events) <= 1
    assert not decoder.unknown
    type, data = (events[0].type, events[0].data) if events else ("message", None)
    return Block(type, data, decoder.last_event_id, decoder.retry)
