"""One path of the hub: its methods, its errors as problem+json, and cross-origin access (CORS)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from aiohttp import web

from hub.errors import HubError
from hub.hub import Hub
from hub.web.body import check_encoding
from hub.web.problems import from_error, from_http, problem

logger = logging.getLogger("hub.web")

Handler = Callable[[Hub, web.Request], Awaitable[web.StreamResponse]]

_ALLOWED_HEADERS = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID"
_EXPOSED_HEADERS = "Content-Location, Location, Retry-After"


class Resource:
    """Answers every method on one path: by its handler, or with what the standards say.

    Args:
        hub: the hub that the handlers get.
        handlers: by method; `OPTIONS` is answered here.
    """

    def __init__(self, hub: Hub, handlers: Mapping[str, Handler]) -> None:
        self._hub = hub
        self._handlers = handlers
        self._allow = ", ".join(sorted({*handlers, "OPTIONS"}))
        self._origins = frozenset(hub.settings.cors_origins)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer *request*."""
        answer = await answered(request, self._answer(request))
        if self._origins and not answer.prepared:
            answer.headers.update(cors(request, self._origins))
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        check_encoding(request)  # also where nobody reads the body: aiohttp would inflate it all the same
        handler = self._handlers.get(request.method)
        return self._without_handler(request) if handler is None else await handler(self._hub, request)

    def _without_handler(self, request: web.Request) -> web.StreamResponse:
        if request.method != "OPTIONS":
            answer = problem(405, f"{request.method} is not supported here: {self._allow}")
            answer.headers["Allow"] = self._allow
            return answer
        headers = {"Allow": self._allow}
        if request.headers.get("Origin") in self._origins:
            headers |= {
                "Access-Control-Allow-Methods": self._allow,
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": "600",
            }
        return web.Response(status=204, headers=headers)


async def answered(
    request: web.BaseRequest, handling: Awaitable[web.StreamResponse], *, own: bool = True
) -> web.StreamResponse:
    """Return what *handling* answers to *request*; what it raises becomes a problem, and never a stack trace.

    Where the handler is not the hub's *own*, an `HTTPException` is what it wants to say, and passes.
    """
    try:
        return await handling
    except HubError as error:
        if error.status >= 500 and error.status != 503:
            logger.exception("a request failed")
        return from_error(error)
    except web.RequestPayloadError as error:
        return problem(400, f"the body is broken: {str(error)[:200]}")
    except web.HTTPException as error:
        if not own:
            raise
        return from_http(error) if error.status >= 400 else error
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return web.Response()  # the client has left: nobody will read this, and aiohttp finds that unremarkable
        logger.exception("a request failed")
        return problem(500, "the hub failed to answer; its log says why")


def cors(request: web.BaseRequest, origins: Collection[str]) -> dict[str, str]:
    """Return the headers that let a page of one of *origins* read the answer to *request* (WHATWG Fetch)."""
    if not origins:
        return {}
    origin = request.headers.get("Origin", "")
    if origin not in origins:
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
    }
