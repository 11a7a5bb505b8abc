"""The address for administration, apart from that of the users: what is there, and which requests count there."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from hub.access.hosts import Hosts
from hub.errors import CrossSite
from hub.hub import Hub
from hub.settings import is_loopback
from hub.web.access import Access
from hub.web.app import HUB
from hub.web.dashboard.dashboard import Dashboard
from hub.web.endpoint import OTHER, Endpoint, Handler, nothing_here
from hub.web.handler_streams import HandlerStreams
from hub.web.monitoring import open_metrics
from hub.web.routes import ADMINISTRATION, routes_of


def admin_app(app: web.Application) -> web.Application:
    """Return the application for the administration of the hub of *app*; that one opens and closes the hub.

    Its routes are those of `ADMINISTRATION`, for administrators only, and the metrics and the health checks, for
    whoever reaches them. The only streams are those of the dashboard. It answers to its own names, and to no page of
    another site, allowed by `HUB_CORS_ORIGINS` or not: a cookie of the hub is sent to all ports of its host.
    """
    hub, admin = app[HUB], web.Application()
    admin[HUB], admin[Access.KEY] = hub, app[Access.KEY]
    if Dashboard.KEY in app:
        admin[Dashboard.KEY], admin[HandlerStreams.KEY] = app[Dashboard.KEY], app[HandlerStreams.KEY]
    host = hub.settings.admin_host
    hosts = Hosts((*hub.settings.allowed_hosts, host), addresses=not is_loopback(host))
    routes: dict[str, dict[str, Handler]] = routes_of(hub, ADMINISTRATION | {"health"})
    routes |= {"/metrics": {"GET": open_metrics}, "/{path:.*}": {}}
    for path, handlers in routes.items():
        AdminEndpoint(hub, handlers, hosts, path if handlers else OTHER).add_to(admin, path)
    return admin


class AdminEndpoint(Endpoint):
    """A path for administration; one without handlers is there for all paths that do not exist.

    Args:
        hub: the hub that is passed to the handlers.
        handlers: the handlers by method.
        hosts: the names in `Host` to which it answers.
        route: as of any endpoint.
    """

    def __init__(self, hub: Hub, handlers: Mapping[str, Handler], hosts: Hosts, route: str) -> None:
        super().__init__(hub, handlers, route)
        self._hosts, self._origins = hosts, frozenset()

    def _without_handler(self, request: web.Request) -> web.StreamResponse:
        return super()._without_handler(request) if self._handlers else nothing_here()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        # After the name: a page that has made its own name point here is of the same origin.
        assert self._hosts is not None
        self._hosts.check(request.headers.get("Host"))
        check_own_site(request)
        return await super()._answer(request)


def check_own_site(request: web.BaseRequest) -> None:
    """Raise if a page that is not of this very origin sent *request*, whatever it asks for.

    Raises:
        CrossSite: the page is of another origin, or its origin is `null`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None and origin is not None:  # an old browser, or one over plain HTTP
        site = "same-origin" if origin.partition("://")[2] == request.headers.get("Host") else "cross-site"
    if site not in {None, "same-origin", "none"}:
        raise CrossSite("here only pages of this address may")
