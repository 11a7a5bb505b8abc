import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidInput
from hub.sse import Decoder, Message, MessageEvent, block, chunk, compact_json, unchunk
from tests.wire import blocks

text = st.text(st.characters(exclude_categories=["Cs"]))
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


def lines(data: str) -> str:
    """What a client sees of data: every kind of line end is one LF."""
    return re.sub(r"\r\n|\r", "\n", data)


def test_a_block_reads_like_the_contract():
    assert block('{"a":1}', type="order.created", id="e-1", retry=9) == (
        b'retry: 9\nevent: order.created\nid: e-1\ndata: {"a":1}\n\n'
    )
    assert block("a\rb\nc\r\nd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert block(comment="", id="e-1") == b":\nid: e-1\n\n"
    assert block(retry=1) == b"retry: 1\n\n"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
        lambda values: st.lists(values) | st.dictionaries(text | st.integers() | st.booleans() | st.none(), values),
    )
)
def test_json_is_what_the_standard_library_makes_of_it(value: Any):
    assert compact_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def endless() -> list[object]:
    values: list[object] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        ([float("-inf")], ValueError),
        (object(), TypeError),
        ({(1,): 2}, TypeError),
        (endless(), RecursionError),
    ],
)
def test_what_is_not_json_is_refused_and_spoils_nothing(value: object, error: type[Exception]):
    with pytest.raises(error):
        compact_json(value)
    assert compact_json({"a": [1, None]}) == '{"a":[1,null]}'


@given(data=text, type=line, id=line, retry=st.integers(0, 10**6))
def test_what_was_encoded_is_what_a_browser_reads(data: str, type: str, id: str, retry: int):
    (read,) = blocks(block(data, type=type, id=id, retry=retry))
    assert (read.data, read.type, read.id, read.retry) == (lines(data), type, id, retry)


@given(comment=text)
def test_a_comment_dispatches_nothing(comment: str):
    assert all(b.data is None and b.type == "message" and not b.id for b in blocks(block(comment=comment)))


@given(parts=st.lists(st.tuples(text, line), max_size=5), cuts=st.lists(st.integers(1, 7), min_size=1))
def test_the_decoder_reads_what_the_standard_reads_wherever_it_is_cut(parts: list[tuple[str, str]], cuts: list[int]):
    stream = b"".join(block(data, id=id) for data, id in parts) + b":end\n\n"
    decoder = Decoder()
    got: list[Message] = []
    place = turn = 0
    while place < len(stream):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(stream[place : place + size])
        place, turn = place + size, turn + 1
    assert [(m.data, m.type, m.id) for m in got] == [(lines(data), "message", id) for data, id in parts]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_decoder_takes_every_line_end_and_a_byte_order_mark(end: bytes):
    decoder = Decoder()
    stream = b"\xef\xbb\xbf" + end.join([b"event: x", b"data: 1", b"data:2", b"id: 7", b"retry: 5", b"", b":c", b""])
    assert list(decoder.feed(stream + b":\n")) == [Message("1\n2", "x", "7")]
    assert (decoder.last_event_id, decoder.retry) == ("7", 5)


def test_the_cursor_moves_only_with_whole_blocks():
    decoder = Decoder("e-1")
    assert list(decoder.feed(b"id: e-2\n")) == []
    assert decoder.last_event_id == "e-1"
    assert list(decoder.feed(b"\n")) == []
    assert decoder.last_event_id == "e-2"


def test_fields_a_client_ignores():
    decoder = Decoder("e-1")
    assert list(decoder.feed(b"id: a\0b\nretry: 5x\nretry: -1\nnonsense\ndata\n\n")) == [Message("", "message", "e-1")]
    assert decoder.retry is None


@given(body=st.binary())
def test_a_chunk_holds_its_body(body: bytes):
    assert unchunk(chunk(body)) == body


@pytest.mark.parametrize("field", ["type", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rdata: x", "a\0", 7])
def test_an_event_lets_nothing_be_injected(field: str, value: object):
    with pytest.raises(InvalidInput, match=field):
        MessageEvent("x", **{field: value}).encode()  # type: ignore[arg-type]  # what a handler may give all the same


@pytest.mark.parametrize("retry", [-1, 1.5, True, "5"])
def test_an_event_takes_whole_milliseconds(retry: object):
    with pytest.raises(InvalidInput, match="retry"):
        MessageEvent("x", retry=retry).encode()  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("data", [object(), float("nan"), "\ud800", {"a": "\ud800"}])
def test_data_that_cannot_be_sent_is_named(data: object):
    with pytest.raises(InvalidInput, match="data"):
        MessageEvent(data).encode()


def test_anything_is_taken_as_data_but_an_event():
    event = MessageEvent("x", id="1")
    assert MessageEvent.of(event) is event
    assert MessageEvent.of({"a": 1}).encode() == b'data: {"a":1}\n\n'
    assert MessageEvent.of("a").encode() == b"data: a\n\n"
