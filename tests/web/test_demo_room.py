"""The room of the demo: who joins it reads and says there what follows, and nobody else gets any of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from tests.web.client import Client
from tests.web.server import Answer, Server
from tests.web.test_demo_login import follow, log_in, start
from tests.web.test_rights import SECRET

ROOM = "/notifications/subscribe?topic=room/tea"
OWN = "/notifications/subscribe?topic=notifications&rooms=1&presence=1"


@pytest.fixture
async def demo() -> AsyncIterator[Server]:
    server = await start()
    yield server
    await server.aclose()


async def change(demo: Server, method: str, user: str, headers: dict[str, str], room: str = "tea") -> Answer:
    body = json.dumps({"publish": True}).encode() if method == "PUT" else b""
    path = f"/notifications/rooms/{room}/members/{user}"
    return await demo.ask(method, path, headers={**headers, "Content-Type": "application/json"}, body=body)


async def join(demo: Server, user: str) -> dict[str, str]:
    """Return the headers of *user*, who has logged in and joined the room."""
    headers = await log_in(demo, user)
    assert (await change(demo, "PUT", user, headers)).status == 204
    return headers


def message(user: str, text: object, **fields: Any) -> dict[str, Any]:
    return {"topic": "room/tea", "data": {"from": user, "message": text}, "private": True, **fields}


async def say(demo: Server, user: str, headers: dict[str, str], text: str) -> None:
    assert (await demo.post("/notifications/publish", message(user, text), **headers)).status == 201


async def texts(client: Client, demo: Server) -> list[object]:
    demo.send("end")
    return [event.json() for event in await client.upto("end") if event.data and event.data != "end"]


async def test_what_is_said_reaches_the_members_and_nobody_else(demo: Server) -> None:
    bo = await log_in(demo, "bo")
    patterns = f"/notifications/subscribe?topic={quote('**')}&topic=room/*&topic=room/**"
    others = [await follow(demo, patterns, headers) for headers in ({}, bo)]
    ann = await join(demo, "ann")
    hers = await follow(demo, ROOM, ann)
    by_pattern = await follow(demo, patterns, ann)
    await say(demo, "ann", ann, "tea?")
    assert (await hers.next()).json() == {"from": "ann", "message": "tea?"}
    for client in (*others, by_pattern):
        assert await texts(client, demo) == []


@pytest.mark.parametrize(
    "path", [ROOM, f"{ROOM}&lastEventId=earliest", "/notifications/history?topic=room/tea&after=earliest"]
)
async def test_who_is_no_member_can_not_ask_for_it(demo: Server, path: str) -> None:
    ann, bo = await join(demo, "ann"), await log_in(demo, "bo")
    await say(demo, "ann", ann, "tea?")
    for headers, status in (({}, 401), (bo, 403)):
        answer = await demo.ask("GET", path, headers=headers)
        assert (answer.status, b"tea?" in answer.body) == (status, False)


async def test_patterns_do_not_show_what_was_said_in_the_history(demo: Server) -> None:
    ann = await join(demo, "ann")
    await say(demo, "ann", ann, "tea?")
    for headers in ({}, ann):
        for pattern in ("room/*", "room/**", "**"):
            answer = await demo.ask("GET", f"/notifications/history?topic={quote(pattern)}", headers=headers)
            assert (answer.status, b"tea?" in answer.body) == (200, False)


async def test_who_joins_sees_what_follows_and_who_comes_back_what_was_said_since(demo: Server) -> None:
    ann = await join(demo, "ann")
    await say(demo, "ann", ann, "before")
    bo = await join(demo, "bo")
    await say(demo, "ann", ann, "after")
    for _ in range(2):
        his = await follow(demo, f"{ROOM}&lastEventId=earliest", bo)
        assert (await his.next()).json()["message"] == "after"
    await change(demo, "DELETE", "bo", bo)
    await say(demo, "ann", ann, "without him")
    assert (await change(demo, "PUT", "bo", bo)).status == 204
    await say(demo, "bo", bo, "back")
    his = await follow(demo, f"{ROOM}&lastEventId=earliest", bo)
    assert (await his.next()).json() == {"from": "bo", "message": "back"}


async def test_an_open_stream_gains_and_loses_the_room(demo: Server) -> None:
    ann = await log_in(demo, "ann")
    hers = await follow(demo, OWN, ann)
    await change(demo, "PUT", "ann", ann)
    assert (await hers.next("hub.topics")).json()["topics"] == ["notifications", "room/tea"]
    told: set[str] = set()
    while "room/tea" not in told:
        told.add((await hers.next("hub.presence")).json()["topic"])
    await say(demo, "ann", ann, "tea?")
    assert (await hers.next()).json() == {"from": "ann", "message": "tea?"}
    await change(demo, "DELETE", "ann", ann)
    assert (await hers.next("hub.topics")).json()["topics"] == ["notifications"]


async def test_members_are_told_each_others_names_and_nobody_else_is(demo: Server) -> None:
    ann, bo = await join(demo, "ann"), await log_in(demo, "bo")
    await follow(demo, ROOM, ann)
    path = "/notifications/presence?topic=room/tea"
    seen = (await demo.ask("GET", path, headers=ann)).json()
    assert [(each["id"], each["info"]) for each in seen["users"]] == [("ann", {"name": "Ann"})]
    assert [(await demo.ask("GET", path, headers=headers)).status for headers in ({}, bo)] == [401, 403]


async def test_nobody_joins_another_user_nor_another_room(demo: Server) -> None:
    ann = await log_in(demo, "ann")
    statuses = [
        (await change(demo, "PUT", "ann", {})).status,
        (await change(demo, "PUT", "bo", ann)).status,
        (await change(demo, "DELETE", "bo", ann)).status,
        (await change(demo, "PUT", "ann", ann, room="other")).status,
    ]
    assert statuses == [401, 403, 403, 403]


@pytest.mark.parametrize(
    "draft",
    [
        message("bo", "not his words"),
        message("ann", "for everybody", private=False),
        message("ann", ""),
        message("ann", "x" * 301),
        message("ann", 1),
        message("ann", "x", data={"from": "ann", "message": "x", "more": 1}),
        message("ann", "x", data="plain"),
        message("ann", "x", data=["ann"]),
        message("ann", "x", topics=["user/bo"]),
    ],
)
async def test_a_member_says_nothing_in_the_name_of_another_nor_to_everybody(
    demo: Server, draft: dict[str, Any]
) -> None:
    ann = await join(demo, "ann")
    for body in (draft, [message("ann", "fine"), draft]):
        assert (await demo.post("/notifications/publish", body, **ann)).status == 403


async def test_who_is_no_member_says_nothing(demo: Server) -> None:
    bo = await log_in(demo, "bo")
    for headers, status in (({}, 401), (bo, 403)):
        answer = await demo.post("/notifications/publish", message("bo", "let me in"), **headers)
        assert answer.status == status


async def test_the_room_is_there_with_keys_for_tokens_too() -> None:
    demo = await start(jwt_secret=SecretStr(SECRET))
    try:
        bo, ann = await log_in(demo, "bo"), await join(demo, "ann")
        await say(demo, "ann", ann, "tea?")
        answer = await demo.ask("GET", "/notifications/history?topic=room/tea", headers=ann)
        assert [each["data"]["message"] for each in answer.json()["notifications"]] == ["tea?"]
        assert (await demo.ask("GET", "/notifications/history?topic=room/tea", headers=bo)).status == 403
    finally:
        await demo.aclose()
