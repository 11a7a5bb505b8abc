"""`hub top`, once and in a terminal."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hub.cli.screen import Look, Screen, rate, size, span, spark
from tests.cli.commands import Run, Serving
from tests.ports import free_port
from tests.web.process import ROOT

FIGURES: dict[str, Any] = {
    "streams": {"subscription": 1200, "handler": 3, "generation": 0},
    "topics": 7,
    "generations": 0,
    "published": 10,
    "delivered": 12_000,
    "replayed": 0,
    "connects": 1203,
    "disconnects": 0,
    "dropped": 0,
    "slow_disconnects": 0,
    "peer_timeouts": 0,
    "refused": 0,
    "limited": 0,
    "unauthorized": 0,
    "forbidden": 0,
    "log": {"oldest": "a-1", "newest": "a-10", "count": 10, "bytes": 5_300_000},
    "draining": False,
    "processes": 2,
    "uptime": 3_700.0,
}


def histogram(**buckets: int) -> dict[str, Any]:
    """Return the figures of a histogram: `ms_5=3` are three values of at most 5 ms."""
    counts = {f"{int(name[3:]) / 1000:g}": count for name, count in buckets.items()}
    return {"count": sum(counts.values()), "sum": 1.0, "buckets": counts}


def worker(delivered: int, cpu: float, lags: int = 10) -> dict[str, Any]:
    figures = {"streams": 600, "delivered": delivered, "cpu_seconds": cpu, "memory_bytes": 2**26, "uptime": 70.0}
    return figures | {"loop_lag_seconds": histogram(ms_1=lags)}


def shown(screen: Screen) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen.table())
    return console.export_text()


def row(text: str, name: str) -> str:
    """Return what stands beside *name*."""
    found = re.search(rf"(?<!\S){re.escape(name)} +(\S+)", text)
    assert found, text
    return found[1]


def test_counters_are_shown_by_how_fast_they_grow() -> None:
    screen = Screen("http://hub")
    screen.show(FIGURES, 10.0)
    assert row(shown(screen), "delivered/s") == "-", "of one look nothing is known"
    screen.show({**FIGURES, "delivered": 36_000, "dropped": 4, "draining": True}, 12.0)
    text = shown(screen)
    assert row(text, "delivered/s") == "12,000"
    assert row(text, "subscriptions") == "1,200"
    assert " 1,203 " in text, "all of them"
    assert row(text, "dropped") == "4"
    assert row(text, "size") == "5.1"
    assert "up 1 h 1 min" in text
    assert "2 processes  draining" in text
    screen.lost("it did not answer in time")
    assert "it did not answer in time" in shown(screen)
    screen.show({**FIGURES, "log": None}, 13.0)
    text = shown(screen)
    assert "it does not answer" in text
    assert "in time" not in text
    assert row(text, "delivered/s") == "-", "a process has gone, and with it what it had counted"


def test_times_and_processes_are_those_since_the_last_look() -> None:
    screen = Screen("http://hub")
    slow = {"publish_written_seconds": histogram(ms_1=0, ms_1000=50), "log_answered_seconds_ago": 0.0}
    screen.show({**FIGURES, **slow, "workers": {"a-1": worker(0, 1.0), "a-2": worker(50, 2.0)}}, 10.0)
    later = {"publish_written_seconds": histogram(ms_1=100, ms_1000=50), "log_answered_seconds_ago": 7.0}
    screen.show({**FIGURES, **later, "workers": {"a-1": worker(2_000, 1.5, 12), "b-1": worker(9, 0.1)}}, 12.0)
    text = shown(screen)
    assert row(text, "publish → written") == "0.5", "the slow ones were before"
    assert row(text, "log answered") == "7"
    assert re.search(r"a-1 +600 +1,000 +64.0 MiB +25 % .* ms +1 min 10 s", text), text
    assert re.search(r"b-1 +600 +- +64.0 MiB +- ", text), "it is new"
    assert "a-2" not in text


def test_numbers_are_written_as_people_say_them() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5_300_000, 2**40, 2**50)] == [
        *("0 B", "1,023 B", "1.0 KiB", "5.1 MiB", "1.0 TiB", "1,024.0 TiB")
    ]
    assert [span(n) for n in (5.9, 65, 3_700, 200_000)] == ["5 s", "1 min 5 s", "1 h 1 min", "2 d 7 h"]
    assert spark([0, 0], 5) == "▁▁"
    assert spark([1, 2, 4, 8], 3) == "▃▅█"
    assert rate(Look(1.0, {"x": 1}), Look(1.0, {"x": 2}), "x") is None


@pytest.mark.slow
async def test_once_it_prints_what_the_hub_counts(serving: Serving, run: Run) -> None:
    hub = await serving()
    for _ in range(3):
        await hub.site.subscribe("a")
    await hub.site.publish([{"topic": "a", "data": number} for number in range(5)])
    top = await run("top", "--once", "--every", "0.1", "--url", hub.url)
    assert await top.end() == 0, top.err
    assert row(top.out, "subscriptions") == "3"
    assert row(top.out, "published in all") == "5"
    assert row(top.out, "delivered in all") == "15"
    assert row(top.out, "newest").endswith("-5")
    assert re.search(r"^ *\S+ +3 +\d+ +[\d.]+ MiB +\d+ % .* s *$", top.out, re.MULTILINE), "the process"
    assert row(top.out, "publish → kept") == "-", "nothing was published since the first look"
    away = await run("top", "--once", "--url", f"http://127.0.0.1:{free_port()}")
    assert await away.end() == 1
    assert away.err.count("\n") == 1


@pytest.mark.slow
async def test_in_a_terminal_it_goes_on_until_q(serving: Serving) -> None:
    hub = await serving()
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", "top", "--every", "0.1", "--url", hub.url),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "PYTHONPATH": str(ROOT)},
            cwd=Path(ROOT),
        )
        os.close(theirs)  # from now on, reading ends with the process
        await hub.site.publish({"topic": "a", "data": 1})
        drawn = ""
        async with asyncio.timeout(60):
            while not re.search(r"published in all +1\b", drawn):
                drawn = (drawn + await read(ours))[-20_000:]
            os.write(ours, b"q")
            with suppress(OSError):
                while True:
                    drawn = (drawn + await read(ours))[-20_000:]
            assert await process.wait() == 0
    finally:
        os.close(ours)
    assert "q quits" in drawn
    assert "Traceback" not in drawn


async def read(terminal: int) -> str:
    """Return what is on the *terminal* next, without its control sequences."""
    data = await asyncio.to_thread(os.read, terminal, 65_536)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
