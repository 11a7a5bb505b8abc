"""`hub health`: ask a hub whether it takes new work; the exit status says it, as container health checks want it."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
from collections.abc import Mapping
from typing import Any

from yarl import URL

from hub.cli.answers import printable, read
from hub.cli.target import Failed, add_target

SECONDS = 3.0
MAX_BYTES = 64 * 1024
STATUS = 3  # digits of one (RFC 9110, 15)

_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a socket of `::` takes no IPv4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    add_target(parser, own_url(os.environ))
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS, metavar="SECONDS", help=f"how long to wait [{SECONDS:g}]"
    )
    parser.add_argument("--live", action="store_true", help="ask only whether it is alive, as while it drains")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 600:
        raise ValueError(text)
    return seconds


def own_url(environ: Mapping[str, str]) -> str:
    """Return the address of the hub that `hub serve` would run with *environ*.

    That is `HUB_URL`, else its port at the address that it listens on; of all addresses, at that of loopback.
    """
    if environ.get("HUB_URL"):
        return environ["HUB_URL"]
    port = environ.get("HUB_PORT", "")
    scheme = "https" if environ.get("HUB_TLS_CERT") else "http"
    return f"{scheme}://{own_host(environ)}:{port if port.isascii() and port.isdigit() else 8080}"


def own_host(environ: Mapping[str, str]) -> str:
    """Return where the hub that `hub serve` would run with *environ* can be reached from this machine."""
    host = _LOOPBACK_OF.get(said := environ.get("HUB_HOST", ""), said)
    return f"[{host}]" if ":" in host else host


def run(args: argparse.Namespace) -> int:
    """Return 0 if the hub is ready, or alive if that is asked; print what it says.

    Raises:
        Failed: it is not, or did not answer in time.
    """
    path = "healthz" if args.live else "readyz"
    status, said = asyncio.run(_ask(URL(args.url) / path, args.seconds))
    if status != 200:
        raise Failed(f"{args.url} is not {'alive' if args.live else 'ready'}: {_why(status, said)}")
    state = said.get("status")
    if state not in ("alive", "ready"):
        raise Failed(f"what answers at {args.url} is not a hub")
    print(state)
    return 0


def _why(status: int, said: Mapping[str, Any]) -> str:
    return printable(said.get("detail") or said.get("title") or f"it answers {status}")


async def _ask(url: URL, seconds: float) -> tuple[int, Mapping[str, Any]]:
    """Return the status of the answer to a GET of *url*, and the JSON object in it.

    This speaks HTTP/1.0 by itself: a health check runs every few seconds, and a library takes longer to load than the
    hub to answer.

    Raises:
        Failed: nothing answers within *seconds*, or something that does not speak HTTP.
    """
    assert url.host is not None
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(url.host, url.port, ssl=_tls(url))
            writer.write(f"GET {url.raw_path_qs} HTTP/1.0\r\nHost: {_host(url)}\r\nConnection: close\r\n\r\n".encode())
            answer = bytearray()
            while len(answer) < MAX_BYTES and (data := await reader.read(MAX_BYTES)):
                answer += data
    except TimeoutError:
        raise Failed(f"{url.origin()} did not answer within {seconds:g} s") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise Failed(f"{url.origin()} can't be reached: {why}") from None
    finally:
        if writer is not None:
            writer.transport.abort()
    return _read(bytes(answer), url)


def _host(url: URL) -> str:
    return url.raw_authority.rpartition("@")[2]


def _tls(url: URL) -> ssl.SSLContext | None:
    """Return the TLS context.

    On loopback, and where the hub of this machine listens, any certificate will do: it has the public name, and nothing
    that is sent is secret.
    """
    if url.scheme != "https":
        return None
    context = ssl.create_default_context()
    if url.host in {"127.0.0.1", "::1", "localhost", own_host(os.environ).strip("[]")}:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _read(answer: bytes, url: URL) -> tuple[int, Mapping[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not (words[0].startswith(b"HTTP/1.") and len(words) > 1 and words[1].isdigit() and len(words[1]) == STATUS):
        raise Failed(f"what answers at {url.origin()} does not speak HTTP")
    said = read(body)
    return int(words[1]), said if isinstance(said, dict) else {}
