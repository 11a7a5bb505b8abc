"""The log: the append-only, totally ordered history. One protocol, several homes."""

from hub.log.archive import Contents
from hub.log.gone import Lost
from hub.log.home import make_log
from hub.log.log import Bounds, Frames, Lasting, Log, Page
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt
from hub.log.spool import Spool
from hub.log.sqlite import SQLiteLog

__all__ = [
    "Bounds",
    "Contents",
    "Frames",
    "Lasting",
    "Log",
    "Lost",
    "MemoryLog",
    "Page",
    "Receipt",
    "SQLiteLog",
    "Spool",
    "make_log",
]
