"""Where the token of a command comes from, and what of it is never shown."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from hub.access.bearer import MAX_BYTES, Bearer, read_tokens
from hub.errors import InvalidInput

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl-_"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUB_TOKEN", raising=False)


@pytest.mark.parametrize("said", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n", f"Bearer {TOKEN}"])
def test_a_token_is_read_without_what_is_around_it(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_bytes(said.encode())
    assert Bearer(str(file)).headers() == {"Authorization": f"Bearer {TOKEN}"}
    monkeypatch.setenv("HUB_TOKEN", said)
    assert Bearer().token() == TOKEN
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    piped = Bearer("-")
    assert [piped.token(), piped.token()] == [TOKEN, TOKEN], "standard input can be read only once"


@pytest.mark.parametrize("said", ["", " "])
def test_an_empty_variable_is_no_token(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bearer().headers() == {}
    monkeypatch.setenv("HUB_TOKEN", said)
    assert Bearer().headers() == {}


def test_a_file_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "of.the.variable")
    file = tmp_path / "token"
    file.write_text(TOKEN)
    assert Bearer(str(file)).token() == TOKEN


def test_a_file_is_read_again_and_a_pipe_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    bearer = Bearer(str(file))
    assert bearer.token() == "first"
    file.write_text("second")
    assert (bearer.token(), bearer.renewed) == ("second", True)
    reading, writing = os.pipe()
    os.write(writing, b"piped\n")
    os.close(writing)
    try:
        bearer = Bearer(f"/dev/fd/{reading}")  # what `--token-file <(…)` is in a shell
        assert [bearer.token(), bearer.token()] == ["piped", "piped"]
        assert not bearer.renewed
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"two words", b"a\r\nX-Injected: 1", "tökén".encode(), b"\xff\xfe", b"a\0b", b"x" * (MAX_BYTES + 1)],
    ids=["empty", "blank", "words", "lines", "letters", "not UTF-8", "NUL", "large"],
)
def test_what_can_not_be_a_token_is_refused_and_not_shown(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "wrong"
    file.write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        Bearer(str(file)).token()
    said = str(refused.value)
    assert said.startswith("--token-file: ")
    assert not any(word in said for word in ("two", "Injected", "tök", "xxx"))


@pytest.mark.parametrize("name", ["", "none", "no\0name"])
def test_a_file_that_can_not_be_read_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--token-file"):
        Bearer(str(tmp_path / name)).token()


@pytest.mark.parametrize("given", [TOKEN, TOKEN * 100, f"{TOKEN}/x", f"{TOKEN}\0"])
def test_a_token_in_the_place_of_its_file_is_not_shown(given: str) -> None:
    for read in (lambda: Bearer(given).token(), lambda: read_tokens(given)):
        with pytest.raises(InvalidInput, match="HUB_TOKEN") as refused:
            read()
        assert "eyJ" not in str(refused.value)


def test_a_file_that_is_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{tmp_path}: Is a directory"):
        Bearer(str(tmp_path)).token()


def test_a_wrong_variable_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "my secret")
    with pytest.raises(InvalidInput, match="HUB_TOKEN: does not hold a token") as refused:
        Bearer().token()
    assert "my secret" not in str(refused.value)


def test_a_list_has_a_token_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("a.b.c\n\nd.e.f\r\n  g.h.i\n")
    assert read_tokens(str(file)) == ["a.b.c", "d.e.f", "g.h.i"]


@pytest.mark.parametrize(
    ("content", "why"), [("\n\n", "no token"), ("a.b.c\nmy secret\n", "line 2"), (None, "No such")]
)
def test_a_wrong_list_says_where(content: str | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidInput, match=f"--tokens.*{why}") as refused:
        read_tokens(str(file))
    assert "my secret" not in str(refused.value)
