"""Fixtures of the tests of the Python client: hubs on free ports, and clients that end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hub.client import AsyncHubClient
from tests.client.support import url_of
from tests.web.conftest import complaints, serve, tls
from tests.web.server import Site

__all__ = ["complaints", "serve", "tls"]

Connect = Callable[..., AsyncHubClient]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """What makes a client of a hub."""
    clients: list[AsyncHubClient] = []

    def connect(where: Site | str, **options: Any) -> AsyncHubClient:
        client = AsyncHubClient(where if isinstance(where, str) else url_of(where), **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.aclose()
