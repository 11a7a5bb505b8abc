"""Taking an open socket out of aiohttp's hands.

After the headers of a stream, aiohttp's request, parser and task would only cost memory and hide the client's leave,
so the transport moves to a protocol of the hub's own. aiohttp has no call for that. What is done here instead leans
on three things it does not promise (`RequestHandler._task_handler`, `.transport` and what `.connection_lost` does
with them), so it is done in this one module, and `check` proves at every start that it works.

aiohttp also keeps the headers back until there is a body, to send both in one packet. They are given along, so that
the new protocol can do the same.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from hub.errors import UnsupportedAiohttp


class Successor(Protocol):
    """Who takes a socket over."""

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Be the protocol of *transport* from now on; the first thing to write is *unsent*, at once."""
        ...


def hand_over(request: web.BaseRequest, writer: AbstractStreamWriter | None, successor: Successor) -> bool:
    """Let *successor* have the socket of *request*, now; return False if the client has left already.

    The answer has been prepared with *writer*, and nothing more may be written through aiohttp. The handler goes on to
    return its response as usual; what the client sent behind the request is dropped.
    """
    handler: Any = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        return False
    unsent = _unsent(handler, writer)
    _let_go(handler)
    transport.set_protocol(successor)
    if not transport.is_reading():
        transport.resume_reading()
    try:
        successor.take_over(transport, unsent)
    except BaseException:
        transport.abort()  # nobody else owns it any more
        raise
    return True


def _unsent(handler: Any, writer: AbstractStreamWriter | None) -> bytes:
    """Return the headers, if *writer* has kept them back (aiohttp before 3.12 did not)."""
    send = getattr(writer, "send_headers", None)
    if send is None:
        return b""
    transport, handler.transport = handler.transport, _Witness()
    try:
        send()
        return bytes(handler.transport.written)
    finally:
        handler.transport = transport


def _let_go(handler: Any) -> None:
    """Make aiohttp believe that the connection is gone, without closing it."""
    handler._task_handler = None  # so that the handler and the application's middlewares are not cancelled
    handler.transport = None  # so that it is not closed
    handler.connection_lost(None)


async def check() -> None:
    """Prove on a connection without a socket that the installed aiohttp lets go.

    Raises:
        UnsupportedAiohttp: it does not.
    """

    async def never(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError(request)

    server = web.Server(never)
    handler: Any = server()
    transport = _Witness()
    why = ""
    try:
        handler.connection_made(transport)
        task = handler._task_handler
        _let_go(handler)
        if transport.closed:
            why = "it closes the socket"
        elif server.connections:
            why = "it goes on to count the connection as its own"
        elif task.cancelling():
            why = "it cancels the request's handler"
        task.cancel()
        await asyncio.wait([task])
    except AttributeError as error:
        why = f"its inside has changed ({error})"
    if why:
        raise UnsupportedAiohttp(aiohttp.__version__, why)


class _Witness(asyncio.Transport):
    """A transport that only remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.written = bytearray()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
