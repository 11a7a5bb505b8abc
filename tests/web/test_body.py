import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.body import decode_json

text = st.text()  # lone surrogates, too
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda values: st.lists(values) | st.dictionaries(text, values),
)


@given(value, st.booleans(), st.sampled_from([None, 0, 3]))
def test_json_is_read_as_the_standard_library_reads_it(value: Any, ensure_ascii: bool, indent: int | None):
    body = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode("utf-8", "replace")
    assert repr(decode_json(body)) == repr(json.loads(body))


@pytest.mark.parametrize(
    "number", ["-0", "-0.0", "1e400", "5e-324", "9007199254740993", "9" * 40, "0.30000000000000004"]
)
def test_numbers_are_read_exactly(number: str):
    assert repr(decode_json(number.encode())) == repr(json.loads(number))


def test_it_reads_what_is_nested_as_deeply_as_it_can_be_sent():
    body = b"[" * 500 + b"]" * 500
    assert decode_json(body) == json.loads(body)
    with pytest.raises(RecursionError):
        decode_json(b"[" * 100_000)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"01", b"[1,]", b"NaN", b"-Infinity", b"1 2", b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b'"\t"'],
)
def test_what_is_not_json_in_utf_8_is_refused(body: bytes):
    with pytest.raises(ValueError, match=r"."):
        decode_json(body)
