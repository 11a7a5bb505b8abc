"""The routes of the document, and of the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from hub.eventstream import compact_json
from hub.hub import Hub
from hub.web.endpoint import Handler
from hub.web.links import link
from hub.web.openapi.document import Terms, document
from hub.web.pages import page

DOCUMENT = "/openapi.json"
PAGE = "/docs/api"
POLICIES = "default dompurify"  # page.js and Swagger UI create them
ASSETS = Path(__file__).parent / "page"


def routes(mounted: Mapping[str, Mapping[str, Handler]], terms: Terms) -> dict[str, dict[str, Handler]]:
    """Return the handlers, by path and method, that describe the routes in *mounted* and themselves."""

    async def openapi(hub: Hub, request: web.Request) -> web.Response:
        said = document(described, terms, link(hub, request, up=1, path=""))
        return web.Response(body=compact_json(said).encode(), content_type="application/json")

    described = {**mounted, DOCUMENT: {"GET": openapi}}
    files = sorted(each for each in ASSETS.iterdir() if each.suffix in {".css", ".js"})
    return {
        DOCUMENT: {"GET": openapi},
        PAGE: {"GET": page(ASSETS / "page.html", trusted=POLICIES)},
        **{f"{PAGE}/{each.name}": {"GET": page(each)} for each in files},
    }
