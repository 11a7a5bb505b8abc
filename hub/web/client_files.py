"""The browser client: scripts that are the same for everybody, and that pages of any allowed origin may load.

They are built from `hub/web/client` by `make web`. A page with a Content-Security-Policy needs `script-src` with the
hub's origin for the scripts, and `worker-src` for the one that its tabs share: nothing is inline, nothing is evaluated.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aiohttp import ETag, web

from hub.errors import NotThere
from hub.hub import Hub

PATH = "/notifications/client/{file}"
FOLDER = Path(__file__).parent / "static"
FILES = (
    "hub-client.js",
    "hub-client.global.js",
    "hub-client.worker.js",
    "hub-client.wires.js",
    "hub-client.LICENSE.txt",
)
_TYPES = {".js": "text/javascript", ".txt": "text/plain"}


class _File(NamedTuple):
    body: bytes
    tag: str
    headers: dict[str, str]


@cache
def _read(name: str) -> _File:
    body = (FOLDER / name).read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:20]
    headers = {
        "Content-Type": f"{_TYPES[Path(name).suffix]}; charset=utf-8",
        # The name stays when the hub is updated, so a browser asks each time, and is told that it has it already.
        "Cache-Control": "no-cache",
        "ETag": f'"{tag}"',
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return _File(body, tag, headers)


async def client_file(hub: Hub, request: web.Request) -> web.Response:
    """Answer with a file of the browser client.

    Raises:
        NotThere: it has no such file.
    """
    name = request.match_info["file"]
    if name not in FILES:
        raise NotThere("file")
    file = _read(name)
    known = request.if_none_match or ()
    if any(each == ETag("*") or each.value == file.tag for each in known):
        return web.Response(status=304, headers={key: file.headers[key] for key in ("ETag", "Cache-Control")})
    return web.Response(body=file.body, headers=file.headers)
