"""Frames as a client writes and reads them; by `wsproto`, not by what the hub uses."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from wsproto.frame_protocol import FrameProtocol, Opcode


class Frame(NamedTuple):
    """One whole message, or a control frame."""

    opcode: Opcode
    payload: Any

    def json(self) -> Any:
        assert self.opcode is Opcode.TEXT, self
        return json.loads(self.payload)


class Frames:
    """The frames of one connection, as a client sees them."""

    def __init__(self) -> None:
        self._protocol = FrameProtocol(client=True, extensions=[])
        self._parts: list[Any] = []

    def feed(self, data: bytes) -> list[Frame]:
        """Return what *data* completes."""
        found = []
        self._protocol.receive_bytes(data)
        for frame in self._protocol.received_frames():
            if frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION}:
                self._parts.append(frame.payload)
                if not frame.message_finished:
                    continue
                joined = ("" if isinstance(self._parts[0], str) else b"").join(self._parts)
                self._parts = []
                found.append(Frame(frame.opcode, joined))
            else:
                found.append(Frame(frame.opcode, frame.payload))
        return found


def frames(data: bytes) -> list[Frame]:
    """Return the frames in *data*."""
    return Frames().feed(data)


def messages(data: bytes) -> list[Any]:
    """Return the JSON messages in *data*."""
    return [each.json() for each in frames(data) if each.opcode is Opcode.TEXT]


def said(message: Any) -> bytes:
    """Return *message*, as a client sends it: bytes in a binary frame, anything else as JSON."""
    return bytes(_client().send_data(message)) if isinstance(message, bytes) else text(json.dumps(message))


def text(payload: str) -> bytes:
    """Return a text, as a client sends it."""
    return bytes(_client().send_data(payload))


def masked(framed: bytes) -> bytes:
    """Return *framed*, a frame as the hub writes it, as a client would send it: with a mask, of zeros."""
    size = {126: 4, 127: 10}.get(framed[1], 2)
    return framed[:1] + bytes([framed[1] | 0x80]) + framed[2:size] + bytes(4) + framed[size:]


def close(code: int = 1000, reason: str = "") -> bytes:
    """Return the close frame of a client."""
    return bytes(_client().close(code, reason))


def pong(payload: bytes = b"") -> bytes:
    """Return the pong of a client."""
    return bytes(_client().pong(payload))


def ping(payload: bytes = b"") -> bytes:
    """Return a ping of a client."""
    return bytes(_client().ping(payload))


def _client() -> FrameProtocol:
    return FrameProtocol(client=True, extensions=[])
