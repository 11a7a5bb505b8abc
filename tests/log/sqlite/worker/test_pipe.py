"""What goes over the pipe: it comes out as it went in, and what is cut is no message."""

from __future__ import annotations

import io
import os
import threading
from typing import Any

import pytest

from hub.eventstream import block, chunk
from hub.log.sqlite.worker.pipe import BEAT, PIPE_BYTES, SIZE, pack, receive, send

ROW = (7, 1_700_000_000.5, "a\nb/c", True, None, 86_400_000, False, '{"k":"é"}', 9, "ends\r\n", chunk(block("𝄞\nx")))
MESSAGES = [None, {}, {"rows": [ROW], "gone": {"a": 1 << 60}}, ("append", [ROW], [("k", 7, "a", 0.5)]), "\0", b"\xff"]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_comes_out_as_it_went_in(message: Any):
    sink = io.BytesIO()
    send(sink, message)
    assert sink.getvalue() == pack(message)
    assert receive(io.BytesIO(sink.getvalue())) == message


def test_messages_come_one_after_the_other_and_then_none():
    source = io.BytesIO(b"".join(map(pack, MESSAGES[1:])))
    assert [receive(source) for _ in MESSAGES[1:]] == MESSAGES[1:]
    assert receive(source) is None


def test_what_is_cut_anywhere_is_no_message():
    whole = pack(MESSAGES[2])
    for length in range(len(whole)):
        assert receive(io.BytesIO(whole[:length])) is None


def test_a_message_larger_than_the_pipe_goes_through_it_in_pieces():
    message = {"rows": [b"x" * PIPE_BYTES, "é" * PIPE_BYTES]}
    reading, writing = os.pipe()
    with open(reading, "rb") as source:  # noqa: PTH123 - it is a descriptor

        def fill() -> None:
            with open(writing, "wb") as sink:  # noqa: PTH123 - as above
                send(sink, message)

        sender = threading.Thread(target=fill)
        sender.start()
        assert receive(source) == message
        sender.join()


def test_a_beat_can_not_be_taken_for_a_message():
    assert SIZE.unpack(BEAT) == (0,)
    assert all(SIZE.unpack(pack(message)[: SIZE.size])[0] > 0 for message in MESSAGES)
