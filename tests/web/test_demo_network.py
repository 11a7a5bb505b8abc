"""The network that a user of the demo chooses: what does not get through it, and for whom."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from hub.connections.client_stream import StreamKind
from hub.demo import network
from tests.web.client import until
from tests.web.server import Answer, Server
from tests.web.test_demo_login import demo, follow, log_in

__all__ = ["demo"]  # the fixture

STREAM = "/notifications/subscribe?topic=user/ann"


async def choose(demo: Server, headers: dict[str, str], name: object) -> Answer:
    """Choose a network; add what its cookie says to *headers*."""
    body = b'{"network": "%s"}' % str(name).encode()
    answer = await demo.ask("PUT", "/network", headers={"Content-Type": "application/json", **headers}, body=body)
    if answer.status == 200:
        headers["Cookie"] += "; " + answer.headers["Set-Cookie"].split(";")[0]
    return answer


async def socket(demo: Server, headers: dict[str, str]) -> int:
    """Ask for a WebSocket; return the status, and leave it open until the hub has cut it."""
    url = "http://{}:{}/notifications/ws".format(*demo.address)
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(url, headers=headers) as opened:
                await opened.receive_json(timeout=10)
                while (await opened.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                    pass
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def test_a_websocket_is_cut_and_refused_and_streams_go_on(demo: Server) -> None:
    ann, other = await log_in(demo, "ann"), await log_in(demo, "ann")
    bo = await log_in(demo, "bo")
    stream = await follow(demo, STREAM, ann)
    opened = [asyncio.create_task(socket(demo, headers)) for headers in (ann, other, bo)]
    await until(lambda: demo.hub.connections.count(StreamKind.WEBSOCKET) == 3)
    assert (await choose(demo, ann, "no-websockets")).json() == {"network": "no-websockets"}
    assert await opened[0] == 101
    assert await socket(demo, ann) == 403
    # Neither another browser of this user nor another user has this network.
    assert demo.hub.connections.count(StreamKind.WEBSOCKET) == 2
    await demo.post("/messages", {"to": "ann", "message": "still here"}, **bo)
    assert (await stream.next("message.private")).json()["message"] == "still here"
    assert (await choose(demo, ann, "open")).status == 200
    opened.append(asyncio.create_task(socket(demo, ann)))
    await until(lambda: demo.hub.connections.count(StreamKind.WEBSOCKET) == 3)
    for task in opened:
        task.cancel()
    await asyncio.wait(opened)


async def test_a_stream_is_held_back_until_the_client_leaves_and_polls_go_on(
    demo: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await log_in(demo, "ann")
    stream = await follow(demo, STREAM, ann)
    await choose(demo, ann, "no-streams")
    await stream.rest()
    assert demo.hub.connections.count(StreamKind.SUBSCRIPTION) == 0
    monkeypatch.setattr(network, "LONGEST", 0.0)
    given_up = await demo.ask("GET", STREAM, headers=ann)
    assert (given_up.status, given_up.headers["Content-Type"]) == (504, "text/html; charset=utf-8")
    assert (await demo.ask("GET", "/notifications/poll?topic=user/ann&wait=0", headers=ann)).status == 200
    assert await socket(demo, ann) == 403
    # Whoever logs out has the network of everybody.
    await follow(demo, "/notifications/subscribe", {"Cookie": ann["Cookie"].partition("; ")[2]})


async def test_a_demo_that_ends_waits_for_no_stream_that_is_held_back(demo: Server) -> None:
    ann = await log_in(demo, "ann")
    await choose(demo, ann, "no-streams")
    held = asyncio.create_task(demo.ask("GET", STREAM, headers=ann))
    await until(lambda: demo.app.middlewares[-1].__self__._held == 1)  # type: ignore[attr-defined]  # a bound method
    await asyncio.wait_for(demo.app.shutdown(), 10)
    assert (await held).status == 504


@pytest.mark.parametrize("name", ["", "closed", "OPEN"])
async def test_there_are_three_networks_for_whoever_is_logged_in(demo: Server, name: str) -> None:
    ann = await log_in(demo, "ann")
    assert (await choose(demo, ann, name)).json()["field"] == "network"
    assert (await choose(demo, {}, "open")).status == 401
    assert (await choose(demo, {**ann, "Sec-Fetch-Site": "cross-site"}, "open")).status == 403
    forged = {"Cookie": f"{ann['Cookie']}; {network.COOKIE}={name}"}
    await follow(demo, STREAM, forged)
