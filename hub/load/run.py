"""One run, from the first connection to the report: connect, publish (with the storm), settle."""

from __future__ import annotations

import asyncio
import gc
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, closing

from hub.file_limit import UNLIMITED, raise_file_limit
from hub.load.display import Display, display_for
from hub.load.figures import Figures, Usage, process, processes_listening
from hub.load.latency import watch_lag
from hub.load.options import CannotRun, Options, is_loopback
from hub.load.publisher import Publisher
from hub.load.report import Report
from hub.load.subscribers import Subscribers

STORM_SHARE = 0.3
"""Share of the connections that the storm drops."""
LOOK = 0.05
"""Seconds between two checks whether the display is due and whether the run has come to rest."""
OPENING = 30.0
"""Seconds in which the subscribers must get their streams, plus one for each 100 of them."""
LONGEST_SETTLING = 60.0
"""Seconds beyond the grace period after which the waiting ends, even if deliveries still arrive."""
SPARE_FILES = 64
"""Files that the process needs besides the streams: loop, publisher, terminal, report, modules being imported."""


def show_load(options: Options) -> bool:
    """Run the load with *options*, show its progress and its report, and return whether all was well.

    Raises:
        CannotRun: the run can't take place.
    """
    options.check()
    with closing(display_for(options.seconds)) as display:
        before, limit = raise_file_limit()
        if limit != UNLIMITED:
            display.say(f"file limit: {limit:,}" + (f", raised from {before:,}" if limit != before else ""))
        if (need := options.connections + SPARE_FILES) > limit:
            raise CannotRun(
                f"needs {need:,} open files, the limit (ulimit -Hn) is {limit:,}: ask for fewer connections"
            )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            report = Report(runner.run(_load(options, options.find_hub(), display)))
    for line in report.lines():
        print(line)
    if options.report:
        report.write(options.report)
        print(f"report: {options.report}")
    return report.ok


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _load(options: Options, hub: tuple[str, int], display: Display) -> Figures:
    return await Run(options, hub, display).execute()


class Run:
    """One run. Call `execute` once.

    SIGINT and SIGTERM end the connecting, the publishing or the waiting for late deliveries; the report is still made.
    After a signal that ended the publishing, a second one ends the waiting.
    """

    def __init__(self, options: Options, hub: tuple[str, int], display: Display) -> None:
        run = secrets.token_hex(6)
        self._options, self._display = options, display
        self._figures = Figures(options)
        self._figures.loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        self._subscribers = Subscribers(self._figures, hub, run)
        self._publisher = Publisher(self._figures, hub, run)
        if options.pid is not None:
            self._server = [process(options.pid)]
        else:
            self._server = processes_listening(*hub) if is_loopback(hub[0]) else []
        self._figures.idle = Usage.of(self._server)
        self._ignored = 0  # number of interrupts that do not cancel the present work
        self._work: asyncio.Task[object] | None = None
        self._shown = (time.monotonic(), 0)

    async def execute(self) -> Figures:
        """Run all phases and return the figures."""
        figures = self._figures
        self._handle_signals()
        with closing(self._publisher):
            async with aclosing(self._subscribers):
                async with _alongside(self._keep_showing()):
                    await self._unless_interrupted(self._connect())
                    if not figures.interrupts:
                        figures.open = Usage.of(self._server)
                        gc.collect()
                        gc.freeze()  # the collector must not traverse thousands of connections during the measurement
                        async with _alongside(watch_lag(figures.lags)):  # not while settling: the loop is idle then
                            await self._publish()
                        await self._settle()
                        gc.unfreeze()
                self._conclude()
        return figures

    def _handle_signals(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt)
        except (ValueError, RuntimeError, NotImplementedError):
            pass  # not the main thread, or Windows: keep the default handlers

    def _interrupt(self) -> None:
        self._figures.interrupts += 1
        self._publisher.stopped = True
        if self._work is not None and self._figures.interrupts > self._ignored:
            self._work.cancel()

    async def _unless_interrupted(self, work: Coroutine[object, object, object], *, ignored: int = 0) -> None:
        """Run *work*, but cancel it as soon as there are more than *ignored* interrupts."""
        async with _alongside(work) as self._work:
            self._ignored = ignored
            if self._figures.interrupts > ignored:
                self._work.cancel()
            await asyncio.wait((self._work,))

    async def _connect(self) -> None:
        connections, started = self._options.connections, time.monotonic()
        gc.disable()  # the objects made now live as long as the run: collecting would only traverse them repeatedly
        try:
            await self._subscribers.open(OPENING + connections / 100)
        finally:
            gc.enable()
        self._figures.opening = time.monotonic() - started
        self._display.say(f"{connections:,} subscribers connected in {self._figures.opening:.2f} s")

    async def _publish(self) -> None:
        self._figures.phase = "publishing"
        async with _alongside(self._storm()) as storm:
            # The first interrupt sets `stopped`, which lets the publisher end by itself; the second cancels it.
            await self._unless_interrupted(self._publisher.publish(), ignored=1)
            await self._unless_interrupted(asyncio.wait((storm,)))  # the last event may be due before the storm

    async def _storm(self) -> None:
        if self._options.storm:
            await asyncio.sleep(self._options.planned / self._options.rate / 2)
            self._figures.dropped = self._subscribers.drop(STORM_SHARE)
            self._display.say(f"storm: dropped {self._figures.dropped:,} connections")

    async def _settle(self) -> None:
        self._figures.phase = "settling"
        async with _alongside(self._publisher.publish_end()):
            # An interrupt that ended the publishing does not end the waiting: that takes one more.
            await self._unless_interrupted(self._wait_for_stragglers(), ignored=min(self._figures.interrupts, 1))

    async def _wait_for_stragglers(self) -> None:
        """Wait until every subscriber has read the end, or nothing has arrived for the grace period."""
        grace, figures = self._options.grace, self._figures
        begun = still_since = time.monotonic()
        moved = -1
        while self._subscribers.unfinished:
            await asyncio.sleep(LOOK)
            now, before = time.monotonic(), moved
            moved = figures.delivered + figures.duplicates + figures.opened + figures.reconnects
            if moved != before:
                still_since = now
            if now > max(still_since, self._subscribers.returning) + grace or now > begun + LONGEST_SETTLING + grace:
                return

    async def _keep_showing(self) -> None:
        """Show the figures regularly, if possible at moments when no delivery is expected.

        Drawing takes milliseconds, and deliveries that arrive meanwhile would be measured too late.
        """
        figures, due = self._figures, time.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            if time.monotonic() >= due + (0 if figures.delivered >= figures.expected else self._display.every):
                (then, before), self._shown = self._shown, (time.monotonic(), figures.delivered)
                figures.deliveries_per_s = (figures.delivered - before) / max(time.monotonic() - then, 1e-3)
                figures.now = Usage.of(self._server)
                self._display.show(figures)
                due = time.monotonic() + self._display.every

    def _conclude(self) -> None:
        """Compute the final figures, and show them."""
        figures = self._figures
        figures.phase, figures.now = "done", Usage.of(self._server)
        figures.missing = self._subscribers.missing(figures.published)
        took = max(figures.published / self._options.rate, (figures.last_delivery - figures.started) / 1e9)
        figures.deliveries_per_s = figures.delivered / took if took > 0 else 0.0
        self._display.show(figures)


@asynccontextmanager
async def _alongside(work: Coroutine[object, object, object]) -> AsyncIterator[asyncio.Task[object]]:
    """Run *work* as a task during the block, then cancel it; an exception of the task is raised at the block's end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()
