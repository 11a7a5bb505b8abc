"""A worker of `hub serve --workers N`: one of the processes that serve a hub together, as the supervisor says."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

from hub.cli.control import Control, own
from hub.cli.door import Door
from hub.cli.logs import log_to_stderr
from hub.cli.serve import run_hub
from hub.cli.sockets import Received, close_all
from hub.errors import HubError, InvalidInput, InvalidSettings
from hub.settings import Settings


class Assignment(NamedTuple):
    """What the supervisor says to a worker first.

    Attributes:
        number: which of the workers it is, from 1 on.
        flags: settings that have precedence.
        config: the file with the others, if any.
        received: the sockets that it accepts connections from.
    """

    number: int
    flags: dict[str, Any]
    config: Path | None
    received: Received

    @classmethod
    def read(cls, control: socket.socket) -> Self:
        """Return what the supervisor says on *control*.

        Raises:
            EOFError: it has died.
        """
        with control.makefile("rb", buffering=0) as line:
            text = line.readline()
        if not text.endswith(b"\n"):
            raise EOFError
        said = json.loads(text)
        users, admin = ([own(fd) for fd in said[name]] for name in ("users", "admin"))
        config = None if said["config"] is None else Path(said["config"])
        return cls(said["number"], said["flags"], config, Received(users, admin))


def main() -> int:
    """Serve as the supervisor says; the first argument is the descriptor of the socket that leads to it."""
    control = own(int(sys.argv[1]))
    control.setblocking(True)
    with control:
        try:
            assignment = Assignment.read(control)
        except EOFError:
            return 1
        try:
            return _serve(assignment, control)
        finally:
            for sockets in assignment.received:
                close_all(sockets)


def _serve(assignment: Assignment, control: socket.socket) -> int:
    name = f"worker {assignment.number}"
    tasks: list[asyncio.Task[None]] = []  # the loop ends them when it ends

    async def ready(door: Door) -> None:
        supervisor = Control(control, door)
        tasks.extend(asyncio.create_task(each) for each in (supervisor.beat(), supervisor.follow()))

    try:
        settings = Settings.load(assignment.flags, file=assignment.config)
        log_to_stderr(settings.log_level, settings.log_format, process=name)
        return run_hub(settings, assignment.received, whole_process=True, ready=ready, number=assignment.number)
    except HubError as error:
        print(f"hub: {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput | InvalidSettings) else 1
