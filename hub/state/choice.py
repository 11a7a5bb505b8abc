"""From the settings to the home of the state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub.log.choice import needs
from hub.log_url import REDIS, SQLITE, LogURL
from hub.settings import Settings
from hub.state.memory import MemoryState
from hub.state.peers import Alone, Peers
from hub.state.sqlite import SQLiteState
from hub.state.state import State


def state_file(settings: Settings) -> Path | None:
    """Return the file of the state: as set, or beside the log's (`hub.state.db`); None: it is where the log is."""
    if settings.state is not None:
        return settings.state
    log = LogURL.parse(settings.log)
    return log.beside("state").path if log.scheme == SQLITE else None


def make_state(settings: Settings, clock: Callable[[], float]) -> State:
    """Return the state of a hub with *settings*, not opened yet; *clock* says seconds since 1970.

    Raises:
        InvalidSettings: what a state in Redis needs is not installed.
    """
    file, log = state_file(settings), LogURL.parse(settings.log)
    if file is not None:
        return SQLiteState(file, clock)
    if log.scheme == REDIS:
        try:
            from hub.state.redis.state import RedisState  # noqa: PLC0415 - only where it is used
        except ModuleNotFoundError as missing:
            raise needs(log, missing) from None
        return RedisState(log.redis, settings.redis_prefix, clock)
    return MemoryState(clock)


def make_peers(settings: Settings) -> Peers:
    """Return the other processes of a hub with *settings*: those with the same log in Redis, not opened yet."""
    log = LogURL.parse(settings.log)
    if log.scheme == REDIS:
        from hub.state.redis.peers import RedisPeers  # noqa: PLC0415 - only where it is used

        return RedisPeers(log.redis, settings.redis_prefix)
    return Alone()
