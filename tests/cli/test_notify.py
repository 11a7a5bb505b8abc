"""What `hub serve` says to systemd, over a socket such as systemd has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.cli.notify import Notifier, _watchdog_seconds
from tests.cli.commands import Serving
from tests.cli.supervised import Supervised


class Systemd:
    """The socket that `NOTIFY_SOCKET` names.

    Attributes:
        name: what the variable says.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    async def hears(self) -> str:
        async with asyncio.timeout(60):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    async def hears_at_last(self, text: str) -> list[str]:
        """Wait for *text*; return what was said before."""
        before: list[str] = []
        while (said := await self.hears()) != text:
            before.append(said)
        return before

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[Systemd]:
    systemd = Systemd(str(tmp_path / "notify"))
    yield systemd
    systemd.close()


@pytest.mark.slow
async def test_it_hears_that_the_hub_is_ready_that_it_lives_and_that_it_stops(
    systemd: Systemd, serving: Serving
) -> None:
    environ = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "200000"}
    hub = await serving("--drain", "0.5", environ=environ)
    assert await systemd.hears() == "READY=1"
    assert (await hub.site.ask("GET", "/readyz")).status == 200
    assert [await systemd.hears() for _ in range(3)] == ["WATCHDOG=1"] * 3
    hub.signal(signal.SIGTERM)
    assert set(await systemd.hears_at_last("STOPPING=1")) <= {"WATCHDOG=1"}
    assert await systemd.hears() == "WATCHDOG=1", "it would be killed while it drains"
    assert await hub.end() == 0
    hub.check_tidy()


@pytest.mark.slow
async def test_of_several_processes_only_the_supervisor_speaks(systemd: Systemd, tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "100000000"}
    hub = await Supervised.serve(tmp_path, "--workers", "2", "--drain", "0", environ=environ)
    try:
        assert [await systemd.hears() for _ in range(2)] == ["READY=1", "WATCHDOG=1"]
        assert len(hub.started) == 2, "it was said before all of them listened"
        hub.signal(signal.SIGTERM)
        assert await systemd.hears() == "STOPPING=1"
        assert await hub.end() == 0
    finally:
        await hub.aclose()


async def test_its_socket_may_have_a_name_that_is_no_path() -> None:
    systemd = Systemd(f"@hub-test-{os.getpid()}")
    Notifier({"NOTIFY_SOCKET": systemd.name}).say("READY=1")
    assert await systemd.hears() == "READY=1"
    systemd.close()


def test_without_systemd_nothing_is_said_and_one_that_has_gone_stops_nothing(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    Notifier({}).say("READY=1")
    Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).say("READY=1")
    assert not caplog.records
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nowhere")}).say("READY=1")
    assert "systemd can't be told READY=1" in caplog.text


def test_the_watchdog_is_for_the_process_that_is_named() -> None:
    assert _watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 30
    assert _watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 30
    assert _watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) == 0
    assert _watchdog_seconds({"WATCHDOG_USEC": "soon"}) == _watchdog_seconds({}) == 0
