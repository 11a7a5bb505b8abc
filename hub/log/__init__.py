"""The log: the append-only, totally ordered history. One protocol, several homes."""

from hub.log.log import Bounds, Log, Page
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt

__all__ = ["Bounds", "Log", "MemoryLog", "Page", "Receipt"]
