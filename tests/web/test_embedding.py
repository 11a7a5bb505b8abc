"""A hub as a guest in somebody's application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient
from reactivex import Observable, of

from hub import BUS, HUB, NOTIFICATIONS, Notification, Settings, setup_hub, sse
from hub.errors import AlreadySetUp, ShuttingDown
from tests.spec_decoder import SpecDecoder
from tests.web.client import Client, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.web.test_shutdown import cleanup

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("nothing_goes_wrong_behind_the_scenes")]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# ---- the application's own affairs ----


class Host:
    """An application with opinions: it compresses everything, marks every answer, and watches every request."""

    def __init__(self) -> None:
        self.watched: list[str] = []
        self.app = web.Application(middlewares=[self._watch, self._compress])
        self.app.on_response_prepare.append(self._mark)
        self.app.router.add_get("/own", self._own)

    @web.middleware
    async def _compress(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if response.status != 204:  # aiohttp can not compress what is not there
            response.enable_compression(web.ContentCoding.gzip)
        return response

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except BaseException as error:
            self.watched.append(f"{request.path} {error!r}")
            raise
        self.watched.append(f"{request.path} {response.status}")
        return response

    async def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Mark"] = "mine"
        if response.status != 204:
            response.enable_compression(web.ContentCoding.gzip)

    async def _own(self, request: web.Request) -> web.Response:
        return web.json_response({"own": True})


async def test_a_hub_lives_under_its_prefix_and_nowhere_else(serve: Serve) -> None:
    server = await serve(app=Host().app, prefix="/live")
    client = await server.subscribe("a")
    server.send("x", topic="a")
    assert (await client.next()).data == "x"
    for path in ("notifications/publish", "notifications/subscribe", "notifications/stats", "healthz", "metrics"):
        assert (await server.ask("OPTIONS", f"/live/{path}")).status == 204
        assert (await server.ask("GET", f"/{path}")).status == 404
    assert (await server.ask("GET", "/own")).status == 200


async def test_a_prefix_may_end_with_a_slash(serve: Serve) -> None:
    server = await serve(prefix="/live/")
    assert (await server.ask("GET", "/live/healthz")).status == 200


async def test_a_signal_of_the_application_applies_to_a_stream_and_compression_does_not(serve: Serve) -> None:
    server = await serve(app=Host().app)
    client = await server.subscribe(headers={"Accept-Encoding": "gzip"})
    assert client.headers["X-Mark"] == "mine"
    assert "Content-Encoding" not in client.headers
    server.send("plain")
    assert (await client.next()).data == "plain"
    assert (await server.ask("GET", "/own")).headers["Content-Encoding"] == "gzip"


async def test_a_signal_of_the_application_applies_to_a_handler_stream_too(serve: Serve) -> None:
    @sse
    def handler(request: web.Request) -> Observable[Any]:
        return of("plain")

    app = Host().app
    app.router.add_get("/stream", handler)
    server = await serve(app=app)
    answer = await server.ask("GET", "/stream")
    assert answer.headers["X-Mark"] == "mine"
    assert "Content-Encoding" not in answer.headers
    assert answer.body == b"data: plain\n\n"


@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_a_middleware_is_not_cancelled_by_a_stream_and_ends_at_once(
    serve: Serve, handler_cancellation: bool
) -> None:
    host = Host()
    server = await serve(app=host.app, handler_cancellation=handler_cancellation)
    client = await server.subscribe()
    await until(lambda: host.watched)
    assert host.watched == ["/notifications/subscribe 200"]
    client.close()
    await server.deserted()
    assert host.watched == ["/notifications/subscribe 200"]


async def test_a_hub_in_a_nested_application_serves(serve: Serve) -> None:
    inner, outer = web.Application(), web.Application()
    hub = setup_hub(inner, Settings.load({"drain": 0}, environ={}))
    outer.add_subapp("/inner", inner)
    runner = web.AppRunner(outer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = await Client.connect(runner.addresses[0][:2])
    await client.request("GET", "/inner/notifications/subscribe")
    assert await client.head() == 200
    await client.next("hub.open")
    hub.notifications.send_notification("x")
    assert (await client.next()).data == "x"
    await runner.cleanup()
    await client.next("hub.close")
    await client.aclose()


async def test_the_applications_keys_are_the_hub_its_service_and_its_bus(serve: Serve) -> None:
    app = web.Application()
    server = await serve(app=app)
    assert app[HUB] is server.hub
    assert app[NOTIFICATIONS] is server.hub.notifications
    assert app[BUS] is server.hub.bus


async def test_a_second_hub_in_one_application_is_refused() -> None:
    app = web.Application()
    setup_hub(app, Settings.load(environ={}), routes="all")
    with pytest.raises(AlreadySetUp):
        setup_hub(app, Settings.load(environ={}), prefix="/second", routes="all")


async def test_two_applications_have_two_hubs_that_know_nothing_of_each_other(serve: Serve) -> None:
    one, other = await serve(), await serve()
    clients = [await one.subscribe("**"), await other.subscribe("**")]
    one.send("one")
    other.send("other")
    assert [(await client.next()).data for client in clients] == ["one", "other"]
    assert one.hub.log.epoch != other.hub.log.epoch


async def test_an_application_says_how_its_own_objects_become_json(serve: Serve) -> None:
    app = web.Application()
    hub = setup_hub(app, Settings.load({"drain": 0}, environ={}), json_default=list, routes="all")
    heard: list[Notification] = []
    hub.notifications.stream("a").subscribe(heard.append)
    await hub.notifications.send_notification(range(2), topic="a")
    assert [each.text for each in heard] == ["[0,1]"]


async def test_what_is_sent_before_the_start_can_be_resumed_after_it(serve: Serve) -> None:
    app = web.Application()
    hub = setup_hub(app, Settings.load({"drain": 0}, environ={}), routes="all")
    first, second = (hub.notifications.send_notification(number).result() for number in (1, 2))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = await Client.connect(runner.addresses[0][:2])
    await client.request("GET", "/notifications/subscribe", headers={"Last-Event-ID": str(first)})
    await client.head()
    assert (await client.next("hub.open")).json()["recovered"] is True
    assert (await client.next()).id == str(second)
    await runner.cleanup()
    await client.aclose()
    with pytest.raises(ShuttingDown):
        hub.notifications.send_notification(3)


async def test_a_hub_works_under_the_test_client_of_aiohttp(aiohttp_client: AiohttpClient) -> None:
    app = web.Application()
    hub = setup_hub(app, Settings.load({"drain": 0}, environ={}), routes="all")
    client = await aiohttp_client(app)
    decoder = SpecDecoder()
    async with client.get("/notifications/subscribe", params={"topic": "a"}) as answer:
        assert [event.type for event in decoder.feed(await answer.content.readany())] == ["hub.open"]
        async with client.post("/notifications/publish", json={"topic": "a", "data": 1}) as accepted:
            assert accepted.status == 201
        assert [event.data for event in decoder.feed(await answer.content.readany())] == ["1"]
    await until(lambda: not len(hub.connections))


async def test_the_headers_of_the_application_and_of_the_hub_go_together(serve: Serve) -> None:
    server = await serve(app=Host().app, cors_origins=["https://app.example"])
    client = await server.subscribe(headers={"Origin": "https://app.example"})
    assert client.headers["X-Mark"] == "mine"
    assert client.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert client.headers["Vary"] == "Origin"


# ---- middlewares that take their time behind a stream ----


class Bracket:
    """A middleware that has something to do behind its handler, and takes its time."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = ""

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            answer = await handler(request)
            self.reached.set()
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return answer


async def nested(hub_app: web.Application, outer_app: web.Application, *, handler_cancellation: bool = False) -> Server:
    """Start *outer_app* with *hub_app*, which gets a hub, mounted at `/inner`."""
    its_hub = setup_hub(hub_app, Settings(drain=0))
    outer_app.add_subapp("/inner", hub_app)
    runner = web.AppRunner(outer_app, handler_cancellation=handler_cancellation, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = Server(outer_app, its_hub, runner, prefix="/inner")
    server.address = runner.addresses[0][:2]
    return server


@pytest.mark.slow
@pytest.mark.parametrize("handler_cancellation", [False, True], ids=["handler runs on", "handler cancelled"])
@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
@pytest.mark.usefixtures("complaints")
async def test_nested_middlewares_are_not_cancelled_when_the_client_leaves(
    leave: Callable[[Client], None], handler_cancellation: bool
) -> None:
    outer, inner = Bracket(), Bracket()
    server = await nested(
        web.Application(middlewares=[inner.around]),
        web.Application(middlewares=[outer.around]),
        handler_cancellation=handler_cancellation,
    )
    client = await server.subscribe()
    await inner.reached.wait()
    leave(client)
    await server.deserted()
    inner.go_on.set()
    await outer.reached.wait()
    outer.go_on.set()
    await until(lambda: outer.ended)
    assert (inner.ended, outer.ended) == ("done", "done")
    await server.aclose()


async def test_a_stream_goes_on_while_a_middleware_is_still_busy_behind_it(serve: Serve) -> None:
    bracket = Bracket()
    server = await serve(app=web.Application(middlewares=[bracket.around]))
    client = await server.subscribe()
    await bracket.reached.wait()
    server.send("meanwhile")
    assert (await client.next()).data == "meanwhile"
    bracket.go_on.set()
    await until(lambda: bracket.ended)
    server.send("after")
    assert (await client.next()).data == "after"


async def test_a_body_that_a_middleware_has_read_is_published_all_the_same(serve: Serve) -> None:
    seen: list[bytes] = []

    @web.middleware
    async def look(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append(await request.read())
        return await handler(request)

    server = await serve(app=web.Application(middlewares=[look]))
    answer = await server.post("/notifications/publish", {"data": "looked at"})
    assert answer.status == 201
    assert b"looked at" in seen[0]


async def test_a_middleware_that_answers_with_something_else_does_not_hurt_the_stream(serve: Serve) -> None:
    @web.middleware
    async def instead(request: web.Request, handler: Handler) -> web.StreamResponse:
        await handler(request)
        done.set()
        return web.Response(text="something else")

    done = asyncio.Event()
    server = await serve(app=web.Application(middlewares=[instead]))
    client = await server.subscribe()
    await done.wait()
    server.send("live")
    assert (await client.next()).data == "live"
    assert b"something else" not in client.received


# ---- sending from inside ----


async def test_a_handler_of_the_application_sends_and_emits(serve: Serve) -> None:
    async def handle(request: web.Request) -> web.Response:
        position = await request.app[NOTIFICATIONS].send_notification({"n": 1}, type="sent")
        request.app[BUS].emit("order.created", {"id": 7, "amount": 1.5})
        return web.Response(text=str(position))

    app = web.Application()
    app.router.add_post("/act", handle)
    server = await serve(app=app, prefix="/live", listeners=("listeners",))
    client = await server.subscribe()
    id = (await server.ask("POST", "/act")).body.decode()
    sent = await client.next("sent")
    assert (sent.id, sent.json()) == (id, {"n": 1})
    assert (await client.next()).json() == {"message": "新订单 #7 已创建！", "amount": 1.5}


async def test_what_is_sent_and_emitted_at_the_start_is_there_for_who_resumes_from_the_beginning(
    serve: Serve,
) -> None:
    async def before_the_hub(app: web.Application) -> AsyncIterator[None]:
        app[NOTIFICATIONS].send_notification("before")
        app[BUS].emit("order.created", {"id": 1, "amount": 1})
        yield

    async def after_the_hub(app: web.Application) -> None:
        await app[NOTIFICATIONS].send_notification("after")
        app[BUS].emit("order.created", {"id": 2, "amount": 2})

    app = web.Application()
    app.cleanup_ctx.append(before_the_hub)
    app.on_startup.append(after_the_hub)
    server = await serve(app=app, listeners=("listeners",))
    client = await server.subscribe(last_event_id=f"{server.hub.log.epoch}-0")
    assert client.opened.json()["recovered"] is True
    assert [(await client.next()).data for _ in range(4)] == [
        "before",
        '{"message":"新订单 #1 已创建！","amount":1}',
        "after",
        '{"message":"新订单 #2 已创建！","amount":2}',
    ]


async def test_what_the_application_sends_while_it_shuts_down_still_reaches_the_streams(serve: Serve) -> None:
    async def goodbye(app: web.Application) -> None:
        await app[NOTIFICATIONS].send_notification("we are closing")

    app = web.Application()
    app.on_shutdown.append(goodbye)
    server = await serve(app=app)
    client = await server.subscribe()
    await cleanup(server)
    assert (await client.next()).data == "we are closing"
    await client.next("hub.close")


async def test_an_application_may_observe_what_is_broadcast(serve: Serve) -> None:
    seen: list[object] = []
    server = await serve()
    stream: Observable[Any] = server.app[NOTIFICATIONS].stream("orders")
    stream.subscribe(
        lambda notification: seen.append(str(notification.position)), on_completed=lambda: seen.append("end")
    )
    (id,) = server.send("x", topic="orders")
    server.send("y", topic="elsewhere")
    await cleanup(server)
    assert seen == [id, "end"]
