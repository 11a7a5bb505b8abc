"""The edges: aiohttp routes, responses and streams. The only HTTP code of the hub."""

from hub.web.app import BUS, HUB, NOTIFICATIONS, setup_hub
from hub.web.sse import sse

__all__ = ["BUS", "HUB", "NOTIFICATIONS", "setup_hub", "sse"]
