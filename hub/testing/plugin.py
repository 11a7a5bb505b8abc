"""The pytest fixture `hub`. Put `pytest_plugins = ["hub.testing.plugin"]` into the topmost `conftest.py`.

It needs pytest-asyncio, in either of its modes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from hub.testing.tested_hub import HubForTest, hub_for_test


@pytest.fixture
def hub_options() -> dict[str, Any]:
    """The arguments of `hub_for_test` for the fixture `hub`; define a fixture of this name to change them."""
    return {}


@pytest_asyncio.fixture
async def hub(hub_options: dict[str, Any]) -> AsyncIterator[HubForTest]:
    """A hub in the event loop of the test."""
    async with hub_for_test(**hub_options) as hub:
        yield hub
