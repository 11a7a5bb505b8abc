"""The newest position, for a page that is rendered now: what is sent before its stream opens is on the stream."""

from __future__ import annotations

from aiohttp import web

from hub import Identity
from tests.web.conftest import Serve
from tests.web.server import Server

PATH = "/notifications/position"


async def by_header(request: web.Request) -> Identity | None:
    user = request.headers.get("X-User")
    return None if user is None else Identity(user=user)


async def test_a_stream_after_the_position_of_a_page_brings_what_was_sent_before_it_was_opened(server: Server):
    server.send(1)
    position = (await server.ask("GET", PATH)).json()["position"]
    server.send(2)
    client = await server.subscribe(query={"lastEventId": position})
    server.send(3)
    assert [(await client.next()).json() for _ in range(2)] == [2, 3]
    assert client.opened.json()["recovered"] is True


async def test_the_position_is_that_of_the_service_and_of_a_new_stream(server: Server):
    notifications = server.hub.notifications
    for _ in range(2):
        answer = await server.ask("GET", PATH)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json() == {"position": str(notifications.position)}
        assert (await server.subscribe()).opened.id == str(notifications.position)
        server.send(1)


async def test_whoever_may_read_something_may_ask_for_it(serve: Serve):
    setup = {"authenticate": by_header, "routes": None}
    closed, open = await serve(setup=setup), await serve(setup=setup, anonymous_subscribe=("news",))
    assert (await closed.ask("GET", PATH)).status == 401
    assert (await closed.ask("GET", PATH, headers={"X-User": "ann"})).status == 200
    assert (await open.ask("GET", PATH)).status == 200
