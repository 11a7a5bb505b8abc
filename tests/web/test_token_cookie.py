"""The cookie with which a browser shows its token: set and cleared by the application, read by the hub."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie
from typing import Any

import jwt
import pytest
from aiohttp import web

from hub import clear_token_cookie, set_token_cookie
from hub.errors import InvalidInput
from tests.web.conftest import TLS, Serve
from tests.web.server import Answer, Server
from tests.web.test_rights import SECRET, token


async def log_in(request: web.Request) -> web.Response:
    answer = web.Response(status=204)
    set_token_cookie(request, answer, token("tom", seconds=float(request.query.get("seconds", "600"))))
    return answer


async def log_out(request: web.Request) -> web.Response:
    answer = web.Response(status=204)
    clear_token_cookie(request, answer)
    return answer


def application() -> web.Application:
    app = web.Application()
    app.router.add_post("/login", log_in)
    app.router.add_post("/logout", log_out)
    return app


def cookie_of(answer: Answer) -> Morsel[str]:
    (line,) = answer.headers.getall("Set-Cookie")
    ((_, morsel),) = SimpleCookie(line).items()
    return morsel


async def reads(server: Server, cookie: Morsel[str], **headers: str) -> int:
    """Return the status of what the user may read, for a browser that has *cookie*."""
    said = {name.replace("_", "-"): text for name, text in headers.items()}
    said["Cookie"] = f"{cookie.key}={cookie.value}"
    return (await server.ask("GET", "/notifications/history?topic=orders/1", headers=said)).status


BEHIND_TLS = {"X_Forwarded_Proto": "https"}


@pytest.mark.parametrize(
    ("headers", "trusted", "name"),
    [
        ({}, [], None),
        (BEHIND_TLS, ["127.0.0.1"], "__Host-hub_token"),
        (BEHIND_TLS, [], None),
        ({"X_Forwarded_Proto": "http"}, ["127.0.0.1"], None),
        ({}, ["127.0.0.1"], None),
    ],
)
async def test_the_cookie_that_is_set_is_the_one_that_is_read(
    serve: Serve, maybe_tls: TLS | None, headers: dict[str, str], trusted: list[str], name: str | None
) -> None:
    name = name or ("hub_token" if maybe_tls is None else "__Host-hub_token")
    server = await serve(
        app=application(),
        tls=maybe_tls,
        setup={"routes": None},
        jwt_secret=SECRET,
        trusted_proxies=trusted,
    )
    cookie = cookie_of(await server.post("/login", {}, **headers))
    assert (cookie.key, cookie["path"], cookie["samesite"], cookie["domain"]) == (name, "/", "Lax", "")
    assert (bool(cookie["httponly"]), bool(cookie["secure"])) == (True, name.startswith("__Host-"))
    assert 590 <= int(cookie["max-age"]) <= 600
    assert await reads(server, cookie, **headers) == 200
    gone = cookie_of(await server.post("/logout", {}, **headers))
    assert (gone.key, gone["path"], gone["max-age"]) == (name, "/", "0")
    assert bool(gone["secure"]) == bool(cookie["secure"]), "or a browser would not remove what begins with __Host-"


async def test_over_tls_a_cookie_that_a_subdomain_could_have_set_is_not_read(serve: Serve, tls: TLS) -> None:
    server = await serve(app=application(), tls=tls, setup={"routes": None}, jwt_secret=SECRET)
    cookie = cookie_of(await server.post("/login", {}))
    said = {"Cookie": f"hub_token={cookie.value}"}
    assert (await server.ask("GET", "/notifications/history?topic=orders/1", headers=said)).status == 401


async def test_a_token_that_has_expired_is_no_cookie_at_all(serve: Serve) -> None:
    server = await serve(app=application(), setup={"routes": None}, jwt_secret=SECRET)
    assert cookie_of(await server.post("/login?seconds=-1", {}))["max-age"] == "0"


async def test_the_application_that_logs_in_may_be_another_than_the_hubs(serve: Serve) -> None:
    live, app = web.Application(), application()
    server = await serve(app=live, setup={"routes": None}, jwt_secret=SECRET)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    there = Server(app, server.hub, runner, prefix="")
    there.address = runner.addresses[0][:2]
    try:
        cookie = cookie_of(await there.post("/login", {}))
    finally:
        await runner.cleanup()
    assert (cookie.key, await reads(server, cookie)) == ("hub_token", 200)


def signed(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b.c",
        "a.e30.c",
        "a.bnVsbA.c",
        signed({"sub": "tom"}),
        *(f"a.{body}.c" for body in ("eyJleHAiOiAieCJ9", "eyJleHAiOiB0cnVlfQ", "eyJleHAiOiBJbmZpbml0eX0")),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(text: str) -> None:
    answer = web.Response()
    with pytest.raises(InvalidInput) as caught:
        set_token_cookie(None, answer, text)  # type: ignore[arg-type]  # the request is not reached
    assert len(text) < 9 or text not in str(caught.value)
    assert not answer.cookies
