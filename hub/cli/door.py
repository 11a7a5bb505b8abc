"""An address that `hub serve` listens on, and the application behind it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from hub.cli.logs import AccessLog
from hub.cli.sockets import BACKLOG, bound_sockets, close_all, shown, slots
from hub.errors import HubError, InvalidSettings
from hub.hub import Hub
from hub.settings import PREFIX, Settings
from hub.web.deadlines import Deadlines
from hub.web.server import factory

logger = logging.getLogger("hub")


class CannotListen(HubError):
    """The address is in use, or does not belong to this machine."""


def open_sockets(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return the sockets that are bound to *port* of *host*, not listening yet; *setting* is the name of the port.

    Raises:
        CannotListen: it can't be; says which setting to change.
    """
    try:
        return bound_sockets(host, port)
    except OSError as error:
        raise _cannot_listen(error, host, port, setting) from None


def open_slots(host: str, port: int, setting: str, count: int) -> list[list[socket.socket]]:
    """Return *count* times such sockets; each connection comes to one of them, and those of the first slot listen.

    Raises:
        CannotListen: they can't be opened; says which setting to change.
    """
    try:
        return slots(host, port, count)
    except OSError as error:
        raise _cannot_listen(error, host, port, setting) from None


def _cannot_listen(error: OSError, host: str, port: int, setting: str) -> CannotListen:
    # What getaddrinfo says has a number that is none of the system's.
    system = error.errno is not None and error.errno > 0
    why = os.strerror(error.errno or 0).lower() if system else error.strerror or str(error)
    flag, variable = "--" + setting.replace("_", "-"), PREFIX + setting.upper()
    return CannotListen(f"cannot listen on {host}:{port}: {why}; choose another with {flag} or {variable}")


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context that *settings* ask for, if any.

    Raises:
        InvalidSettings: the certificate or its key can't be used.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidSettings([f"tls_cert (HUB_TLS_CERT): {settings.tls_cert}: {error}"]) from None
    return context


def scheme_of(settings: Settings) -> str:
    """Return how the addresses of a hub with *settings* begin."""
    return "http" if settings.tls_cert is None else "https"


class Door:
    """An address that the process listens on, and the application behind it.

    Args:
        name: what the first lines of the process call it.
        app: the application.
        address: the host and the port where it listens; port 0: a free one.
        setting: the setting that says the port.
        sockets: what it listens on instead, if there are any: sockets that were opened before, which it closes.
    """

    def __init__(
        self, name: str, app: web.Application, address: tuple[str, int], setting: str, sockets: list[socket.socket]
    ) -> None:
        self._name, self._app, self._setting = name, app, setting
        self._address = address
        self._sockets = sockets
        self._serve: Callable[[socket.socket], Awaitable[asyncio.Server]] | None = None  # None: closed
        self._servers: list[asyncio.Server] = []
        self._lent: dict[int, list[asyncio.Server]] = {}  # by slot
        self._addresses: list[str] = []

    def __str__(self) -> str:
        return "\n".join(f"hub: {self._name} on {address}" for address in self._addresses)

    async def open(self, hub: Hub, deadlines: Deadlines, stack: AsyncExitStack) -> None:
        """Start the application and listen, until *stack* is closed.

        Raises:
            HubError: it can't listen here.
        """
        runner = web.AppRunner(
            self._app,
            access_log=logger if hub.settings.access_log else None,
            access_log_class=AccessLog.behind(hub.proxies),
            shutdown_timeout=5,
            auto_decompress=False,  # no route takes a compressed body
            tcp_keepalive=sys.platform != "linux",  # on Linux the listening socket hands its options on
        )
        stack.push_async_callback(runner.cleanup)
        stack.callback(close_all, self._sockets)
        await runner.setup()
        stack.callback(self.close)
        await self._listen(runner, hub, deadlines)

    async def _listen(self, runner: web.AppRunner, hub: Hub, deadlines: Deadlines) -> None:
        """Listen; on Linux with socket options that accepted connections inherit: none has to be set on each."""
        assert runner.server is not None
        tls = tls_of(hub.settings)
        if not self._sockets:
            self._sockets += open_sockets(*self._address, self._setting)
        self._addresses = [shown(sock, scheme_of(hub.settings)) for sock in self._sockets]
        hub.connections.inherit_from(self._sockets)
        make = factory(runner.server, deadlines)
        timeout = hub.settings.header_timeout if tls is not None else None

        async def serve(sock: socket.socket) -> asyncio.Server:
            create = _create_server(asyncio.get_running_loop(), sock)
            options = {"backlog": BACKLOG, "ssl": tls, "ssl_handshake_timeout": timeout, "start_serving": False}
            server: asyncio.Server = await create(make, sock=sock, **options)
            return server

        self._serve = serve
        await self._start(self._servers, self._sockets)

    async def _start(self, servers: list[asyncio.Server], sockets: list[socket.socket]) -> None:
        """Move *sockets* to *servers* that accept from them; not once this door is closed."""
        while sockets and self._serve is not None:
            servers.append(await self._serve(sockets[0]))
            del sockets[0]  # it is the server's now
        for server in servers:
            await server.start_serving()

    async def borrow(self, slot: int, sockets: list[socket.socket]) -> None:
        """Accept connections from *sockets* as well, which listen already, until `give_back` of *slot*; close them.

        Raises:
            OSError: it can't accept from them.
        """
        try:
            await self._start(self._lent.setdefault(slot, []), sockets)
        except OSError:
            self.give_back(slot)
            raise
        finally:
            close_all(sockets)

    def give_back(self, slot: int) -> None:
        """Accept no more connections from what was lent as *slot*, if anything was."""
        for server in self._lent.pop(slot, []):
            server.close()

    def close(self) -> None:
        """Accept no more connections; those that are open stay."""
        self._serve = None
        for slot in list(self._lent):
            self.give_back(slot)
        for server in self._servers:
            server.close()


def _create_server(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Any:
    """Return the method of *loop* that makes a server of *sock*.

    asyncio has one method that takes any socket; its other one, for Unix sockets, removes the file when it is closed,
    which belongs to whoever opened it. uvloop takes a Unix socket only there, and removes nothing.
    """
    unix = sock.family == socket.AF_UNIX and not isinstance(loop, asyncio.BaseEventLoop)
    return loop.create_unix_server if unix else loop.create_server
