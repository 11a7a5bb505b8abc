"""What the tests of the event bus share."""

from collections.abc import AsyncIterator

import pytest

from hub.events.bus import EventBus
from tests.events.handlers import NOON


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    """An open bus, closed in the end."""
    bus = EventBus(clock=lambda: NOON)
    bus.open()
    yield bus
    await bus.aclose(timeout=0)
