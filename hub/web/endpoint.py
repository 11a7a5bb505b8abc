"""An endpoint, one path of the hub: its methods, its errors as problem+json, and cross-origin access (CORS)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from aiohttp import web

from hub.errors import AuthUnavailable, CrossSite, Forbidden, HubError, TooManyRefusals, Unauthorized
from hub.hub import Hub
from hub.web.body import check_encoding
from hub.web.limits import Refusal, count_refusal
from hub.web.links import is_own
from hub.web.problems import from_error, from_http, from_status, problem
from hub.web.stream import is_event_source, refusal

logger = logging.getLogger("hub.web")

Handler = Callable[[Hub, web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Handler)
_REFUSALS = (Unauthorized, Forbidden, AuthUnavailable, TooManyRefusals)


def opens_stream(handler: H) -> H:
    """Mark *handler*: it opens a stream for an `EventSource`, which has to be refused in a way that it can read."""
    handler.opens_stream = True  # type: ignore[attr-defined]  # functions have attributes
    return handler


OTHER = "other"
"""What a method or a path is called in the figures that nobody serves: there is no end of names for these."""

_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+(?: *, *[A-Za-z0-9!#$%&'*+.^_`|~\-]+)*")
_HEADERS = ("Authorization", "Cache-Control", "Content-Type", "Idempotency-Key", "Last-Event-ID")
_EXPOSED_HEADERS = "Content-Location, Location, Retry-After"


class Endpoint:
    """A path of the hub, with a handler for each method; other methods are answered as HTTP and CORS require.

    Args:
        hub: the hub that is passed to the handlers.
        handlers: the handlers by method; `OPTIONS` is answered here.
        route: what it is called in the figures: its path, without the prefix of the hub.
    """

    def __init__(self, hub: Hub, handlers: Mapping[str, Handler], route: str = OTHER) -> None:
        self._hub = hub
        self._route = route
        self._hosts = hub.hosts
        self._handlers = handlers
        self._methods = frozenset({*handlers, "OPTIONS"})
        self._allow = ", ".join(sorted(self._methods))
        self._origins = frozenset(hub.settings.cors_origins)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Return the answer to *request*."""
        began = time.perf_counter()
        try:
            answer = await answered(request, self._answer(request))
        except _REFUSALS as error:
            answer = self._refused(request, error)
        if not answer.prepared:
            method = request.method if request.method in self._methods else OTHER
            self._hub.metrics.requested(f"{method} {self._route} {answer.status}", time.perf_counter() - began)
            answer.headers.setdefault("Cache-Control", "no-store")
            if self._origins:
                answer.headers.update(cors(request, self._origins))
                if "Access-Control-Request-Headers" in request.headers:
                    answer.headers["Vary"] = "Origin, Access-Control-Request-Headers"
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._hosts is not None:
            self._hosts.check(request.headers.get("Host"))
        check_encoding(request)  # even if no handler reads the body: aiohttp would decompress it all the same
        handler = self._handlers.get(request.method)
        return self._without_handler(request) if handler is None else await handler(self._hub, request)

    def _refused(self, request: web.Request, error: Refusal) -> web.StreamResponse:
        """Return the answer to a request that may not do what it asks for, and count it as what it is."""
        count_refusal(self._hub, request, error)
        handler = self._handlers.get(request.method)
        # A limit is no reason to stop an `EventSource` for ever, whatever is set.
        readable = self._hub.settings.refuse == "auto" or isinstance(error, TooManyRefusals)
        if not (readable and getattr(handler, "opens_stream", False) and is_event_source(request)):
            return from_error(error)
        facts = {"topic": error.topic} if isinstance(error, Forbidden) and error.topic else {}
        if isinstance(error, TooManyRefusals):
            facts = {"limit": error.limit}
        return refusal(error.code, **facts)

    def add_to(self, app: web.Application, path: str) -> None:
        """Add the endpoint to *app* under *path*."""
        app.router.add_route("*", path, self.__call__, expect_handler=self.expect)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Meet the expectation `100-continue` of *request* (RFC 9110, 10.1.1); return a problem for any other."""
        if request.headers["Expect"].lower() != "100-continue":
            return problem(417, "the only expectation that can be met is 100-continue")
        if request.version >= (1, 1) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _without_handler(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": self._allow, **self._preflight(request)})
        answer = problem(405, f"{request.method} is not supported here: {self._allow}")
        answer.headers["Allow"] = self._allow
        return answer

    def _preflight(self, request: web.Request) -> dict[str, str]:
        if request.headers.get("Origin") not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Methods": self._allow,
            "Access-Control-Allow-Headers": _allowed_headers(request.headers.get("Access-Control-Request-Headers", "")),
            "Access-Control-Max-Age": "600",
        }


def _allowed_headers(asked: str) -> str:
    """Return the headers that a page of an allowed origin may send: those of the hub, and those in *asked*.

    Client libraries add headers that a hub can't know (HX-…, Datastar-Request, X-Stainless-…), so an allowed origin may
    send any.
    """
    names = asked.lower().replace(" ", "").split(",") if _HEADER_NAMES.fullmatch(asked) else []
    known = {name.lower() for name in _HEADERS}
    return ", ".join([*_HEADERS, *(name for name in dict.fromkeys(names) if name not in known)])


class NotFound(Endpoint):
    """The endpoint for paths that do not exist."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, {})

    def _without_handler(self, request: web.Request) -> web.StreamResponse:
        return nothing_here()


def nothing_here() -> web.Response:
    """Return the answer for a path that does not exist."""
    return problem(404, "there is nothing at this path")


async def answered(
    request: web.BaseRequest, handling: Awaitable[web.StreamResponse], *, own: bool = True
) -> web.StreamResponse:
    """Return the answer of *handling* to *request*; turn exceptions into problems, never into stack traces.

    If the handler is not the hub's *own*, an `HTTPException` is its answer, and is raised again.
    """
    try:
        return await handling
    except _REFUSALS as error:
        if not own:
            return from_error(error)
        raise
    except HubError as error:
        if error.status >= 500 and error.status != 503:
            logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return from_error(error)
    except web.RequestPayloadError as error:
        return problem(400, f"the body is broken: {str(error)[:200]}")
    except web.HTTPException as error:
        if not own:
            raise
        return from_http(error) if error.status >= 400 else error
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return web.Response()  # the client has disconnected: this is never sent, and aiohttp logs nothing
        logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return from_status(500) if own else problem(500, "the handler failed; the log says why")


def check_site(hub: Hub, request: web.BaseRequest, *, by_cookie: bool = False) -> None:
    """Raise if a page of another site sent *request*, unless the origin of the page is allowed.

    This protects what a browser does with the cookies of its user, or without a preflight, for example for an `<img>`.
    Browsers say where a request comes from (Fetch Metadata); other clients do not, and are let through. Old browsers,
    and browsers over plain HTTP, send only `Origin`: always if the request is not a `GET`, and with a `GET` if the page
    is of another origin.

    Args:
        hub: its origins are allowed.
        request: any request.
        by_cookie: its sender is known by something that browsers send by themselves. Else `Origin` alone counts only
            with a `GET`, with which a page of the hub's own origin does not send it: behind a proxy that changes `Host`
            the two can't be compared.

    Raises:
        CrossSite: the page is of another site, and its origin is not allowed.
    """
    origin = request.headers.get("Origin")
    if origin in hub.settings.cors_origins:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None and origin is not None and (by_cookie or request.method == "GET"):
        site = "same-origin" if is_own(hub.proxies, request, origin) else "cross-site"
    if site not in {None, "same-origin", "none"}:
        raise CrossSite


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
