import base64
import datetime
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidDraft, InvalidInput, TooLarge
from hub.notification import MAX_DATA_BYTES, MAX_DATA_LEVELS, Draft, Notification, Position
from hub.wires import with_bytes
from tests.wire import blocks

scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner), max_leaves=8)


def accept(draft: Draft, offset: int = 1) -> Notification:
    return Notification.accept(draft, Position("e", offset), 0.0)


@given(epoch=st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True), offset=st.integers(0, 10**17))
def test_a_position_reads_back(epoch: str, offset: int):
    assert Position.parse(str(Position(epoch, offset))) == (epoch, offset)


def test_topic_and_topics_make_a_union_in_order():
    assert Draft.of("x").topics == ("notifications",)
    assert Draft.of("x", topic="a").topics == ("a",)
    assert Draft.of("x", topics=["b", "a", "b"]).topics == ("b", "a")
    assert Draft.of("x", topic="c", topics=["b", "c"]).topics == ("c", "b")


@given(
    data=values,
    options=st.fixed_dictionaries(
        {},
        optional={
            "topics": st.lists(st.sampled_from(["a", "b/c"]), min_size=1),
            "type": st.just("t"),
            "retry": st.integers(0, 2),
            "private": st.booleans(),
            "tags": st.just({"a": 1}),
            "key": st.just("k"),
        },
    ),
)
def test_a_draft_comes_back_from_the_json_of_a_publish(data: Any, options: dict[str, Any]):
    draft = Draft.of(data, **options)
    fields = draft.to_json()
    assert Draft.from_json(json.loads(json.dumps(fields))) == draft._replace(tags=draft.tags or None)
    assert fields.keys() == {"topics", "data", *(name for name, value in options.items() if value is not False)}


@given(data=values)
def test_data_comes_back_as_it_was_sent(data: Any):
    notification = accept(Draft.of(data))
    assert notification.data == data
    (block,) = blocks(notification.frame)
    if isinstance(data, str):
        assert (block.data or "").split("\n") == data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    else:
        assert json.loads(block.data or "") == data


def test_changing_what_was_sent_changes_nothing():
    data = {"a": [1]}
    notification = accept(Draft.of(data))
    data["a"].append(2)
    notification.data["a"].append(3)
    assert notification.data == {"a": [1]}


class Mixed(str, enum.Enum):  # noqa: UP042 - prints itself as `Mixed.A`, and many applications have such
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize("where", ["topic", "topics"])
def test_a_draft_has_the_plain_values_of_enums(where: str):
    """The process of a log in a file takes nothing else, and would fail with all that waits for it."""
    topics: Any = Mixed.A if where == "topic" else [Mixed.A]
    draft = Draft.of(Mixed.A, **{where: topics}, type=Mixed.A, key=Mixed.A, retry=Number.ONE)
    assert draft == Draft(("a",), "a", False, type="a", retry=1, key="a")
    assert {type(each) for each in (draft.text, draft.type, draft.key, *draft.topics)} == {str}
    assert type(draft.retry) is int
    assert accept(draft).frame == b"retry: 1\nevent: a\nid: e-1\ndata: a\n\n"


def test_data_is_whatever_pydantic_can_turn_into_json_and_what_the_hook_adds():
    at = datetime.date(2026, 11, 21)
    assert Draft.of({"at": at}).text == '{"at":"2026-11-21"}'
    assert Draft.of({"at": at, "n": range(2)}, json_default=list).text == '{"at":"2026-11-21","n":[0,1]}'
    with pytest.raises(InvalidDraft, match=r"data: is not JSON: .*range"):
        Draft.of({"at": at, "n": range(2)})


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"text")])
def test_binary_data_is_base64(data: Any):
    draft = Draft.of(data)
    assert draft.is_json
    assert base64.b64decode(json.loads(draft.text)["base64"], validate=True) == bytes(data)
    assert with_bytes(accept(draft).data) == bytes(data)


def test_an_envelope_is_json_whatever_the_data():
    for data in ("text\nlines", {"a": 1}, None):
        (block,) = blocks(accept(Draft.of(data, type="t", topic='qu"ote')).envelope('qu"ote').split(b"\r\n", 1)[1][:-2])
        assert json.loads(block.data or "") == {"topic": 'qu"ote', "data": data}
        assert (block.type, block.id) == ("t", "e-1")


def test_data_is_bounded_in_encoded_bytes():
    assert Draft.of("x" * MAX_DATA_BYTES)
    for data in ("x" * (MAX_DATA_BYTES + 1), "é" * (MAX_DATA_BYTES // 2 + 1), ["x" * MAX_DATA_BYTES]):
        with pytest.raises(TooLarge, match="data"):
            Draft.of(data)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"topic": ""}, "topic"),
    ({"topic": "a/*"}, "topic"),
    ({"topics": []}, "topics"),
    ({"topics": "a"}, "topics"),
    ({"topics": {"a": 1}}, "topics"),
    ({"topics": [1]}, "topics"),
    ({"topics": [f"t{n}" for n in range(17)]}, "topics"),
    ({"data": object()}, "data"),
    ({"data": {object(): 1}}, "data"),
    ({"data": [b"\xff"]}, "data"),
    ({"data": float("nan")}, "data"),
    ({"data": "\ud800"}, "data"),
    ({"data": {"a": "\ud800"}}, "data"),
    ({"type": ""}, "type"),
    ({"type": "a\nb"}, "type"),
    ({"type": "a\0"}, "type"),
    ({"type": "hub.open"}, "type"),
    ({"type": "error"}, "type"),
    ({"type": "é" * 129}, "type"),
    ({"type": "\ud800"}, "type"),
    ({"type": 7}, "type"),
    ({"retry": -1}, "retry"),
    ({"retry": 1.5}, "retry"),
    ({"retry": True}, "retry"),
    ({"retry": "5"}, "retry"),
    ({"retry": 10**9}, "retry"),
    ({"private": "no"}, "private"),
    ({"tags": []}, "tags"),
    ({"tags": {"a": {}}}, "tags"),
    ({"tags": {"": 1}}, "tags"),
    ({"tags": {"a": "x" * 300}}, "tags"),
    ({"tags": {str(n): n for n in range(33)}}, "tags"),
    ({"tags": {"\ud800": 1}}, "tags"),
    ({"tags": {"a": "\ud800"}}, "tags"),
    ({"tags": {"a": float("inf")}}, "tags"),
    ({"tags": {"a": float("nan")}}, "tags"),
    ({"key": "\ud800"}, "key"),
    ({"key": ""}, "key"),
    ({"key": "x" * 257}, "key"),
    ({"key": 7}, "key"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as caught:
        Draft.of(**{"data": "x", **fields})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def nested(levels: int) -> Any:
    """Return lists and objects in turn, this many in each other, with strings that look like more of them."""
    data: Any = "]}\\"
    for level in range(levels):
        data = [data] if level % 2 else {'[{"[\\': data, "b": '["'}
    return data


@pytest.mark.parametrize("levels", [MAX_DATA_LEVELS + 1, 500, 981, 100_000])
def test_data_nested_too_deeply_is_refused(levels: int):
    deep: list[Any] = []
    for _ in range(levels - 1):
        deep = [deep]
    with pytest.raises(InvalidDraft, match=r"^data: has lists or objects more than 60 deep in each other$"):
        Draft.of(deep)
    while deep:  # unravel it here: the interpreter would do so recursively
        deep = deep.pop()


@given(levels=st.integers(MAX_DATA_LEVELS - 3, MAX_DATA_LEVELS + 3))
def test_levels_are_counted_outside_of_strings_only(levels: int):
    if levels <= MAX_DATA_LEVELS:
        assert json.loads(Draft.of(nested(levels)).text) == nested(levels)
        assert Draft.of([nested(levels - 1)] * 500 + [[]])
    else:
        with pytest.raises(InvalidDraft, match="60 deep"):
            Draft.of([[]] * 500 + [nested(levels - 1)])


@given(data=values)
def test_what_is_shallow_is_never_taken_for_deep(data: Any):
    assert json.loads(Draft.of([data] * 100).text) == [data] * 100


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("x", "body"),
        (None, "body"),
        ({}, "data"),
        ({"data": 1, "tpoic": "a"}, "tpoic"),
        ({"data": 1, "\n\ud800": 1}, r"\n\ud800"),
    ],
)
def test_a_json_draft_is_an_object_with_known_fields(body: Any, field: str):
    with pytest.raises(InvalidDraft) as caught:
        Draft.from_json(body)
    assert caught.value.field == field


def test_null_is_data_and_stands_for_absent_elsewhere():
    draft = Draft.from_json({"data": None, "topic": None, "type": None, "retry": None, "tags": None, "key": None})
    assert draft == Draft(("notifications",), "null", True)


def test_topics_beyond_the_most_there_may_be_are_not_looked_at():
    topics = [*(f"topic/{number}" for number in range(17)), "a//b"]
    with pytest.raises(InvalidDraft, match="more than 16"):
        Draft.from_json({"topics": topics, "data": 1})
