"""From the settings to the home of the state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub.log_url import SQLITE, LogURL
from hub.settings import Settings
from hub.state.memory import MemoryState
from hub.state.sqlite import SQLiteState
from hub.state.state import State


def state_file(settings: Settings) -> Path | None:
    """Return the file of the state: as set, or beside the log's (`hub.state.db`); None: it is in memory only."""
    if settings.state is not None:
        return settings.state
    log = LogURL.parse(settings.log)
    return log.beside("state").path if log.scheme == SQLITE else None


def make_state(settings: Settings, clock: Callable[[], float]) -> State:
    """Return the state of a hub with *settings*, not opened yet; *clock* says seconds since 1970."""
    file = state_file(settings)
    return MemoryState(clock) if file is None else SQLiteState(file, clock)
