"""Cross-origin access: which pages may read what, and what a preflight says."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from reactivex import Observable, of

from hub import sse
from tests.web.conftest import Serve
from tests.web.server import Answer, Server

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("nothing_goes_wrong_behind_the_scenes")]
LISTED = ["https://app.example", "http://localhost:3000"]


def allowed(headers: Any) -> tuple[str | None, str | None]:
    """What a browser looks at: the origin that may read, and what a cache has to look at."""
    return headers.get("Access-Control-Allow-Origin"), headers.get("Vary")


def with_handler_stream() -> web.Application:
    @sse
    def handler(request: web.Request) -> Observable[Any]:
        if "fail" in request.query:
            raise web.HTTPForbidden
        return of(1)

    app = web.Application()
    app.router.add_get("/stream", handler)
    return app


async def cross_origin(server: Server, origin: str) -> list[Any]:
    """Return the headers of every kind of answer to a page of *origin*."""
    said = {"Origin": origin}
    stream = await server.subscribe(headers=said)
    answers: list[Answer] = [
        await server.ask("GET", "/notifications/subscribe?topic=a//b", headers=said),
        await server.ask("PUT", "/notifications/subscribe", headers=said),
        await server.ask("GET", "/notifications/stats", headers=said),
        await server.post("/notifications/publish", {"data": 1}, **said),
        await server.post("/notifications/publish", {}, **said),
        await server.ask("OPTIONS", "/notifications/publish", headers=said),
        await server.ask("GET", "/stream", headers=said),
        await server.ask("GET", "/stream?fail", headers=said),
    ]
    await stream.aclose()
    return [stream.headers, *(answer.headers for answer in answers)]


@pytest.mark.parametrize("origin", LISTED)
async def test_a_listed_origin_may_read_streams_errors_and_preflights(serve: Serve, origin: str) -> None:
    server = await serve(app=with_handler_stream(), cors_origins=LISTED)
    for headers in await cross_origin(server, origin):
        assert allowed(headers) == (origin, "Origin")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://xapp.example",
        "https://app.example:443",
        "http://app.example",
        "HTTPS://APP.EXAMPLE",
        "https://app.example/",
        "null",
        "*",
        "",
    ],
)
async def test_any_other_origin_may_read_nothing(serve: Serve, origin: str) -> None:
    server = await serve(app=with_handler_stream(), cors_origins=LISTED)
    for headers in await cross_origin(server, origin):
        assert allowed(headers) == (None, "Origin")


async def test_without_a_list_nothing_is_said_about_origins(serve: Serve) -> None:
    server = await serve(app=with_handler_stream())
    for headers in await cross_origin(server, LISTED[0]):
        assert allowed(headers) == (None, None)


async def test_those_who_are_sent_away_may_read_that(serve: Serve) -> None:
    server = await serve(cors_origins=LISTED, max_connections=1)
    await server.subscribe()
    answer = await server.ask("GET", server.subscribe_path(), headers={"Origin": LISTED[0]})
    assert allowed(answer.headers) == (LISTED[0], "Origin")
    await server.hub.drain(0)
    answer = await server.ask("GET", server.subscribe_path(), headers={"Origin": LISTED[0]})
    assert allowed(answer.headers) == (LISTED[0], "Origin")


async def test_a_preflight_says_what_may_be_sent(serve: Serve) -> None:
    server = await serve(cors_origins=LISTED)
    answer = await server.ask(
        "OPTIONS",
        "/notifications/subscribe",
        headers={
            "Origin": LISTED[0],
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,last-event-id",
        },
    )
    assert answer.status == 204
    assert {"GET", "POST"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert {"content-type", "last-event-id"} <= set(answer.headers["Access-Control-Allow-Headers"].lower().split(", "))
