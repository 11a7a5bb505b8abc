"""aiohttp's access log without the queries of URLs, which may hold a ticket."""

from __future__ import annotations

import logging
from typing import Any, cast

from aiohttp import web, web_log

logger = logging.getLogger("hub.access")


class AccessLogger(web_log.AccessLogger):
    """The access log of aiohttp, in any of its formats, without the query of the request and of its `Referer`.

    For applications with a hub: `web.run_app(app, access_log_class=AccessLogger)`.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log *request* and *response*; *time* is in seconds."""
        super().log(cast(web.BaseRequest, _WithoutQuery(request)), response, time)


class _WithoutQuery:
    """A request as the formats of the access log see it."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    @property
    def path_qs(self) -> str:
        return self._request.rel_url.raw_path

    @property
    def headers(self) -> Any:
        headers = self._request.headers
        if "?" not in headers.get("Referer", ""):
            return headers
        shown = headers.copy()
        shown["Referer"] = headers["Referer"].partition("?")[0]
        return shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def shows_queries(request: web.BaseRequest) -> bool:
    """Return whether aiohttp writes the query of *request* into its access log, as far as can be seen."""
    its = request.protocol.access_logger
    return type(its) is web_log.AccessLogger and its.logger.isEnabledFor(logging.INFO)


def warn_of_queries() -> None:
    """Log that tickets get into the access log, and what to do about it."""
    logger.warning(
        "the access log of aiohttp shows the query of each URL, and so it shows tickets: run the application with "
        "access_log_class=hub.AccessLogger"
    )
