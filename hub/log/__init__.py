"""The log: the append-only, totally ordered history. One protocol, several homes."""

from hub.log.home import make_log
from hub.log.log import Bounds, Log, Page
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt
from hub.log.sqlite import SQLiteLog

__all__ = ["Bounds", "Log", "MemoryLog", "Page", "Receipt", "SQLiteLog", "make_log"]
