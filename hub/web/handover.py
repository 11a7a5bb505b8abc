"""The handover: takes an open socket away from aiohttp and gives it to a protocol of the hub.

After the headers of a stream, aiohttp's request, parser and task would only cost memory and delay the moment at which
the hub learns that the client has left. aiohttp has no function to give a transport away. The code here relies on three
details that aiohttp does not guarantee (`RequestHandler._task_handler`, `.transport`, and what `.connection_lost` does
with them), so it is in this module only, and `check` proves at every start that it works.

aiohttp also holds the headers back until there is a body, to send both in one packet. They are passed on, so that the
new protocol can do the same.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from hub.errors import UnsupportedAiohttp


class Successor(Protocol):
    """The protocol that takes a socket over."""

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Become the protocol of *transport*, and write *unsent* at once, before anything else."""
        ...


def hand_over(request: web.BaseRequest, writer: AbstractStreamWriter | None, successor: Successor) -> bool:
    """Give the socket of *request* to *successor* at once; return False if the client has disconnected already.

    The answer must have been prepared with *writer*, and nothing more may be written through aiohttp. The handler then
    returns its response as usual. Bytes that the client sent after the request are dropped.
    """
    handler: Any = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        return False
    unsent = _unsent(handler, writer)
    _detach(handler)
    transport.set_protocol(successor)
    if not transport.is_reading():
        transport.resume_reading()
    try:
        successor.take_over(transport, unsent)
    except BaseException:
        transport.abort()  # it has no other owner any more
        raise
    return True


def _unsent(handler: Any, writer: AbstractStreamWriter | None) -> bytes:
    """Return the headers, if *writer* has held them back (aiohttp before 3.12 does not)."""
    send = getattr(writer, "send_headers", None)
    if send is None:
        return b""
    transport, handler.transport = handler.transport, _RecordingTransport()
    try:
        send()
        return bytes(handler.transport.written)
    finally:
        handler.transport = transport


def _detach(handler: Any) -> None:
    """Make aiohttp treat the connection as lost, without closing it."""
    # Both assignments must come first: `connection_lost` would otherwise cancel the handler's task, and with it the
    # application's middlewares, and close the transport.
    handler._task_handler = None
    handler.transport = None
    handler.connection_lost(None)


async def check() -> None:
    """Check, on a connection without a socket, that the handover works with the installed aiohttp.

    Raises:
        UnsupportedAiohttp: it does not work; the error says why.
    """

    async def never(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError(request)

    server = web.Server(never)
    handler: Any = server()
    transport = _RecordingTransport()
    why = ""
    try:
        handler.connection_made(transport)
        task = handler._task_handler
        _detach(handler)
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


class _RecordingTransport(asyncio.Transport):
    """A transport without a socket that records what is written and whether it was closed."""

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
