"""Handlers whose requests are traced: those that publish. A stream is none of them: it lasts for hours."""

from __future__ import annotations

from aiohttp import web

from hub.errors import HubError
from hub.hub import Hub
from hub.tracing import Tracing
from hub.web.endpoint import Handler


def traced(tracing: Tracing | None, route: str, handler: Handler) -> Handler:
    """Return *handler*, whose requests *tracing* follows under the name *route*; None: nobody does."""
    if tracing is None:
        return handler

    async def followed(hub: Hub, request: web.Request) -> web.StreamResponse:
        with tracing.request(request.method, route, request.headers) as said:
            try:
                answer = await handler(hub, request)
            except HubError as error:
                said(error.status)
                raise
            except web.HTTPException as error:
                said(error.status)
                raise
            except Exception:
                said(500)
                raise
            said(answer.status)
            return answer

    return followed
