"""A run from the first connection to the report: open, publish (and storm), settle."""

from __future__ import annotations

import asyncio
import datetime
import gc
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hub.demo.load.audience import Audience
from hub.demo.load.background import alongside, end, unless
from hub.demo.load.display import Display
from hub.demo.load.errors import HubUnreachable
from hub.demo.load.figures import Figures, Phase
from hub.demo.load.lag import LagProbe
from hub.demo.load.options import STORM_SHARE, Options
from hub.demo.load.publisher import Publisher
from hub.demo.load.report import Report
from hub.demo.load.server import Server, Usage, find_server
from hub.demo.load.signals import Signals, hear_signals
from hub.demo.load.target import Target, is_loopback

LOOK = 0.05
"""Seconds between two looks at whether the display is due and the run at rest."""
OPENING = 30.0
"""Seconds for the subscribers to get their streams, and one more for each 100 of them."""
LONGEST_SETTLING = 60.0
"""Seconds beyond the grace after which nobody is waited for, even if things still move."""


async def play(options: Options, addresses: tuple[str, ...], display: Display) -> Report:
    """Run what *options* ask for against the hub at one of *addresses*, and return its report.

    SIGINT and SIGTERM end the publishing and still bring the report; a second one ends the waiting too.

    Raises:
        CannotRun: there is nothing to measure.
    """
    address = await _reachable(options.target, addresses)
    if options.pid is not None:
        server: Server | None = Server([options.pid])
    else:
        server = find_server(address, options.target.port) if is_loopback(address) else None
    run = secrets.token_hex(6)
    audience = Audience(options.target, address, options.topic, run, options.connections)
    publisher = Publisher(options, address, run)
    async with audience:
        with hear_signals() as signals:
            scene = Scene(
                options, audience=audience, publisher=publisher, server=server, display=display, signals=signals
            )
            try:
                return await scene.play()
            finally:
                await publisher.aclose()


class Scene:
    """One run. `play` it once."""

    def __init__(
        self,
        options: Options,
        *,
        audience: Audience,
        publisher: Publisher,
        server: Server | None,
        display: Display,
        signals: Signals,
    ) -> None:
        self._options, self._audience, self._publisher = options, audience, publisher
        self._server, self._display, self._signals = server, display, signals
        self._phase = Phase.CONNECTING
        self._lag = LagProbe()
        self._dropped = 0
        self._before = self._connected = self._usage = self._look()
        self._opening = 0.0
        self._shown = (time.monotonic(), 0)

    async def play(self) -> Report:
        """Go through all phases and return the report.

        Raises:
            CannotRun: there is nothing to measure.
        """
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        async with alongside(self._keep_showing()):
            await self._open()
            if not self._signals.stop.is_set():
                self._connected = self._look()
                with _frozen():
                    async with alongside(self._lag.watch()):  # waiting for stragglers is idle and would dilute it
                        await self._publish()
                    await self._settle()
        self._phase = Phase.DONE
        figures = self._conclude()
        self._display.show(figures)
        return self._report(began, figures)

    async def _open(self) -> None:
        options, started = self._options, time.monotonic()
        await unless(self._signals.stop, self._audience.open(OPENING + options.connections / 100))
        self._opening = time.monotonic() - started
        if not self._signals.stop.is_set():
            self._display.say(f"{options.connections:,} subscribers connected in {self._opening:.2f} s")

    async def _publish(self) -> None:
        self._phase = Phase.PUBLISHING
        storm = asyncio.create_task(self._storm())
        try:
            await unless(self._signals.now, self._publisher.publish(self._signals.stop))
            await unless(self._signals.stop, asyncio.wait((storm,)))  # the last event may be due before mid run
        finally:
            await end(storm)

    async def _storm(self) -> None:
        if not self._options.storm:
            return
        await asyncio.sleep(self._options.planned / self._options.rate / 2)
        self._dropped = self._audience.drop(STORM_SHARE)
        self._display.say(f"storm: dropped {self._dropped:,} connections")

    async def _settle(self) -> None:
        """Wait until everybody has read the end, or until nothing has moved for the grace period."""
        self._phase = Phase.SETTLING
        grace, audience = self._options.grace, self._audience
        # Who ended the publishing asks again to end the waiting too; who did not asks for the first time.
        asked = self._signals.now if self._signals.stop.is_set() else self._signals.stop
        begun = still_since = time.monotonic()
        moved = -1
        give_up = asyncio.Event()
        async with alongside(unless(asked, self._publisher.end(give_up))):
            while not (audience.all_finished.is_set() or asked.is_set()):
                await asyncio.sleep(LOOK)
                now, before = time.monotonic(), moved
                tally = audience.tally
                moved = tally.delivered + tally.duplicates + audience.seated + audience.reconnects
                if moved != before:
                    still_since = now
                if now > max(still_since, audience.returning) + grace or now > begun + LONGEST_SETTLING + grace:
                    break

    async def _keep_showing(self) -> None:
        """Show the figures when it is time, if possible while nothing is on its way.

        Drawing takes milliseconds; what arrives in them would be measured late.
        """
        due = time.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            now, tally = time.monotonic(), self._audience.tally
            at_rest = tally.delivered >= self._publisher.accepted * self._options.connections
            if now >= due + (0 if at_rest else self._display.every):
                self._display.show(self._figures())
                due = time.monotonic() + self._display.every

    def _look(self) -> Usage | None:
        return None if self._server is None else self._server.look()

    def _figures(self) -> Figures:
        audience, publisher, tally = self._audience, self._publisher, self._audience.tally
        now, (then, delivered) = time.monotonic(), self._shown
        self._shown = now, tally.delivered
        self._usage = self._look()
        return Figures(
            phase=self._phase,
            elapsed=now - publisher.started / 1e9 if publisher.started else 0.0,
            connections=self._options.connections,
            connected=audience.present,
            planned=self._options.planned,
            published=publisher.accepted,
            expected=publisher.accepted * self._options.connections,
            delivered=tally.delivered,
            missing=tally.skipped,
            duplicates=tally.duplicates,
            out_of_order=tally.out_of_order,
            reconnects=audience.reconnects,
            deliveries_per_s=(tally.delivered - delivered) / max(now - then, 1e-3),
            latency=audience.latencies.spread(),
            lag=self._lag.spread(),
            server=self._usage,
        )

    def _conclude(self) -> Figures:
        """Return the figures of the whole run."""
        publisher = self._publisher
        schedule = publisher.accepted / self._options.rate
        took = max(schedule, (self._audience.last_delivery - publisher.started) / 1e9)
        return replace(
            self._figures(),
            missing=self._audience.missing(publisher.accepted),
            deliveries_per_s=self._audience.tally.delivered / took if took > 0 else 0.0,
        )

    def _report(self, began: str, figures: Figures) -> Report:
        audience, publisher = self._audience, self._publisher
        return Report(
            options=self._options,
            figures=figures,
            began=began,
            opening=self._opening,
            posts=publisher.posts,
            retries=publisher.retries,
            dropped=self._dropped,
            caught_up=audience.caught_up.spread(),
            failures=audience.failures,
            server=self._server_facts(figures.delivered),
            driver={
                "python": platform.python_version(),
                "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
            },
            interrupted=self._signals.stop.is_set(),
            trouble=publisher.trouble,
            refusals=audience.refusals,
            gaps=audience.gaps,
            notices=audience.notices,
        )

    def _server_facts(self, delivered: int) -> dict[str, float] | None:
        before, connected, last = self._before, self._connected, self._usage
        if before is None or connected is None or last is None:
            return None
        spent = last.cpu_seconds - connected.cpu_seconds
        return {
            "rss_before": before.rss,
            "rss_connected": connected.rss,
            "rss_end": last.rss,
            "rss_growth_per_connection": round((connected.rss - before.rss) / self._options.connections),
            "cpu_s": round(spent, 3),
            "cpu_us_per_delivery": round(1e6 * spent / delivered, 2) if delivered else 0.0,
        }


async def _reachable(target: Target, addresses: tuple[str, ...]) -> str:
    """Return the first of *addresses* where something listens.

    Raises:
        HubUnreachable: none.
    """
    why = "no address"
    for address in addresses:
        try:
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(address, target.port)
        except (OSError, TimeoutError) as error:
            why = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or "no answer"
        else:
            writer.transport.abort()
            return address
    raise HubUnreachable(target.url, why)


@contextmanager
def _frozen() -> Iterator[None]:
    """Keep the garbage collector from walking thousands of connections while their reads are timed."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
