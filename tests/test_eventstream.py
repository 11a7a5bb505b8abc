import dataclasses
import datetime
import enum
import json
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidInput
from hub.eventstream import Decoder, Message, MessageEvent, block, chunk, compact_json, unchunk
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


NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
ID = UUID(int=7)


class Size(enum.Enum):
    SMALL = "S"


class Word(enum.StrEnum):
    KETTLE = "kettle"


class Mixed(str, enum.Enum):  # noqa: UP042 - prints itself as `Mixed.KETTLE`, and many applications have such
    KETTLE = "kettle"


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Item:
    size: Size
    added: datetime.datetime


class Order(pydantic.BaseModel):
    id: UUID
    price: Decimal
    items: list[Item]
    placed_by: str = pydantic.Field(default="ada", serialization_alias="placedBy")
    secret: str = pydantic.Field(default="s", exclude=True)


class Foreign:
    """Of a type that nobody knows."""

    def __init__(self, value: object = 1) -> None:
        self.value = value


def value_of(item: Any) -> object:
    if isinstance(item, Foreign):
        return item.value
    raise TypeError(f"{type(item).__name__} is nothing that is sent")


ITEM = '{"size":"S","added":"2026-11-21T12:00:00Z"}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NOON, '"2026-11-21T12:00:00Z"'),
        (NOON.date(), '"2026-11-21"'),
        (datetime.timedelta(seconds=90), '"PT1M30S"'),
        (Decimal("1.50"), '"1.50"'),
        (ID, f'"{ID}"'),
        ([Size.SMALL, Word.KETTLE, Mixed.KETTLE, Number.ONE], '["S","kettle","kettle",1]'),
        (({7}, frozenset(), b"bytes"), '[[7],[],"bytes"]'),
        (Item(Size.SMALL, NOON), ITEM),
        (
            Order(id=ID, price=Decimal("9.90"), items=[Item(Size.SMALL, NOON)]),
            f'{{"id":"{ID}","price":"9.90","items":[{ITEM}],"placedBy":"ada"}}',
        ),
        (
            {ID: 1, Size.SMALL: 2, NOON.date(): 3, Mixed.KETTLE: 4, 5: 6},
            f'{{"{ID}":1,"S":2,"2026-11-21":3,"kettle":4,"5":6}}',
        ),
        ({"deep": [{"in": ({"it": NOON},)}], "ü": 1.5}, '{"deep":[{"in":[{"it":"2026-11-21T12:00:00Z"}]}],"ü":1.5}'),
        ({"once": (n for n in "ab"), "at": NOON.date()}, '{"once":["a","b"],"at":"2026-11-21"}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_python_programs_are_made_of_becomes_what_pydantic_makes_of_it(value: object, text: str):
    assert compact_json(value) == text


def test_a_hook_turns_the_rest_into_json_however_deep_it_is():
    value = {"a": [Foreign(Foreign({"at": NOON}))], "b": Item(Size.SMALL, NOON), "c": Foreign("x")}
    assert compact_json(value, value_of) == f'{{"a":[{{"at":"2026-11-21T12:00:00Z"}}],"b":{ITEM},"c":"x"}}'
    assert compact_json({Foreign("key"): 1}, value_of) == '{"key":1}'
    with pytest.raises(TypeError, match="range is nothing that is sent"):
        compact_json([range(3)], value_of)
    with pytest.raises(ValueError, match="Circular reference"):
        compact_json(Foreign(), lambda item: item)


def test_plain_data_never_comes_near_the_hook():
    def refuse(item: object) -> object:
        raise AssertionError(item)

    assert compact_json({"a": [1, None, 1.5, True, Number.ONE], None: "x", 7: ()}, refuse) == (
        '{"a":[1,null,1.5,true,1],"null":"x","7":[]}'
    )
    assert compact_json([NOON, ID, Size.SMALL, {1}], refuse)


def endless() -> list[object]:
    values: list[object] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        ([float("-inf")], ValueError),
        (object(), ValueError),
        ([NOON, float("inf")], ValueError),
        ({object(): 2}, ValueError),
        (b"\xff", ValueError),
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


def test_an_event_carries_objects_and_the_values_of_enums():
    assert (
        MessageEvent({"at": NOON, "n": Foreign(7)}).encode(value_of) == b'data: {"at":"2026-11-21T12:00:00Z","n":7}\n\n'
    )
    event = MessageEvent(Mixed.KETTLE, type=Mixed.KETTLE, id=Mixed.KETTLE, retry=Number.ONE)
    assert event.encode() == b"retry: 1\nevent: kettle\nid: kettle\ndata: kettle\n\n"


def test_anything_is_taken_as_data_but_an_event():
    event = MessageEvent("x", id="1")
    assert MessageEvent.of(event) is event
    assert MessageEvent.of({"a": 1}).encode() == b'data: {"a":1}\n\n'
    assert MessageEvent.of("a").encode() == b"data: a\n\n"
