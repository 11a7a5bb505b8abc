"""Bodies that are compressed: refused before any of them is read, on every path, and nothing is inflated."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from aiohttp.streams import StreamReader

from tests.web.client import Client
from tests.web.conftest import Serve
from tests.web.process import ServeProcess
from tests.web.server import Server, Site


def compressed_gigabyte() -> bytes:
    """Return 1 MiB that becomes a gigabyte; it has no end."""
    packer, zeros = zlib.compressobj(wbits=31), bytes(2**20)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + 1023 * (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH))


BOMB = compressed_gigabyte()


@pytest.fixture
async def process() -> AsyncIterator[ServeProcess]:
    process = await ServeProcess.start("serve", "--port", "0", "--demo", "--events-api")
    yield await process.listening()
    await process.aclose()


async def ask(site: Site, method: str, path: str, length: int, **headers: str) -> Client:
    """Return a client that has sent the headers of a request, and has a body to send."""
    client = await site.client()
    said = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Content-Length": str(length)}
    await client.request(method, path, headers={**said, **{name.replace("_", "-"): it for name, it in headers.items()}})
    return client


async def check_refused(client: Client, encoding: str = "gzip") -> None:
    assert await client.head() == 415
    assert client.headers["Content-Type"] == "application/problem+json"
    assert client.headers["Accept-Encoding"] == "identity"
    assert client.headers["Connection"] == "close"
    problem = await client.json()
    assert problem["type"] == "urn:broadcast-hub:unsupported-encoding"
    assert problem["detail"] == f"Content-Encoding: '{encoding}' is not supported: send the body as it is"


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/notifications/publish", "application/json"),
        ("POST", "/notifications/subscribe", "application/json"),
        ("POST", "/notifications/history", "application/x-ndjson"),
        ("POST", "/ai/chat/stream/init", "application/json"),
        ("POST", "/orders", "application/json"),
        ("POST", "/healthz", "application/json"),
        ("GET", "/notifications/stats", "application/json"),
    ],
)
async def test_a_compressed_body_is_refused_and_none_of_it_inflated_not_even_after_the_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, method: str, path: str, kind: str
) -> None:
    inflated: list[int] = []
    feed_data = StreamReader.feed_data

    def count(self: StreamReader, data: bytes, *size: int) -> object:
        inflated.append(len(data))
        return feed_data(self, data, *size)

    server = await serve(demo=True)
    monkeypatch.setattr(StreamReader, "feed_data", count)
    client = await ask(server, method, path, len(BOMB), Content_Type=kind)
    await check_refused(client)
    await client.send(BOMB)  # the hub takes it, so that nobody's answer is lost to a reset
    assert inflated == []
    await client.aclose()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "deflate, gzip", "nonsense"])
async def test_every_encoding_is_refused(server: Server, encoding: str) -> None:
    body = (zlib if encoding == "deflate" else gzip).compress(b'{"data": 1}')
    client = await ask(server, "POST", "/notifications/publish", len(body), Content_Encoding=encoding)
    await client.send(body)
    await check_refused(client, encoding)


@pytest.mark.parametrize("encoding", ["identity", "Identity"])
async def test_a_body_that_says_it_is_not_compressed_is_read(server: Server, encoding: str) -> None:
    answer = await server.post("/notifications/publish", {"data": 1}, Content_Encoding=encoding)
    assert answer.status == 201


async def test_without_a_body_nothing_is_compressed(server: Server) -> None:
    assert (await server.ask("GET", "/healthz", headers={"Content-Encoding": "gzip"})).status == 200


async def test_a_crowd_with_compressed_gigabytes_does_not_stall_a_served_hub(process: ServeProcess) -> None:
    crowd = [await ask(process.site, "POST", "/notifications/publish", len(BOMB)) for _ in range(8)]
    for client in crowd:
        await client.send(BOMB)
    # Each answer comes within the client's patience; to inflate the bodies takes several times that.
    for client in crowd:
        await check_refused(client)


async def test_a_served_hub_inflates_nothing_on_any_path(process: ServeProcess) -> None:
    for path in ("/notifications/publish", "/nowhere"):
        client = await ask(process.site, "POST", path, 100)
        await client.send(b"x" * 100)  # to inflate this is an error, which aiohttp would log, or answer
        assert await client.head() == 415
        await client.body()
    process.check_tidy()
