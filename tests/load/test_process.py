"""The hub's processes as the system sees them."""

from __future__ import annotations

import os
import socket

import pytest

from hub.load.options import CannotRun
from hub.load.process import Usage, process, processes_listening


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(CannotRun, match="2147483647"):
        process(2**31 - 1)


def test_whoever_listens_on_the_port_is_the_hub() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert [found.pid for found in processes_listening("127.0.0.1", port)] == [os.getpid()]
        assert processes_listening("127.0.0.2", port) == []


def test_processes_that_are_unknown_use_nothing_that_is_known() -> None:
    assert Usage.of([]) is None
    used = Usage.of([process(os.getpid())])
    assert used is not None
    assert used.rss > 1e6
    assert used.cpu_seconds > 0
