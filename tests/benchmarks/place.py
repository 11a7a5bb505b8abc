"""Where the benchmark works: a folder next to the project that git does not look at, on a disk and not in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".bench"
"""What is kept between runs: the packages of systems that come from elsewhere."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that lives as long as the block."""
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="run-") as folder:
        yield Path(folder)
