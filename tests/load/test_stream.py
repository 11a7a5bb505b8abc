"""From the bytes of an answer to what they say, wherever they are cut."""

from __future__ import annotations

import json

import pytest

from hub.eventstream import LAST_CHUNK, block, chunk
from hub.load.stream import END, KNOWN, Answer, MalformedAnswer, Mark, Reader, Stream, draft, refusal
from hub.notification import Draft

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RUN = "me"
OPENED = block('{"recovered":null}', type="hub.open", id="k-0", retry=2500)


def event(number: int, run: str = RUN) -> bytes:
    fields = json.loads(draft(run, "load/x", Mark(number, 1000 + number)))
    return block(json.dumps(fields["data"]), type=fields["type"], id=f"k-{number}")


def test_a_draft_of_the_load_is_one_that_the_hub_accepts() -> None:
    draft_ = Draft.from_json(json.loads(draft(RUN, "load/x", Mark(7, 1234), "xx")))
    assert (draft_.topics, draft_.type, draft_.key) == (("load/x",), "load.me", "me-7")
    frame = block(draft_.text, type=draft_.type)
    assert Reader(RUN).read(frame).marks == (Mark(7, 1234),)


@pytest.mark.parametrize("data", ["hello", "[1]", "{}", "[1,2,3]", "1" * 5000])
def test_what_others_publish_is_no_mark(data: str) -> None:
    assert Reader(RUN).read(block(data) + block(data, type="load.you")).marks == ()


def test_blocks_are_whole_wherever_the_bytes_are_cut() -> None:
    beat = block(id="k-1", comment="")
    body = (OPENED, event(0), beat, event(2) + event(3))
    wire = HEAD + b"".join(chunk(part) for part in body) + LAST_CHUNK
    for cut in range(len(wire) + 1):
        stream = Stream()
        assert stream.blocks(wire[:cut]) + stream.blocks(wire[cut:]) == b"".join(body)
        assert stream.status == 200
        assert stream.ended
    stream = Stream()
    assert b"".join(stream.blocks(wire[at : at + 1]) for at in range(len(wire))) == b"".join(body)


def test_a_block_may_be_spread_over_chunks() -> None:
    stream, whole = Stream(), event(5)
    assert stream.blocks(HEAD + chunk(whole[:10])) == b""
    assert not stream.between
    assert stream.blocks(chunk(whole[10:])) == whole
    assert stream.between


def test_a_stream_without_chunks_ends_with_its_length_or_never() -> None:
    sized = Stream()
    assert sized.blocks(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nretry: 2000\n\nmore") == b"retry: 2000\n\n"
    assert sized.ended
    endless = Stream()
    assert endless.blocks(b"HTTP/1.0 200 OK\r\n\r\nretry: 2000\n\nid") == b"retry: 2000\n\n"
    assert not endless.ended
    assert not endless.between


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        HEAD + b"xyz\r\n",
        HEAD + b"-5\r\nhello\r\n",
        HEAD + b"fffffff\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5_000_000,
    ],
)
def test_what_is_not_a_stream_is_malformed(wire: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        Stream().blocks(wire)


def test_a_block_without_end_is_malformed() -> None:
    stream = Stream()
    stream.blocks(HEAD)
    for _ in range(4):
        stream.blocks(chunk(b"x" * 1024 * 1024))
    with pytest.raises(MalformedAnswer, match="4 MiB"):
        stream.blocks(chunk(b"x"))


def test_a_reading_tells_marks_cursor_retry_and_notices() -> None:
    reader = Reader("me")
    reading = reader.read(OPENED + event(1) + event(9, run="you"))
    assert reading.marks == (Mark(1, 1001),)
    assert (reading.cursor, reading.retry, reading.end, reading.plain) == ("k-9", 2.5, False, False)
    assert (reading.notices, reading.gap) == (("hub.open",), "")
    assert reader.read(event(1)).plain


def test_a_heartbeat_moves_the_cursor_and_nothing_else() -> None:
    reading = Reader("me").read(block(id="k-77", comment=""))
    assert (reading.marks, reading.cursor, reading.plain) == ((), "k-77", True)


def test_the_end_of_the_run_is_not_an_event_of_it() -> None:
    reading = Reader(RUN).read(event(END.number).replace(b"999", b"0"))
    assert (reading.marks, reading.end, reading.plain) == ((), True, False)


@pytest.mark.parametrize(
    ("data", "gap"),
    [
        ('{"recovered":false,"reason":"trimmed"}', "trimmed"),
        ('{"recovered":true}', ""),
        ('{"recovered":false}', ""),
        ("what?", ""),
        ("[]", ""),
    ],
)
def test_a_stream_that_could_not_be_resumed_says_why(data: str, gap: str) -> None:
    reading = Reader(RUN).read(block(data, type="hub.open") + block(data, type="hub.gap"))
    assert (reading.notices, reading.gap) == (("hub.open", "hub.gap"), gap)


def test_bytes_that_come_again_are_read_once() -> None:
    reader, received = Reader(RUN), chunk(event(1) + event(2))
    reading = reader.whole(received)
    assert reading is not None
    assert reading.marks == (Mark(1, 1001), Mark(2, 1002))
    assert reader.whole(bytes(bytearray(received))) is reading


def test_bytes_that_end_within_a_chunk_or_a_block_are_not_read_for_everybody() -> None:
    wire = chunk(event(1)[:-1]) + chunk(b"\n" + event(2))
    whole = [end for end in range(len(wire) + 1) if Reader(RUN).whole(wire[:end]) is not None]
    assert whole == [0, len(wire)]
    assert Reader(RUN).whole(LAST_CHUNK) is None


def test_no_more_is_remembered_than_the_bound() -> None:
    reader = Reader(RUN)
    for number in range(2 * KNOWN):
        reader.whole(chunk(event(number)))
    assert reader.whole.cache_info().currsize == KNOWN


def test_a_refusal_tells_what_the_problem_document_says() -> None:
    said = str(refusal("POST /p", 403, b'{"title": "Forbidden", "detail": "no grant"}'))
    assert said == "POST /p was answered with 403: no grant"
    assert str(refusal("GET /s", 404, b"<html>")) == "GET /s was answered with 404: is this a hub?"
    assert "not HTTP" in str(refusal("GET /s", 0, b""))


@pytest.mark.parametrize(
    ("head", "closes"),
    [(b"HTTP/1.1 200 OK", False), (b"HTTP/1.0 200 OK", True), (b"HTTP/1.1 200 OK\r\nConnection: Close", True)],
)
def test_an_answer_says_whether_the_connection_ends_with_it(head: bytes, closes: bool) -> None:
    answer = Answer()
    assert answer.feed(head + b"\r\nContent-Length: 2\r\n\r\n{") + answer.feed(b"}") == b"{}"
    assert (answer.status, answer.ended, answer.closes) == (200, True, closes)
