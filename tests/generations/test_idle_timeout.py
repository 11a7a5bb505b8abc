"""An idle timeout that is restarted whenever something happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hub.generations.idle_timeout import IdleTimeout


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call = at, call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The clock and the timers of an event loop; time passes when it is told to."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self._now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self._timers.append(Timer(self._now + seconds, call))
        return self._timers[-1]

    def wait(self, seconds: float) -> None:
        """Let *seconds* pass, and call what is due on the way."""
        end = self._now + seconds
        while due := [each for each in self._timers if not each.cancelled and each.at <= end]:
            first = min(due, key=lambda each: each.at)
            self._timers.remove(first)
            self._now = first.at
            first.call()
        self._now = end


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


@pytest.fixture
def lost() -> list[float]:
    """When the timeout expired."""
    return []


def idle_timeout(loop: Loop, lost: list[float], seconds: float) -> IdleTimeout:
    return IdleTimeout(seconds, lambda: lost.append(loop.time()))


def test_silence_is_told_once_and_at_its_end(loop: Loop, lost: list[float]):
    idle_timeout(loop, lost, 8)
    loop.wait(7.5)
    assert not lost
    loop.wait(100)
    assert lost == [1_008]


def test_silence_is_counted_from_the_last_restart(loop: Loop, lost: list[float]):
    waiting = idle_timeout(loop, lost, 8)
    loop.wait(5)
    waiting.restart(8)
    loop.wait(7.5)
    assert not lost
    loop.wait(100)
    assert lost == [1_013]


def test_many_restarts_need_one_timer(loop: Loop, lost: list[float]):
    waiting = idle_timeout(loop, lost, 8)
    for _ in range(10_000):
        loop.wait(0.5)
        waiting.restart(8)
        assert len(loop._timers) == 1
    assert not lost


def test_nothing_is_told_after_a_stop(loop: Loop, lost: list[float]):
    idle_timeout(loop, lost, 8).stop()
    loop.wait(100)
    assert not lost


def test_the_timeout_can_grow(loop: Loop, lost: list[float]):
    waiting = idle_timeout(loop, lost, 8)
    waiting.restart(64)
    loop.wait(100)
    assert lost == [1_064]


def test_the_timeout_can_shrink(loop: Loop, lost: list[float]):
    waiting = idle_timeout(loop, lost, 64)
    waiting.restart(8)
    loop.wait(100)
    assert lost == [1_008]
