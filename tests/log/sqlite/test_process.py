"""A process of the log: what it is given, what it gets from whoever started it, and how its end is heard."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from hub.errors import LogUnavailable
from hub.notification import Position
from tests.contracts.test_log import append, drafts, offsets, read_all
from tests.log.sqlite.home import Home, settled
from tests.log.sqlite.processes import bytes_in, goes_on, kill, mended, pid, pipe, workers
from tests.torture import children
from tests.web.client import until
from tests.web.process import ROOT, ServeProcess

pytestmark = pytest.mark.slow


# ---- its end ----


async def test_an_answer_that_is_read_after_the_end_of_its_process_counts(home: Home):
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    log = await home.open()
    writer = workers(log)[0]
    answers = pipe(writer)
    answers.pause_reading()
    receipts = log.append(drafts("a"))
    await until(lambda: bytes_in(answers.get_extra_info("pipe").fileno()))
    os.kill(pid(writer), signal.SIGKILL)
    await until(lambda: cast(Any, writer._transport).get_returncode() is not None)
    answers.resume_reading()
    assert await settled(receipts) == [(log.epoch, 1)]
    assert await goes_on(log) == 2
    assert complaints == []


@pytest.mark.parametrize(
    "module",
    ["asyncio", "uvloop"],
)
def test_an_append_to_a_process_whose_input_is_closed_is_settled(tmp_path: Path, module: str):
    # The loop notices that the input is closed before it notices that the process has ended.
    if not os.environ.get("CI"):
        pytest.importorskip(module)

    async def append_to_it() -> None:
        home = Home(tmp_path / "hub.db")
        log = await home.open()
        writer = workers(log)[0]
        assert writer._stdin is not None
        writer._stdin.close()
        async with asyncio.timeout(60):
            outcomes = await settled(log.append(drafts("a")))
        assert isinstance(outcomes[0], LogUnavailable | Position)
        await goes_on(log)
        await home.aclose()

    with asyncio.Runner(loop_factory=importlib.import_module(module).new_event_loop) as runner:
        runner.run(append_to_it())


async def test_a_killed_reader_fails_what_was_asked_and_the_log_goes_on(home: Home):
    log = await home.open()
    await append(log, *"aaa")
    reader = workers(log)[1]
    os.kill(pid(reader), signal.SIGSTOP)
    page = log.read(0, ["a"], upto=3)
    await kill(reader)
    with pytest.raises(LogUnavailable):
        await page
    with pytest.raises(LogUnavailable):
        await log.read(0, ["a"], upto=3)
    await mended(log)
    assert offsets(await read_all(log, 0, ["a"])) == [1, 2, 3]
    assert await append(log, "a") == [4]


# ---- beside a hub that serves ----


@pytest.fixture
async def hub(home: Home) -> AsyncIterator[ServeProcess]:
    """`hub serve` on the file, in a process group of its own, the way a terminal starts it."""
    hub = ServeProcess(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", "serve", "--port", "0", "--drain", "0.2", "--log", f"sqlite:///{home.path}"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    yield await hub.listening()
    await hub.aclose()


async def test_the_processes_inherit_no_socket_of_the_hub(hub: ServeProcess):
    await hub.site.subscribe()
    first = children(hub._process.pid)
    for each in first:
        os.kill(each, signal.SIGKILL)
    # What is started now, while the hub listens and a stream is open, could inherit something.
    async with asyncio.timeout(60):
        while (await hub.site.publish({"data": 1})).status != 201:
            pass
    again = children(hub._process.pid)
    assert len(again) == 2
    assert not set(again) & set(first)
    for each in again:
        assert not sockets(each) & sockets(hub._process.pid)
        its_own = [each for number, each in open_files(each).items() if number <= 2]
        assert sockets(each) <= {*its_own}, "its pipes, and with uvloop another name for each of them"


def open_files(process: int) -> dict[int, str]:
    """What a process has open, by descriptor (Linux)."""
    found: dict[int, str] = {}
    for each in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(each.name)] = str(each.readlink())
    return found


def sockets(process: int) -> set[str]:
    return {each for each in open_files(process).values() if each.startswith("socket:")}


async def test_a_ctrl_c_ends_the_hub_and_only_then_the_log(hub: ServeProcess, home: Home):
    stream = await hub.site.subscribe()
    for number in range(20):
        assert (await hub.site.publish({"data": number})).status == 201
    os.killpg(hub._process.pid, signal.SIGINT)
    assert await hub.end() == 0
    hub.check_tidy()
    assert "died" not in hub.err
    assert len([event for event in await stream.rest() if event.type == "message"]) == 20
    assert not home.path.with_name("hub.db-wal").exists(), "the writer has closed the file"
    assert home.ask("SELECT count(*) FROM notification") == [(20,)]


# ---- its Python ----


async def test_another_python_than_the_hub_s_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch):
    version = (3, sys.version_info[1] + 1, *sys.version_info[2:])
    monkeypatch.setattr("hub.log.sqlite.process.sys.version_info", version)
    refusal = await home.refused()
    assert f"is Python 3.{version[1] - 1}, and the hub runs on 3.{version[1]}" in refusal
