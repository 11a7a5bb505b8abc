"""The hub that a command talks to: none there, something else there, or one that refuses."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from hub.cli.entry import main
from tests.cli.commands import Run, Serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", [["publish", "x"], ["listen"], ["history", "list"]])
async def test_where_no_hub_answers_that_is_told_in_one_line(run: Run, command: list[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        nobody_port = nobody.getsockname()[1]
        process = await run(*command, "--url", f"http://127.0.0.1:{nobody_port}")
        assert await process.end() == 1
    url = f"http://127.0.0.1:{nobody_port}"
    assert process.err == f"hub: no hub answers at {url}: Connection refused\n"


@pytest.mark.parametrize(
    "command", [["listen", "a//b"], ["publish", "x", "--type", "hub.x"], ["publish", "x", "-t", "*"]]
)
async def test_what_the_hub_refuses_is_told_in_one_line(serving: Serving, run: Run, command: list[str]) -> None:
    hub = await serving()
    process = await run(*command, "--url", hub.url)
    assert await process.end() in {1, 2}
    assert process.out == ""
    (line,) = process.err.splitlines()
    assert re.match(r"hub: (topic|topics|type): ", line), "the hub's own words, not the JSON around them"


class _Other(http.server.BaseHTTPRequestHandler):
    """A server that is no hub, and answers everything alike."""

    says: tuple[int, str, bytes]

    def answer(self) -> None:
        status, media_type, body = self.says
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who has seen enough leaves
            self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - what the standard library looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[Callable[[int, str, bytes], str]]:
    """What starts a server that is no hub, and returns its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def says(status: int, media_type: str, body: bytes) -> str:
            _Other.says = status, media_type, body
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield says
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>It works!</h1>"),
        (404, "text/html", b"<h1>Not found</h1>" + b"x" * 1_000_000),
        (501, "text/html", b"<p>Message: Unsupported method"),
        (200, "application/json", b"not JSON"),
        (201, "application/json", b"\xff"),
        (201, "application/json", b"[1]"),
        (201, "application/json", b"[" * 60_000),
        (200, "application/json", b"{}"),
        (401, "application/json", b'{"detail": "who are you?"}'),
        (400, "application/problem+json", b"{"),
        (400, "application/problem+json", b'{"detail": ' + b"[" * 60_000),
        (400, "application/problem+json", b'{"detail": 1}'),
        (204, "text/plain", b""),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1]} {answer[2][:8]!r}",
)
@pytest.mark.parametrize(
    "command",
    [["publish", "x"], ["listen"], ["history", "list"], ["history", "export"]],
    ids=" ".join,
)
def test_where_something_else_answers_that_is_told_in_one_line(
    command: list[str],
    answer: tuple[int, str, bytes],
    other: Callable[[int, str, bytes], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = other(*answer)
    assert main([*command, "--url", url]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"hub: what answers at {url} is not a hub")
    assert str(answer[0]) in line


def test_a_server_without_tls_is_told_from_a_hub_that_is_away(
    other: Callable[[int, str, bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = other(200, "text/html", b"").replace("http:", "https:")
    assert main(["publish", "x", "--url", url]) == 1
    assert re.fullmatch(rf"hub: no hub answers at {url}: TLS failed: [a-z ]+\n", capsys.readouterr().err)
