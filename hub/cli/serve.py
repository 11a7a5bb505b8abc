"""`hub serve`: run a hub as its own server.

Whatever concerns the whole process is set only here: the event loop, the file limit, the garbage collector, the
signals. An embedded hub leaves all of it to its application.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import typing
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from aiohttp import web
from pydantic.fields import FieldInfo

from hub.cleanup import CLEANUP_SECONDS
from hub.cli.door import Door
from hub.cli.logs import log_to_stderr
from hub.cli.notify import Notifier
from hub.cli.sockets import Received, close_all, received_sockets
from hub.cli.supervisor import supervise
from hub.cli.telemetry import Telemetry
from hub.errors import InvalidSettings
from hub.file_limit import UNLIMITED, raise_file_limit
from hub.hub import Hub
from hub.settings import PREFIX, Settings, is_loopback, unknown_variables
from hub.web.admin_address import admin_app
from hub.web.app import drain_hub, setup_hub
from hub.web.deadlines import Deadlines
from hub.web.endpoint import NotFound
from hub.web.routes import ADMINISTRATION, NAMES

logger = logging.getLogger("hub")

SPARE_FILES = 128
ENDING_SECONDS = 60.0  # beyond the windows of the settings; each step of the end has a bound, and their sum is less
_STOPS = (signal.SIGTERM, signal.SIGINT)
_RETIRE = getattr(signal, "SIGHUP", None)  # not on Windows
_STDERR = 2

Ready = Callable[[Door], Awaitable[None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, and `--config`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TOML file with settings, by field name ({PREFIX}CONFIG)"
    )
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = f"{field.description} [{PREFIX}{name.upper()}; default {_shown(field.default)}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag, default=None, metavar=_metavar(field), help=text)


def _shown(default: object) -> str:
    return ("none" if default in (None, (), {}) else str(default)) if not isinstance(default, bool) else "off"


def _metavar(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(each.value for each in kind)
    kinds = {each for each in (kind, *typing.get_args(kind)) if isinstance(each, type)}
    said = (field.description or "").lower()
    if kinds & {int, float}:
        units = {"seconds": "SECONDS", "bytes": "BYTES"}
        return units.get(said.partition(" ")[0], "PER_SECOND" if "per second" in said else "N")
    return "FILE" if Path in kinds else "VALUE"


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return 0 once all is drained and closed.

    As the command `hub`, the process then ends even if threads or tasks are left; called by a program, it goes on. If
    something blocks the event loop itself, the process ends with status 1 and prints the stack of each thread.
    """
    received = received_sockets(os.environ)
    try:
        return _run(args, received)
    finally:
        for sockets in received:
            close_all(sockets)


def _run(args: argparse.Namespace, received: Received) -> int:
    flags = {name: value for name in Settings.model_fields if (value := getattr(args, name)) is not None}
    flags |= received.settings()
    settings = Settings.load(flags, file=args.config)
    log_to_stderr(settings.log_level, settings.log_format)
    for sentence in unknown_variables(os.environ):
        logger.warning("%s", sentence)
    if settings.workers > 1:
        return supervise(settings, flags, args.config, received, seconds=longest_end(settings))
    return run_hub(settings, received, whole_process=args.whole_process)


def run_hub(
    settings: Settings,
    received: Received,
    *,
    whole_process: bool,
    ready: Ready | None = None,
    number: int = 1,
) -> int:
    """Serve a hub in this process until a signal ends it; return the exit status.

    Args:
        settings: its settings.
        received: the sockets that it listens on, as far as there are any; it closes them.
        whole_process: end the process 5 seconds later even if threads or tasks are left.
        ready: called with the door for everybody when it listens, in a worker of a supervisor, instead of saying so on
            standard output. SIGHUP then means that another worker takes its place, and only the supervisor ends it at
            once.
        number: which of the workers on this machine it is.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # listeners are imported by name from the working directory
    heard_before = {number: signal.getsignal(number) for number in _STOPS}
    try:
        with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
            status = runner.run(serve(settings, received, ready, number))
            faulthandler.cancel_dump_traceback_later()
            if whole_process:
                _end_anyway(status)
            return status
    finally:
        faulthandler.cancel_dump_traceback_later()
        for each, handler in heard_before.items():
            if handler is not None:
                signal.signal(each, handler)


def _end_anyway(status: int) -> None:
    """End the process with *status* in 5 seconds, unless it has ended by then.

    Python itself would wait for every task and every thread, for ever if one does not end.
    """

    def end() -> None:
        logger.error("what was left behind did not end: the process ends without it")
        os._exit(status)

    timer = threading.Timer(CLEANUP_SECONDS, end)
    timer.daemon = True
    timer.start()


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if settings.loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        if settings.loop == "uvloop":
            raise InvalidSettings(["loop: uvloop is not installed: pip install uvloop"]) from None
        return None
    return uvloop.new_event_loop


async def serve(settings: Settings, received: Received, ready: Ready | None = None, number: int = 1) -> int:
    """Serve a hub with *settings* until a signal ends it; the arguments are those of `run_hub`."""
    name = f"{socket.gethostname()}-{number}"
    telemetry = telemetry_of(settings, name)
    app = web.Application()
    settings = _on_loopback(_within_file_limit(settings))
    routes = NAMES if settings.admin_port is None else NAMES - ADMINISTRATION
    if settings.demo:
        from hub.demo import setup_demo, setup_demo_hub  # noqa: PLC0415 - only where it is wanted

        hub = setup_demo_hub(app, settings, routes=routes)
        setup_demo(app)
    else:
        hub = setup_hub(app, settings, routes=routes)
    hub.name = name
    NotFound(hub).add_to(app, "/{path:.*}")
    deadlines = Deadlines(hub.metrics, header=settings.header_timeout, body=settings.body_timeout)
    notifier = Notifier() if ready is None else None  # a worker's supervisor says it for all
    leave = ready is None and bool(received.users)  # before the door takes them; a supervisor says itself who leaves
    stop = _signals(longest_end(settings), supervised=ready is not None)
    doors = [Door("listening", app, (settings.host, settings.port), "port", received.users)]
    if settings.admin_port is not None:
        address = settings.admin_host, settings.admin_port
        doors.append(Door("administration", admin_app(app), address, "admin_port", received.admin))
    # In this order: what opens the hub is set up first, and cleaned up last.
    async with AsyncExitStack() as stack:
        if telemetry is not None:
            stack.push_async_callback(telemetry.aclose)
        stack.callback(deadlines.stop)
        if notifier is not None:
            stack.callback(notifier.stop)  # last: what is cleaned up may take longer than a watchdog waits
        for door in doors:
            await door.open(hub, deadlines, stack)
        _spare_the_collector()
        deadlines.start()
        if ready is not None:
            await ready(doors[0])
        else:
            print(*doors, sep="\n", flush=True)
        if notifier is not None:
            notifier.ready()
        number = await stop
        if notifier is not None:
            notifier.stopping()
        await _until_the_end(app, hub, number, doors, leave=leave or number == _RETIRE)
    logger.info("stopped")
    return 0


async def _until_the_end(app: web.Application, hub: Hub, number: int, doors: list[Door], *, leave: bool) -> None:
    """Return when every stream has ended, after the signal *number*.

    With *leave*, whoever comes now is for the process that takes this one's place: another worker accepts from the same
    sockets already, or systemd keeps the sockets that it gave, and those who come wait there for the next process.
    """
    streams = len(hub.connections)
    if leave:
        for door in doors:
            door.close()
    # Otherwise the listening socket stays open for the whole window: behind a proxy, a closed one means an error page.
    # A process manager sends SIGTERM; Ctrl-C comes from a terminal, and does not wait if no stream is open.
    window = hub.settings.drain if streams or number != signal.SIGINT else 0.0
    logger.info("draining %d streams over %g s", streams, window)
    await asyncio.gather(drain_hub(app), asyncio.sleep(window))


def telemetry_of(settings: Settings, name: str) -> Telemetry | None:
    """Return OpenTelemetry's SDK, set up as the environment says, if *settings* ask for it.

    Raises:
        InvalidSettings: it is not installed, or can't be set up like this.
    """
    if not settings.otel:
        return None
    try:
        return Telemetry(name)
    except ModuleNotFoundError as missing:
        extra = "pip install '/path/to/broadcast-hub[otel]'"
        raise InvalidSettings([f"otel (HUB_OTEL): needs the package {missing.name}: {extra}"]) from None
    except ValueError as error:
        raise InvalidSettings([f"otel (HUB_OTEL): a variable OTEL_…: {error}"]) from None


def longest_end(settings: Settings) -> float:
    """Return how many seconds after a signal a hub with *settings* ends, whatever hangs."""
    return settings.drain + max(settings.drain, settings.finish) + ENDING_SECONDS


def _signals(most: float, *, supervised: bool) -> asyncio.Future[int]:
    """Return the future of the first SIGTERM or SIGINT; the second one ends the process at once.

    After the first one the process has *most* seconds to end. Both hold even if something blocks the event loop.
    A *supervised* process takes SIGHUP as well, and its first signal counts: a process manager sends one to the
    supervisor and to the workers, and then the supervisor does so too.
    """
    loop, heard = asyncio.get_running_loop(), list[int]()
    stop: asyncio.Future[int] = loop.create_future()

    def wake(number: int) -> None:
        if not stop.done():
            stop.set_result(number)

    def hear(number: int, frame: FrameType | None) -> None:
        if heard and supervised:
            return
        if heard:
            os._exit(128 + number)
        heard.append(number)
        faulthandler.dump_traceback_later(most, exit=True, file=_STDERR)
        if callable(handler := of_the_loop[number]):
            handler(number, frame)

    of_the_loop: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    for number in (*_STOPS, *((_RETIRE,) if supervised and _RETIRE is not None else ())):
        loop.add_signal_handler(number, wake, number)  # wakes the loop, whichever thread gets the signal
        of_the_loop[number] = signal.getsignal(number)
        signal.signal(number, hear)
    return stop


def _on_loopback(settings: Settings) -> Settings:
    """Return *settings* with which a hub on loopback, where nobody is asked who they are, checks `Host`."""
    if not is_loopback(settings.host) or settings.takes_tokens:
        return settings
    # The names of loopback are allowed anyway: one of them is enough to have the others refused.
    return settings.model_copy(update={"allowed_hosts": (*settings.allowed_hosts, "localhost")})


def _within_file_limit(settings: Settings) -> Settings:
    """Raise the limit of open files as far as this user may; return *settings* with no more streams than fit."""
    _, limit = raise_file_limit()
    if limit == UNLIMITED:
        return settings
    streams = settings.max_connections or max(limit - SPARE_FILES, 1)
    logger.info("open files: at most %s; streams: at most %s", f"{limit:,}", f"{streams:,}")
    return settings.model_copy(update={"max_connections": streams})


def _spare_the_collector() -> None:
    """Exclude the objects that exist now from garbage collection, and collect less often.

    A burst of connects makes many objects that live long; at the default thresholds each burst would walk all of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
