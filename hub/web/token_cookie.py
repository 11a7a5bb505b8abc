"""`set_token_cookie` and `clear_token_cookie`: the cookie with which a browser shows its token."""

from __future__ import annotations

import json
import math
import time

from aiohttp import web

from hub.access.base64url import decoded
from hub.errors import InvalidInput
from hub.web.access import Access, token_cookie_name


def set_token_cookie(request: web.Request, response: web.StreamResponse, token: str) -> None:
    """Set on *response*, the answer to *request*, the cookie with which the browser is known until *token* expires.

    Over TLS it is `__Host-hub_token` with `Secure`, else `hub_token`. TLS may also end at a proxy: one of
    `HUB_TRUSTED_PROXIES` that sends `X-Forwarded-Proto: https`. The cookie is `HttpOnly`: no script can read it. It is
    `SameSite=Lax` and not `Strict`, so that a user who follows a link from elsewhere is known to the page that the link
    opens. That costs nothing: following a link changes nothing, and the hub checks which page opens a stream.

    Args:
        request: what is answered, a request to the host of the hub.
        response: the answer, not sent yet.
        token: a token that the application has made. It is not verified here: the hub does that when it is used.

    Raises:
        InvalidInput: *token* is not a token with `exp`.
    """
    seconds = max(math.ceil(_expires(token) - time.time()), 0)
    secure = _is_secure(request)
    response.set_cookie(
        token_cookie_name(secure=secure),
        token,
        max_age=seconds,
        path="/",
        httponly=True,
        secure=secure,
        samesite="Lax",
    )


def clear_token_cookie(request: web.Request, response: web.StreamResponse) -> None:
    """Remove the cookie of `set_token_cookie` with *response*, the answer to *request*.

    The token itself counts until it expires, and open streams go on: revoke it where that matters.
    """
    secure = _is_secure(request)
    response.del_cookie(token_cookie_name(secure=secure), path="/", httponly=True, secure=secure, samesite="Lax")


def _is_secure(request: web.Request) -> bool:
    access = request.config_dict.get(Access.KEY)
    return request.secure if access is None else access.is_secure(request)  # None: the hub is in another application


def _expires(token: str) -> float:
    """Return when *token* expires, in seconds since 1970.

    Raises:
        InvalidInput: it does not say.
    """
    try:
        _, claims, _ = token.split(".")
        expires = json.loads(decoded(claims))["exp"]
    except (ValueError, KeyError, TypeError):
        expires = None
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not math.isfinite(expires):
        raise InvalidInput("token", "is not a JSON Web Token that says until when it is valid (exp)")
    return expires
