"""The homes of a log that are compared."""

from __future__ import annotations

from pathlib import Path


def homes(folder: Path) -> dict[str, str]:
    """Return the address of a log in *folder*, and of one in memory, by what the tables call them."""
    return {"SQLite": f"sqlite:///{folder}/hub.db", "memory": "memory://"}
