"""What the tests of the Python client share."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hub.client.received import Item, Received
from hub.hub import Hub
from tests.web.server import Site


def url_of(site: Site) -> str:
    """Return the address of a hub, where it is mounted."""
    assert isinstance(site.address, tuple)
    return f"http://127.0.0.1:{site.address[1]}{site.prefix}"


async def cut(hub: Hub) -> None:
    """Cut all connections."""
    for stream in list(hub.connections):
        stream.abort()


async def take(stream: AsyncIterator[Item], number: int) -> list[Received]:
    """Return the next *number* items of *stream*, which all have to be notifications."""
    items = [await anext(stream) for _ in range(number)]
    received = [item for item in items if isinstance(item, Received)]
    assert len(received) == number, items
    return received
