"""The hub of the demo, and its routes: the page, the orders, the login, and the classic stream examples."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Literal

import reactivex
from aiohttp import web
from reactivex import Observable, operators

from hub.demo import accounts, network
from hub.demo.market import Market
from hub.demo.ticker import Ticker
from hub.errors import InvalidInput
from hub.eventstream import MessageEvent
from hub.hub import Hub
from hub.settings import Settings
from hub.web.access import Access
from hub.web.app import HUB, setup_hub
from hub.web.body import read_json
from hub.web.endpoint import Endpoint, Handler, opens_stream
from hub.web.handler_streams import sse
from hub.web.pages import page
from hub.web.subscribe import open_stream, subscribe_user

HERE = Path(__file__).parent / "page"
TRUSTED = "hub-demo"
"""The Trusted Types policy of the page: the client loads the script of the worker that the tabs share."""


LISTENERS = "hub.demo.listeners"
"""The module with the demo's own listeners, used where the settings name no others."""
PROVIDER = "simulated"
"""The provider behind the chat of the demo page, used where the settings name no other."""


def setup_demo_hub(
    app: web.Application, settings: Settings, *, routes: Literal["all"] | Collection[str] = "all"
) -> Hub:
    """Add the hub of the demo to *app*: with its listeners, its chat, and the login of its two users.

    Whoever is not logged in may do everything else. Where *settings* say how tokens are verified, the tokens and the
    settings say who may do what. *routes* are as for `setup_hub`.
    """
    # Without them the demo's orders and trades reach nobody, and nothing answers in its chat.
    parts: dict[str, object] = {
        "listeners": settings.listeners or (LISTENERS,),
        "ai_provider": settings.ai_provider or PROVIDER,
    }
    hub = setup_hub(
        app,
        settings.model_copy(update=parts),
        authenticate=accounts.authenticate_by_tokens_too if settings.takes_tokens else accounts.authenticate,
        authorize_subscribe=accounts.authorize_subscribe,
        authorize_publish=accounts.authorize_publish,
        authorize_join=accounts.authorize_join,
        routes=routes,
    )
    if not settings.takes_tokens:
        patterns = accounts.EVERYTHING
        app[Access.KEY].policy = accounts.Open(anonymous_subscribe=patterns, anonymous_publish=patterns)
    return hub


def setup_demo(app: web.Application) -> None:
    """Add the demo to *app*, which has a hub: the page, the routes, and the background tasks."""
    hub = app[HUB]
    numbers = itertools.count(1)

    async def create_order(hub: Hub, request: web.Request) -> web.Response:
        order = {"id": 0, "amount": _amount(await read_json(request))}
        order["id"] = next(numbers)
        hub.bus.emit("order.created", order)
        return web.json_response(order, status=201)

    async def facts(hub: Hub, request: web.Request) -> web.Response:
        simulated = hub.settings.ai_provider == PROVIDER
        metrics = hub.settings.admin_port is None and not hub.settings.takes_tokens
        return web.json_response({"simulated": simulated, "metrics": metrics})

    routes: dict[str, dict[str, Handler]] = {
        "/": {"GET": page(HERE / "index.html", trusted=TRUSTED)},
        **{f"/demo/{file.name}": {"GET": page(file)} for file in sorted(HERE.glob("*.*s"))},
        "/demo/facts.json": {"GET": facts},
        "/orders": {"POST": create_order},
        **accounts.ROUTES,
        **network.ROUTES,
        "/sse/use-get-decorator": {"GET": _plain(ten_messages)},
        "/sse/use-sse-decorator": {"GET": _plain(endless_messages)},
        "/sse/test": {"GET": subscribe_user_test, "POST": _plain(answer_in_parts)},
        "/sse/{userId}": {"GET": subscribe_user},
    }
    for path, handlers in routes.items():
        Endpoint(hub, handlers, path).add_to(app, path)
    network.Proxy().add_to(app)

    async def background_tasks(app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each.run()) for each in (Ticker(hub), Market(hub))]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    app.cleanup_ctx.append(background_tasks)


def _plain(handler: Handler) -> Handler:
    async def answer(hub: Hub, request: web.Request) -> web.StreamResponse:
        return await handler(request)  # type: ignore[call-arg, arg-type]  # an @sse handler takes only the request

    return answer


def _amount(body: object) -> float:
    amount = body.get("amount") if isinstance(body, dict) else None
    if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 <= amount <= 1e12:
        raise InvalidInput("amount", "is not a number from 0 to 1,000,000,000,000")
    return amount


@opens_stream
async def subscribe_user_test(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open the stream of the user `test`: `/sse/test` is also the path of a `POST` example."""
    return await open_stream(hub, request, "user/test")


@sse
def ten_messages(request: web.Request) -> Observable[MessageEvent]:
    """Return ten messages, one a second."""
    return _every_second().pipe(operators.take(10))


@sse
def endless_messages(request: web.Request) -> Observable[MessageEvent]:
    """Return a message a second until the client disconnects."""
    return _every_second()


def _every_second() -> Observable[MessageEvent]:
    return reactivex.interval(1.0).pipe(
        operators.map(lambda number: MessageEvent({"message": f"收到第 {number} 条消息"}))
    )


@sse
async def answer_in_parts(request: web.Request) -> AsyncIterator[MessageEvent]:
    """Yield three parts, one a second, then `[DONE]`."""
    for number in (1, 2, 3):
        yield MessageEvent({"content": f"这是测试内容 ==>{number}"})
        await asyncio.sleep(1)
    yield MessageEvent("[DONE]")
