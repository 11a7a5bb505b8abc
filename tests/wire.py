"""Decoders for the bytes of a stream: of chunks, and of SSE blocks."""

from __future__ import annotations

from typing import NamedTuple

from tests.spec_decoder import SpecDecoder
from tests.web.client import Chunks


class Block(NamedTuple):
    """One complete block. `data` is None if a browser dispatches no event; `id` is empty if the block has none."""

    type: str
    data: str | None
    id: str
    retry: int | None


def dechunk(stream: bytes) -> bytes:
    """Return the body in *stream*, the first bytes of a chunked body, cut anywhere."""
    return Chunks().feed(stream)


def blocks(body: bytes) -> list[Block]:
    """Return the complete blocks of *body*; an incomplete one at the end is ignored, as the standard says."""
    return [_read(block + b"\n\n") for block in body.split(b"\n\n")[:-1]]


def _read(block: bytes) -> Block:
    decoder = SpecDecoder()
    events = decoder.feed(block)
    assert len(events) <= 1
    assert not decoder.unknown
    type, data = (events[0].type, events[0].data) if events else ("message", None)
    return Block(type, data, decoder.last_event_id, decoder.retry)
