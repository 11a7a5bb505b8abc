"""Frames of every kind and cut, right and wrong: what the hub reads is what `wsproto` reads."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from hub.web.websocket.frames import BrokenFrame, FrameReader
from tests.web.server import Server
from tests.wires.frames import said
from tests.wires.wire import SocketReader

LIMIT = 4_096
KINDS = [0, 1, 2, 8, 9, 10]


@st.composite
def framed(draw: st.DrawFn) -> bytes:
    """Return a frame, mostly right."""
    opcode = draw(st.sampled_from(KINDS) | st.integers(0, 15))
    final = draw(st.sampled_from([True, True, True, False]))
    reserved = draw(st.sampled_from([0] * 12 + [0x10, 0x20, 0x40]))
    payload = draw(
        st.text(max_size=40).map(str.encode)
        | st.binary(max_size=20)
        | st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x0b\xb8", b"\x00\x00", b"\xc3", b"\xa9"])
        | st.integers(0, 300).map(lambda size: b"x" * size)
    )
    mask = draw(st.binary(min_size=4, max_size=4))
    masked = draw(st.sampled_from([True] * 12 + [False]))
    size = len(payload)
    # A length that takes more bytes than it needs is wrong, too (RFC 6455, 5.2).
    if size < 126:
        length = bytes([size | (0x80 if masked else 0)])
    else:
        length = bytes([126 | (0x80 if masked else 0)]) + struct.pack("!H", size)
    body = bytes(each ^ mask[place % 4] for place, each in enumerate(payload)) if masked else payload
    return bytes([(0x80 if final else 0) | reserved | opcode]) + length + (mask if masked else b"") + body


def read_by_hub(parts: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """Return what the hub reads of *parts*, and whether it finds something wrong."""
    reader = FrameReader(LIMIT)
    found: list[tuple[int, bytes]] = []
    try:
        for part in parts:
            for each in reader.feed(part):
                found.append((each.opcode, each.payload))
            if reader.idle:  # as an idle socket does
                reader = FrameReader(LIMIT)
    except BrokenFrame:
        return found, True
    return found, False


def read_by_wsproto(data: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Return what `wsproto` reads of *data*, and whether it finds something wrong."""
    protocol = FrameProtocol(client=False, extensions=[])
    found: list[tuple[int, bytes]] = []
    kind, message = Opcode.TEXT, b""
    protocol.receive_bytes(data)
    try:
        for frame in protocol.received_frames():
            payload: Any = frame.payload
            if frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION}:
                kind = frame.opcode if frame.opcode is not Opcode.CONTINUATION else kind
                message += payload.encode() if isinstance(payload, str) else bytes(payload)
                if frame.message_finished:
                    found.append((kind, message))
                    message = b""
            elif frame.opcode is Opcode.CLOSE:
                found.append((frame.opcode, (payload[1] or "").encode()))
            else:
                found.append((frame.opcode, bytes(payload)))
    except ParseFailed:
        return found, True
    return found, False


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    frames=st.lists(framed(), max_size=6), tail=st.binary(max_size=3), cuts=st.lists(st.integers(1, 30), max_size=30)
)
def test_the_hub_reads_what_wsproto_reads_wherever_it_is_cut(frames: list[bytes], tail: bytes, cuts: list[int]) -> None:
    data = b"".join(frames) + tail
    parts, place = [], 0
    for cut in cuts:
        parts.append(data[place : place + cut])
        place += cut
    parts.append(data[place:])
    (ours, wrong), (theirs, wrong_there) = read_by_hub(parts), read_by_wsproto(data)
    if all(Opcode.CLOSE in [kind for kind, _ in each] for each in (ours, theirs)):
        # Nothing that follows the close counts.
        ours, theirs = (each[: [kind for kind, _ in each].index(Opcode.CLOSE) + 1] for each in (ours, theirs))
        wrong = wrong_there
    if not wrong and not wrong_there:
        assert ours == theirs
    else:  # one of them may see it in the header, or in a fragment, the other with the last byte of the message
        shorter, longer = sorted((ours, theirs), key=len)
        assert longer[: len(shorter)] == shorter


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_by_hub([data[place : place + 7] for place in range(0, len(data), 7)])


def test_many_empty_fragments_and_a_trickle_hold_little() -> None:
    reader = FrameReader(LIMIT)
    assert list(reader.feed(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 10_000)) == []
    assert len(reader._message) + len(reader._unread) == 0
    for _ in range(LIMIT // 2):
        assert list(reader.feed(b"\x00\x82\0\0\0\0xx")) == []
    with pytest.raises(BrokenFrame, match="may have"):
        list(reader.feed(b"\x00\x82\0\0\0\0xx"))
    assert len(reader._message) <= LIMIT + 2


@pytest.mark.slow
@settings(max_examples=60, deadline=None, phases=[Phase.generate])  # each that fails waits for something: no shrinking
@given(frames=st.lists(framed(), max_size=8), cut=st.integers(0, 60))
def test_a_hub_survives_them_all(frames: list[bytes], cut: int) -> None:
    """Never a hang, never a leak; nothing is logged, and others go on."""

    async def example() -> None:
        server = await Server.start({"heartbeat": 3600})
        try:
            bad, good = SocketReader(server), SocketReader(server, "a")
            await bad.open()
            await good.open()
            data = b"".join(frames)
            await bad._send(data[:cut])
            await bad._send(data[cut:])
            await bad._send(said({"op": "ping"}))
            assert (await good.answer({"op": "ping"}))["op"] == "ok"  # it has subscribed
            server.send("x", topic="a")
            while (await good.message()).get("data") != "x":
                pass
            bad.client.close()
            good.client.close()
            await server.deserted()
        finally:
            await server.aclose()

    asyncio.run(example())
