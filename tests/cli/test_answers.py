"""What commands make of a server that is no hub, or a bad one: one line, and nothing that a terminal obeys."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from hub.cli.answers import fits, histogram, maybe, printable, whole
from hub.cli.entry import main
from tests.cli.test_findings import facts
from tests.cli.test_top import FIGURES, worker

EVIL = "\x1b]0;x\x07\x1b[2J\u202e\x9b31m[/x]"
DEEP = b"[" * 100_000
READY = b'{"status": "ready"}'
STREAM = b"event: hub.open\ndata: {}\n\n:\n\n"

Answers = Mapping[str, tuple[int, bytes]]


@contextmanager
def serving(answers: Answers, *, header: str = "") -> Iterator[str]:
    """Run a server that answers by the end of the path, and to anything else with 404; yield its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split()[1].decode().partition("?")[0]
            while self.rfile.readline().strip():
                pass
            status, body = answers.get(path.rpartition("/")[2], (404, b"{}"))
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{header}\r\n"
            self.wfile.write(head.encode() + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(30)


def body(said: object) -> bytes:
    return json.dumps(said).encode()


def top(**changes: Any) -> Answers:
    return {"stats": (200, body({**FIGURES, **changes}))}


def check(**answers: tuple[int, bytes]) -> Answers:
    return {"readyz": (200, READY), "subscribe": (200, STREAM), **answers}


def told(**changes: Any) -> tuple[int, bytes]:
    return 200, body(facts(**changes))


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        ("health", {"readyz": (503, body({"detail": EVIL}))}),
        ("health", {"readyz": (int("9" * 4000), READY)}),
        ("health", {"readyz": (503, DEEP)}),
        ("health", {"readyz": (200, b'{"status": ["ready"]}')}),
        ("top", top(log={**FIGURES["log"], "newest": EVIL}, workers={EVIL: worker(1, 1.0)}, streams={EVIL: 1})),
        ("top", {"stats": (200, DEEP)}),
        ("top", {"stats": (200, b'{"streams": []}')}),
        ("top", top(uptime=float("nan"))),
        ("top", top(log=[])),
        ("top", top(published="many")),
        ("top", top(connect_seconds={"count": 1, "sum": 1, "buckets": {"x": 1}})),
        ("top", top(workers={"a": {}})),
        ("check", check(readyz=(503, body({"type": "urn:x", "detail": EVIL})))),
        ("check", {"readyz": (200, DEEP)}),
        ("check", check(check=told(limits=[]))),
        ("check", check(check=told(time="now"))),
        ("check", check(check=told(log__kind=EVIL, request__client=EVIL, request__prefix=EVIL))),
        ("check", {**check(), "openapi.json": (200, b'{"servers": {"url": 1}}')}),
        ("check", {**check(), "openapi.json": (200, body({"servers": [{"url": EVIL}]}))}),
    ],
)
def test_whatever_answers_is_told_in_plain_lines(
    command: str, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answers, header="Content-Type: text/event-stream\r\nContent-Encoding: \x1b[2J\r\n") as url:
        more = {"top": ["--once", "--every", "0.1"], "check": ["--seconds", "5"], "health": ["--seconds", "30"]}
        assert main([command, "--url", url, *more[command]]) in {0, 1}
    said = capsys.readouterr()
    assert said.out + said.err
    for line in (said.out + said.err).splitlines():
        assert line.isprintable(), line


def test_a_text_is_shown_without_what_a_terminal_obeys() -> None:
    assert printable("grün → 三") == "grün → 三"
    assert printable("a\nb\x1b[2J\u202e") == "a\\nb\\x1b[2J\\u202e"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert printable("x" * 20, most=10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("said", "shape", "so"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": whole}}, True),
        ({"a": {"c": 2}}, {"a": {"b": whole}}, False),
        ({"a": [1]}, {"a": {"b": whole}}, False),
        (None, maybe(whole), True),
        ("1", maybe(whole), False),
        (1e400, whole, False),
        ({"count": 1, "sum": 0.5, "buckets": {"1": 1, "+Inf": 0}}, histogram, True),
        ({"count": 1, "sum": 0.5, "buckets": {"nan": 1}}, histogram, False),
    ],
)
def test_the_shape_of_an_answer_is_checked(said: Any, shape: Callable[[Any], bool], so: bool) -> None:
    assert fits(said, shape) is so
