# orders/live.py
import logging
import time
from urllib.request import Request, urlopen

import jwt
from django.conf import settings
from django.utils.crypto import salted_hmac

from hub.client import HubClient

logger = logging.getLogger(__name__)

SECONDS = 900  # for which a token is valid


def token(user, *, jti=None, **rights):
    claims = {"sub": str(user), "iat": int(time.time()), "exp": int(time.time()) + SECONDS, "hub": rights}
    return jwt.encode(claims | ({"jti": jti} if jti else {}), settings.HUB_JWT_SECRET, algorithm="HS256")


def our_token():
    return token("django", publish=["**", "user/**"], admin=True)


hub = HubClient(settings.HUB_URL, token=our_token)  # asks for another token when this one expires


def revoke(jti):
    request = Request(f"{settings.HUB_URL}/notifications/tokens/{jti}", method="DELETE")
    request.add_header("Authorization", f"Bearer {our_token()}")
    try:
        urlopen(request, timeout=5).close()
    except OSError:
        logger.exception("the streams of this login go on until its token expires")


class TokenMiddleware:
    """Sets a cookie for the hub while a user is logged in, and ends the user's streams at the logout."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        name = "__Host-hub_token" if request.is_secure() else "hub_token"
        try:
            known = request.COOKIES.get(name, "")
            required = {"require": ["jti", "exp"]}
            claims = jwt.decode(known, settings.HUB_JWT_SECRET, algorithms=["HS256"], options=required)
        except jwt.InvalidTokenError:
            claims = {}
        if not request.user.is_authenticated:
            if claims:
                revoke(claims["jti"])
                response.delete_cookie(name)
            return response
        user = str(request.user.pk)
        # The same for all tokens of one login, so that the logout ends the streams of each.
        jti = salted_hmac("hub", request.session.session_key).hexdigest()
        if (claims.get("sub"), claims.get("jti")) != (user, jti) or claims["exp"] < time.time() + SECONDS / 2:
            response.set_cookie(
                name,
                token(user, jti=jti, subscribe=["orders"]),
                max_age=SECONDS,
                secure=request.is_secure(),
                httponly=True,
                samesite="Lax",
            )
        return response
