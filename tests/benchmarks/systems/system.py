"""What is to be known of a server in order to measure it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from tests.benchmarks.served import Served


class Paths(NamedTuple):
    """Where a system is subscribed to and published to, and what stands around the data of a publish.

    *wire* is the name of how a driver speaks to it, in `wire.py`. A `{topic}` in the path or in the text before is the
    topic of each, where a run has several.
    """

    subscribe: str
    publish: str
    before: str = ""
    after: str = ""
    wire: str = "sse"


class System(Protocol):
    """A server that sends what is posted to it to everybody who listens."""

    @property
    def name(self) -> str:
        """What `--systems` calls it."""
        ...

    @property
    def title(self) -> str:
        """What the tables call it."""
        ...

    @property
    def paths(self) -> Paths:
        """Where what is."""
        ...

    def missing(self) -> str:
        """Return what it lacks to be started here; empty if nothing."""
        ...

    def version(self) -> str:
        """Return its version, and those of what it stands on."""
        ...

    def serve(self, folder: Path, *, core: int | None) -> Served:
        """Return it, ready to be started on a free port, with its files in *folder*."""
        ...
