"""aiohttp's side of a connection in `hub serve`: malformed requests get a problem, slow ones are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from aiohttp import web

from hub.web.deadlines import Deadlines
from hub.web.problems import from_status


class RequestHandler(web.RequestHandler):
    """The protocol of a connection until it becomes a stream.

    Requests that aiohttp itself refuses, such as malformed ones, are answered with a problem (RFC 9457).
    """

    __slots__ = ()
    deadlines: ClassVar[Deadlines]

    @property
    def answers(self) -> bool:
        """Whether the answer to the present request is still to come, or on its way."""
        return self._request_in_progress

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a request."""
        super().connection_made(transport)
        self.deadlines.begun(self)

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a request, if this begins one."""
        if data and not self.answers:
            self.deadlines.begun(self)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Expect nothing more: the connection is closed, or was handed over to a stream."""
        self.deadlines.forget(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        """Close the connection at once."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()  # its last answer may never be read

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return a problem for a request that reached no handler, or whose handler failed."""
        super().handle_error(request, status, exc, message)  # logs it, and raises if a response has begun
        answer = from_status(status)
        answer.force_close()
        return answer


def factory(server: web.Server, deadlines: Deadlines) -> Callable[[], web.RequestHandler]:
    """Return the protocol factory of *server*, whose protocols are `RequestHandler`s under *deadlines*."""
    kind = type(RequestHandler.__name__, (RequestHandler,), {"__slots__": (), "deadlines": deadlines})
    make_request: Any = server.request_factory

    def requested(message: Any, payload: Any, protocol: Any, *rest: Any) -> web.BaseRequest:
        deadlines.headers_came(protocol, payload)
        request: web.BaseRequest = make_request(message, payload, protocol, *rest)
        return request

    server.request_factory = requested  # aiohttp calls it as soon as the headers of a request have come

    def make() -> web.RequestHandler:
        handler = server()
        handler.__class__ = kind  # aiohttp has no option for the class, and only methods differ
        return handler

    return make
