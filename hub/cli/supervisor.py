"""The supervisor of `hub serve --workers N`: it opens the listening sockets, and keeps N workers that accept from them.

On Linux each worker has sockets of its own, over which the kernel spreads the connections evenly. The supervisor keeps
them open as long as any worker is to come: when a worker is replaced, the next one inherits them, and no connection
that waits in their queue is refused or reset. While a worker is dead, or its event loop hangs, the others accept from
its sockets as well. Sockets that were received are shared by all workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hub.cli.control import BEAT_SECONDS
from hub.cli.door import open_slots, open_sockets, scheme_of
from hub.cli.notify import Notifier
from hub.cli.sockets import Received, close_all, shown
from hub.cli.worker_process import StartFailed, WorkerProcess
from hub.errors import InvalidSettings
from hub.file_limit import raise_file_limit
from hub.log_url import MEMORY, PRIVATE, SQLITE, LogURL
from hub.settings import Settings

logger = logging.getLogger("hub")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
HEALTHY_SECONDS = 10.0  # a worker that lived as long is replaced without a pause
LEND_AFTER = 5  # missed beats, each a second
KILL_AFTER = 30
_STOPS = (signal.SIGTERM, signal.SIGINT)

Start = Callable[[int], Awaitable[WorkerProcess]]
Slots = dict[int, list[socket.socket]]  # the sockets for everybody, by the number of the worker


def supervise(
    settings: Settings, flags: Mapping[str, Any], config: Path | None, received: Received, *, seconds: float
) -> int:
    """Run a supervisor until SIGTERM or SIGINT; return 0 if each worker has ended well.

    Args:
        settings: the settings.
        flags: those of them that have precedence over the environment and the file, also for workers that come later.
        config: the file with settings.
        received: the sockets that this process was started with; those that are missing are added.
        seconds: in which a worker ends after a signal.

    Raises:
        InvalidSettings: workers can't share the log.
        HubError: it can't listen, or no worker can start.
    """
    check_log(settings.log)
    raise_file_limit()
    address = LogURL.parse(settings.log)
    if address.scheme != PRIVATE:
        return asyncio.run(_supervise(settings, flags, config, received, seconds))
    from hub.log.redis.private.server import PrivateRedis  # noqa: PLC0415 - only where it is wanted

    private = PrivateRedis(address.path)

    async def run() -> int:
        async with private:  # it ends when all workers have ended
            return await _supervise(settings.model_copy(update={"log": private.url}), flags, config, received, seconds)

    return asyncio.run(run())


def check_log(log: str) -> None:
    """Raise `InvalidSettings` if several processes can't share a *log*."""
    scheme = LogURL.parse(log).scheme
    if scheme in {MEMORY, SQLITE}:
        why = (
            f"workers (HUB_WORKERS): need a log that all of them share, which {scheme}:// is not: name a Redis with "
            "--log redis://host:6379 (HUB_LOG), or let the hub run one of its own with --log redis+private:///data/redis"
        )
        raise InvalidSettings([why])


async def _supervise(
    settings: Settings, flags: Mapping[str, Any], config: Path | None, received: Received, seconds: float
) -> int:
    # What a worker reads of these when it takes another one's place may have been changed: it has no effect.
    fixed = {"workers": settings.workers, "log": settings.log, "host": settings.host, "port": settings.port}
    if settings.admin_port is not None:
        fixed |= {"admin_host": settings.admin_host, "admin_port": settings.admin_port}

    async def start(number: int) -> WorkerProcess:
        return await WorkerProcess.start(number, {**flags, **fixed}, config, Received(slots[number], received.admin))

    def ready() -> None:
        print(*_lines(settings, Received(slots[1], received.admin)), sep="\n", flush=True)
        notifier.ready()

    notifier = Notifier()
    slots = _slots(settings, received)
    try:
        if settings.admin_port is not None and not received.admin:
            received.admin.extend(open_sockets(settings.admin_host, settings.admin_port, "admin_port"))
        return await Supervisor(slots, start, seconds, leave=bool(received.users)).run(
            ready, notifier.stopping, received.admin
        )
    finally:
        notifier.stop()
        for sockets in slots.values():
            close_all(sockets)


def _slots(settings: Settings, received: Received) -> Slots:
    """Return the sockets of each worker; all have the same ones if they were received, and elsewhere than on Linux."""
    numbers = range(1, settings.workers + 1)
    if received.users:
        return dict.fromkeys(numbers, received.users)
    if sys.platform != "linux":
        return dict.fromkeys(numbers, open_sockets(settings.host, settings.port, "port"))
    return dict(zip(numbers, open_slots(settings.host, settings.port, "port", settings.workers), strict=True))


def _lines(settings: Settings, sockets: Received) -> list[str]:
    scheme = scheme_of(settings)
    return [
        f"hub: {name} on {shown(sock, scheme)}"
        for name, found in (("listening", sockets.users), ("administration", sockets.admin))
        for sock in found
    ]


class Supervisor:
    """Keeps a worker for each of *slots*.

    Args:
        slots: the sockets of each worker; they are closed when a signal comes.
        start: starts the worker with a number, and returns it when it listens.
        seconds: in which a worker ends after a signal; then it is killed.
        leave: after SIGTERM accept no more connections, for the sockets stay open elsewhere, for the next process.
    """

    def __init__(self, slots: Slots, start: Start, seconds: float, *, leave: bool = False) -> None:
        self._leave_sockets = leave
        self._slots = slots
        self._start = start
        self._seconds = seconds
        self._workers: dict[int, WorkerProcess] = {}  # by number, those that accept connections
        self._locks = {number: asyncio.Lock() for number in slots}  # held while one is started
        self._leaving: set[WorkerProcess] = set()  # those whose place another one has taken
        self._tasks: set[asyncio.Task[None]] = set()
        self._replacing = asyncio.Event()

    async def run(self, ready: Callable[[], None], stopping: Callable[[], None], others: list[socket.socket]) -> int:
        """Run until a signal comes; call *ready* when every worker listens, and close *others* too when a signal comes.

        Call *stopping* when it comes.

        The second signal kills all workers, and ends this process, at once. Return the exit status.
        """
        stop = self._signals()
        begin = asyncio.create_task(self._begin())
        either: set[asyncio.Future[Any]] = {stop, begin}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if begin.done() and (error := begin.exception()) is not None:
            await self._end(signal.SIGINT)
            if not isinstance(error, StartFailed):
                raise error
            logger.error("%s: the hub does not start", error)
            return error.status
        if begin.done():
            ready()
            self._tasks |= {asyncio.create_task(self._keep(number)) for number in self._locks}
            self._tasks |= {asyncio.create_task(each) for each in (self._replace_when_asked(), self._count_beats())}
            either = {stop, *self._tasks}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        self._tasks.add(begin)
        crashed = [task for task in self._tasks if task.done() and not task.cancelled() and task.exception()]
        number = stop.result() if stop.done() else signal.SIGTERM
        stopping()
        # The workers have them, and the last one that closes them ends what waits there: this process would keep
        # connections waiting that nobody accepts any more.
        for each in (*self._slots.values(), others):
            close_all(each)
        leave = self._leave_sockets and number == signal.SIGTERM
        well = await self._end(signal.SIGHUP if leave else number)
        for task in crashed:
            await task
        logger.info("all workers have ended")
        return 0 if well else 1

    def _signals(self) -> asyncio.Future[int]:
        """Return the future of the first SIGTERM or SIGINT. SIGHUP asks for other workers from now on."""
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[int] = loop.create_future()

        def hear(number: int) -> None:
            if stop.done():
                for worker in (*self._workers.values(), *self._leaving):
                    worker.kill()
                os._exit(128 + number)
            stop.set_result(number)

        for number in _STOPS:
            loop.add_signal_handler(number, hear, number)
        loop.add_signal_handler(signal.SIGHUP, self._replacing.set)
        return stop

    # ---- keeping them ----

    async def _begin(self) -> None:
        """Start the first worker, and the others when it listens: what is wrong with the settings is told once."""
        first, *others = self._locks
        await self._start_anew(first)
        try:
            async with asyncio.TaskGroup() as group:
                for number in others:
                    group.create_task(self._start_anew(number))
        except* StartFailed as failed:
            raise failed.exceptions[0] from None

    async def _start_anew(self, number: int) -> None:
        """Start the worker with this *number*, beside the one that has it now."""
        self._workers[number] = worker = await self._start(number)
        self._lend()
        logger.info("%s accepts connections", worker)

    async def _keep(self, number: int) -> None:
        """Start the worker with this *number* again whenever it dies; if that goes on, after growing pauses."""
        clock = asyncio.get_running_loop().time
        pause, since = 0.0, clock()
        while True:
            worker = self._workers[number]
            await worker.ended()
            if self._workers[number] is not worker:  # another one has taken its place
                pause, since = 0.0, clock()
                continue
            self._lend()
            if clock() - since >= HEALTHY_SECONDS:
                pause = 0.0
            why = f"{worker} {worker.end()}"
            while self._workers[number] is worker:
                logger.error("%s: it is started again%s", why, f" in {pause:g} s" if pause else "")
                await asyncio.sleep(pause)
                pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
                async with self._locks[number]:
                    if self._workers[number] is worker:
                        try:
                            await self._start_anew(number)
                        except StartFailed as error:
                            why = str(error)
            since = clock()

    async def _count_beats(self) -> None:
        """Kill a worker whose event loop hangs.

        Beats are counted, not seconds: while this process is stopped, or the machine is, nobody is silent.
        """
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            for worker in self._workers.values():
                worker.missed += worker.alive
                silent = f"{worker.missed * BEAT_SECONDS:g} s"
                if worker.missed == LEND_AFTER:
                    logger.warning("%s has been silent for %s", worker, silent)
                elif worker.missed == KILL_AFTER:
                    logger.error("%s has been silent for %s, its event loop hangs: it is killed", worker, silent)
                    worker.kill()
            self._lend()

    def _lend(self) -> None:
        """Have all others accept from the sockets of workers that are dead or silent."""
        away = {worker.number for worker in self._workers.values() if not worker.alive or worker.missed >= LEND_AFTER}
        for number, worker in self._workers.items():
            if number not in away:
                mine = self._slots[number]
                worker.accept_for({each: self._slots[each] for each in away if self._slots[each] is not mine})

    async def _replace_when_asked(self) -> None:
        while True:
            await self._replacing.wait()
            self._replacing.clear()
            logger.info("replacing the workers one by one")
            try:
                for number in self._locks:
                    await self._replace(number)
            except StartFailed as error:
                logger.error("%s: the workers that were not replaced stay", error)
            else:
                logger.info("all workers were replaced")

    async def _replace(self, number: int) -> None:
        """Put another worker in the place of the one with this *number*, which ends its streams and then itself."""
        async with self._locks[number]:
            old = self._workers[number]
            await self._start_anew(number)
        if old.alive:
            # Not before the next one accepts. What waits in the queue of the sockets is for the others.
            self._leaving.add(old)
            old.signal(signal.SIGHUP)
            self._tasks.add(leaving := asyncio.create_task(self._leave(old)))
            leaving.add_done_callback(self._tasks.discard)

    async def _leave(self, worker: WorkerProcess) -> None:
        await self._end_of({worker})
        self._leaving.discard(worker)
        if worker.status:
            logger.error("%s, which was replaced, %s", worker, worker.end())

    # ---- the end ----

    async def _end(self, number: int) -> bool:
        """Send all workers the signal *number*; return whether those that accepted connections ended well."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        workers = {*self._workers.values(), *self._leaving}
        for worker in workers:
            worker.signal(number)
        await self._end_of(workers)
        return not any(worker.status for worker in self._workers.values())

    async def _end_of(self, workers: set[WorkerProcess]) -> None:
        """Wait until *workers* have ended; kill those that take too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await asyncio.gather(*(worker.ended() for worker in workers))
        for worker in workers:
            if worker.alive:
                logger.error("%s did not end within %g s: it is killed", worker, self._seconds)
                worker.kill()
                await worker.ended()
