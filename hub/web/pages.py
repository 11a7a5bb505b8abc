"""Pages of the hub: files that a browser shows, with headers that let it run nothing that came from elsewhere."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from hub.hub import Hub
from hub.web.endpoint import Handler

# No inline script or style, nothing from elsewhere, and no text that becomes markup (CSP 3, Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types "
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY + "'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def page(file: Path, *, trusted: str = "'none'") -> Handler:
    """Return the handler of a page, or of a script or style of one, that answers with *file*.

    Args:
        file: its suffix says what it is.
        trusted: the names of the Trusted Types policies that the page may create, for a library that needs some.
    """
    headers = {
        **SECURITY_HEADERS,
        "Content-Security-Policy": _POLICY + trusted,
        "Cache-Control": "no-cache",
        # What the machine makes of the suffix is not asked: with `nosniff` a browser runs no script of another type.
        "Content-Type": f"{_TYPES[file.suffix]}; charset=utf-8",
    }

    async def answer(hub: Hub, request: web.Request) -> web.FileResponse:
        return web.FileResponse(file, headers=headers)

    return answer
