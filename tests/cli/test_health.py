"""`hub health`, against a hub, something else, and nothing."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hub.cli.entry import main
from hub.cli.health import own_url
from tests.cli.commands import Run, Serving
from tests.ports import free_port


@contextmanager
def answering(reply: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that reads a request and then does what *reply* says; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(4096)
                reply(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(30)


def problem(client: socket.socket) -> None:
    client.sendall(b'HTTP/1.1 503 Busy\r\nA: b\r\n\r\n{"title": "busy", "detail": "the log does not answer"}')


def page(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n<html></html>")


def noise(client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def endless(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    client.recv(1)  # until the other side has gone


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (problem, "is not ready: the log does not answer"),
        (page, "is not a hub"),
        (noise, "does not speak HTTP"),
        (endless, "did not answer within 0.2 s"),
    ],
)
def test_what_is_not_ready_fails_and_says_why(
    reply: Callable[[socket.socket], None], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(reply) as url:
        seconds = "0.2" if reply is endless else "30"
        assert main(["health", "--url", url, "--seconds", seconds]) == 1
    assert why in capsys.readouterr().err


def test_nobody_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "Connection refused" in said.err


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"HUB_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HUB_HOST": "0.0.0.0"}, "http://127.0.0.1:8080"),
        ({"HUB_HOST": "10.0.0.5", "HUB_PORT": "9000"}, "http://10.0.0.5:9000"),
        ({"HUB_HOST": "::"}, "http://[::1]:8080"),
        ({"HUB_PORT": "tcp://10.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"HUB_PORT": "9000", "HUB_TLS_CERT": "/cert.pem"}, "https://127.0.0.1:9000"),
        ({"HUB_PORT": "9000", "HUB_URL": "https://live.example.com/x"}, "https://live.example.com/x"),
    ],
)
def test_without_an_address_it_asks_the_hub_of_the_same_environment(environ: dict[str, str], url: str) -> None:
    assert own_url(environ) == url


@pytest.mark.slow
async def test_a_hub_is_ready_until_it_drains_and_alive_after_that(serving: Serving, run: Run) -> None:
    hub = await serving("--drain", "60", "--log-format", "json")
    environ = {"HUB_PORT": str(hub.port)}
    ready = await run("health", environ=environ)
    assert (await ready.end(), ready.out, ready.err) == (0, "ready\n", "")
    hub.signal(signal.SIGTERM)
    await hub.tells("draining")
    draining, alive = await run("health", environ=environ), await run("health", "--live", environ=environ)
    assert (await draining.end(), await alive.end(), alive.out) == (1, 0, "alive\n")
    assert "is not ready" in draining.err
    assert all(json.loads(line)["message"] for line in hub.err.splitlines())
