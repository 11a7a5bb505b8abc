"""What tests of the writer and of the reader share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hub.log.sqlite.worker.writer import Writer
from tests.log.sqlite.home import Home
from tests.log.sqlite.worker.in_process import open_writer


@pytest.fixture
def write(home: Home) -> Iterator[Callable[..., Writer]]:
    """Return a maker of writers in this process."""
    made: list[Writer] = []

    def write(**topics: int) -> Writer:
        made.append(open_writer(home.path, topics=topics.items()))
        return made[-1]

    yield write
    for each in made:
        each.close()
