"""The demo has two users: what is sent to one reaches nobody else, and everybody may do what they could without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from pydantic import SecretStr

from hub import Settings
from hub.demo import setup_demo, setup_demo_hub
from tests.web.client import Client, until
from tests.web.server import Answer, Server
from tests.web.test_rights import SECRET, token


async def start(**settings: Any) -> Server:
    """Start the demo as `hub serve --demo` does."""
    app = web.Application()
    hub = setup_demo_hub(app, Settings(drain=0, events_api=True, **settings))
    setup_demo(app)
    runner = web.AppRunner(app, shutdown_timeout=2, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = Server(app, hub, runner, prefix="")
    server.address = runner.addresses[0][:2]
    return server


@pytest.fixture
async def demo() -> AsyncIterator[Server]:
    server = await start()
    yield server
    await server.aclose()


async def log_in(demo: Server, user: str, **headers: str) -> dict[str, str]:
    """Return the headers of a browser in which *user* is logged in."""
    answer = await demo.post("/login", {"user": user}, **headers)
    assert (answer.status, answer.json()) == (200, {"user": user})
    return {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}


async def follow(demo: Server, path: str, headers: dict[str, str]) -> Client:
    client = await demo.client()
    await client.request("GET", path, headers=headers)
    assert await client.head() == 200
    await client.next("hub.open")
    return client


async def send(demo: Server, headers: dict[str, str], to: object, message: object) -> Answer:
    return await demo.post("/messages", {"to": to, "message": message}, **headers)


async def test_a_private_message_reaches_the_user_that_it_is_for_and_nobody_else(demo: Server) -> None:
    ann, bo = await log_in(demo, "ann"), await log_in(demo, "bo")
    everything = "/notifications/subscribe?topic=**&topic=user/*&topic=user/**&topic=notifications"
    others = [await follow(demo, everything, headers) for headers in (ann, {})]
    hers = await follow(demo, "/notifications/subscribe?topic=user/bo&topic=notifications", bo)
    path = "/sse/bo"
    by_path = await follow(demo, path, bo)
    answer = await send(demo, ann, "bo", "only for you")
    assert answer.status == 201
    demo.send("end")
    for client in (hers, by_path):
        event = await client.next("message.private")
        assert (event.id, event.json()) == (
            answer.json()["id"],
            {"from": "ann", "to": "bo", "message": "only for you"},
        )
    for client in others:
        assert [event.data for event in await client.upto("end")] == ["end"], "through patterns, too"


@pytest.mark.parametrize(
    "path", ["/sse/bo", "/notifications/subscribe?topic=user/bo", "/notifications/history?topic=user/bo"]
)
async def test_what_is_sent_to_a_user_can_not_be_asked_for_by_others(demo: Server, path: str) -> None:
    ann, bo = await log_in(demo, "ann"), await log_in(demo, "bo")
    await send(demo, ann, "bo", "only for you")
    path += f"{'&' if '?' in path else '?'}{'after' if 'history' in path else 'lastEventId'}=earliest"
    statuses = []
    for headers in ({}, ann, {"Cookie": "hub_demo_login=bo"}, {"Cookie": "hub_demo_login=bo.x"}):
        answer = await demo.ask("GET", path, headers=headers)
        statuses.append(answer.status)
        assert b"only for you" not in answer.body
    assert statuses == [401, 403, 401, 401]
    if "history" in path:
        assert b"only for you" in (await demo.ask("GET", path, headers=bo)).body
    else:
        client = await follow(demo, path, bo)
        assert (await client.next("message.private")).json()["message"] == "only for you"


async def test_nobody_takes_it_out_of_the_archive(demo: Server) -> None:
    ann = await log_in(demo, "ann")
    await send(demo, ann, "bo", "only for you")
    for headers in ({}, ann):
        answer = await demo.ask("GET", "/notifications/history", headers={**headers, "Accept": "application/x-ndjson"})
        assert answer.status in {401, 403}
        assert b"only for you" not in answer.body


async def test_who_a_message_is_from_can_not_be_made_up(demo: Server) -> None:
    ann, bo = await log_in(demo, "ann"), await log_in(demo, "bo")
    draft = {"topics": ["orders", "user/ann"], "data": {"from": "bo"}, "private": True}
    for headers, status in (({}, 401), (bo, 403), (ann, 403)):
        for body in (draft, [draft]):
            assert (await demo.post("/notifications/publish", body, **headers)).status == status
    assert (await send(demo, {}, "ann", "hello")).status == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"to": "eve", "message": "x"}, "to"),
        ({"to": ["bo"], "message": "x"}, "to"),
        ({"message": "x"}, "to"),
        ([], "to"),
        ({"to": "bo", "message": ""}, "message"),
        ({"to": "bo", "message": "x" * 301}, "message"),
        ({"to": "bo", "message": 1}, "message"),
        ({"to": "bo"}, "message"),
    ],
)
async def test_a_message_that_is_wrong_is_refused(demo: Server, body: object, field: str) -> None:
    answer = await demo.post("/messages", body, **await log_in(demo, "ann"))
    assert (answer.status, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("body", [{}, {"user": "eve"}, {"user": None}, {"user": ["ann"]}, [], "ann"])
async def test_only_two_users_can_log_in(demo: Server, body: object) -> None:
    answer = await demo.post("/login", body)
    assert (answer.status, answer.json()["field"]) == (400, "user")
    assert "Set-Cookie" not in answer.headers


async def test_a_logout_ends_the_streams_of_this_login_only(demo: Server) -> None:
    here, there = await log_in(demo, "ann"), await log_in(demo, "ann")
    ended = [await follow(demo, path, here) for path in ("/sse/ann", "/notifications/subscribe?topic=news")]
    kept = await follow(demo, "/sse/ann", there)
    anonymous = await follow(demo, "/sse/42", {})
    answer = await demo.ask("DELETE", "/login", headers=here)
    assert (answer.json(), "Max-Age=0" in answer.headers["Set-Cookie"]) == ({"user": None}, True)
    for client in ended:
        assert (await client.next("hub.close")).json() == {"reason": "revoked"}
    await until(lambda: len(demo.hub.connections) == 2)
    demo.send("still here", topic="user/42")
    assert (await anonymous.next()).data == "still here"
    await send(demo, there, "ann", "to myself")
    assert (await kept.next("message.private")).json()["message"] == "to myself"


async def test_who_is_logged_in_can_be_asked(demo: Server) -> None:
    ann = await log_in(demo, "ann")
    said = [(await demo.ask("GET", "/login", headers=headers)).json() for headers in ({}, ann)]
    assert said == [{"user": None}, {"user": "ann"}]


@pytest.mark.parametrize(("method", "path"), [("POST", "/login"), ("DELETE", "/login"), ("POST", "/messages")])
async def test_a_page_of_another_site_logs_nobody_in_or_out(demo: Server, method: str, path: str) -> None:
    ann = await log_in(demo, "ann")
    body = json.dumps({"user": "bo", "to": "bo", "message": "x"}).encode()
    for page in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        headers = {**ann, **page, "Content-Type": "application/json"}
        answer = await demo.ask(method, path, headers=headers, body=body)
        assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize("user", ["", "ann"])
async def test_everybody_may_do_what_they_could_without_a_login(demo: Server, user: str) -> None:
    headers = await log_in(demo, user) if user else {}
    stream = await follow(demo, f"/notifications/subscribe?topic={quote('**')}&topic=user/*&topic=room/x", headers)
    by_path = await follow(demo, "/sse/42", headers)
    for topic in ("notifications", "anything/at/all", "user/42", "room/x"):
        assert (await demo.post("/notifications/publish", {"topic": topic, "data": topic}, **headers)).status == 201
        assert (await stream.next()).data == topic
    draft = {"topic": "orders", "data": "private", "private": True}
    assert (await demo.post("/notifications/publish", draft, **headers)).status == 201
    assert (await stream.next()).data == "private"
    assert (await by_path.next()).data == "user/42"
    assert (await demo.post("/events/user.registered", {"id": 42}, **headers)).status == 202
    assert (await by_path.next("user.registered")).id
    assert (await demo.post("/orders", {"amount": 1}, **headers)).status == 201
    operator = ("/notifications/stats", "/notifications/check", "/metrics", "/readyz")
    for path in (*operator, "/notifications/history?topic=user/42", "/"):
        assert (await demo.ask("GET", path, headers=headers)).status == 200


async def test_an_answer_of_the_ai_can_be_watched_before_and_after_a_login(demo: Server) -> None:
    begun = (await demo.post("/ai/chat/stream/init", {"message": "hello"})).json()
    for headers in ({}, await log_in(demo, "ann"), await log_in(demo, "bo")):
        answer = await demo.ask("GET", begun["streamUrl"], headers={**headers, "Accept": "application/json"})
        assert (answer.status, answer.json()["sessionId"]) == (200, begun["sessionId"])


async def test_with_keys_for_tokens_the_tokens_say_who_may_do_what() -> None:
    demo = await start(jwt_secret=SecretStr(SECRET))
    try:
        operator = ("/notifications/stats", "/notifications/check", "/metrics")
        for path in ("/notifications/subscribe?topic=orders", "/sse/42", *operator):
            assert (await demo.ask("GET", path)).status == 401
        assert (await demo.post("/notifications/publish", {"data": 1})).status == 401
        headers = {"Authorization": f"Bearer {token('tom')}"}
        assert (await demo.ask("GET", "/notifications/history?topic=orders/1", headers=headers)).status == 200
        ann = await log_in(demo, "ann")
        await follow(demo, "/sse/ann", ann)
        assert (await demo.ask("GET", "/notifications/history?topic=orders/1", headers=ann)).status == 403
    finally:
        await demo.aclose()


async def test_a_visitor_changes_the_topics_of_a_stream_by_its_id_within_what_visitors_may_read(demo: Server) -> None:
    client = await demo.client()
    await client.request("GET", "/notifications/subscribe?topic=news")
    assert await client.head() == 200
    path = f"/notifications/connections/{(await client.next('hub.open')).json()['connection']}"

    async def add(topic: str) -> Answer:
        body = json.dumps({"add": [topic]}).encode()
        return await demo.ask("PATCH", path, headers={"Content-Type": "application/json"}, body=body)

    answer = await add("user/42")
    assert (answer.status, answer.json()["topics"]) == (200, ["news", "user/42"])
    for topic, status in {"user/ann": 401, "room/tea": 403}.items():
        assert (await add(topic)).status == status, topic
    assert (await demo.ask("DELETE", path)).status == 401
