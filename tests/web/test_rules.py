"""Who may read and who may send: tables of every rule, asked on every way in, on both logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import web

from hub import Identity
from hub.web.app import HUB
from hub.web.endpoint import Endpoint
from hub.web.subscribe import subscribe_user
from tests.web.client import Client
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.web.test_access import ask, said_by

USERS = {
    each.user: each
    for each in (
        Identity(user="ann", subscribe=("orders/**", "room/lobby"), publish=("orders/*",)),
        Identity(user="bob", subscribe=("**",), publish=("**",)),
        Identity(user="*"),
        Identity(user="a/b"),
        Identity(user="root", admin=True),
    )
}
NOBODY = ""


async def by_header(request: web.Request) -> Identity | None:
    return USERS.get(request.headers.get("X-User", ""))


async def user_stream(request: web.Request) -> web.StreamResponse:
    """Answer on `/sse/{userId}`, as the demo does."""
    return await Endpoint(request.app[HUB], {"GET": subscribe_user})(request)


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


@pytest.fixture
async def server(serve: Serve, home: str) -> Server:
    """A hub with all there is. Anybody may read `news/**` and write to the guestbook."""
    app = web.Application()
    app.router.add_get("/sse/{userId}", user_stream)
    return await serve(
        app=app,
        setup={"authenticate": by_header, "routes": "all"},
        log=home,
        ai_provider="simulated",
        events_api=True,
        anonymous_subscribe=("news/**",),
        anonymous_publish=("guestbook",),
    )


def verdict(status: int, body: bytes) -> str:
    """Return what an answer says: the status, and what a refusal names."""
    if status < 400:
        return str(status)
    problem = json.loads(body)
    assert problem["status"] == status
    expected = {401: "unauthorized", 403: "forbidden"}
    assert problem.get("code") == expected.get(status)
    return f"{status} {problem['topic']}" if "topic" in problem else str(status)


async def begun(client: Client) -> str:
    """Return what the answer to *client* says: a stream has begun, or is refused."""
    status = await client.head()
    if status == 200 and client.headers["Content-Type"] == "text/event-stream":
        event = await client.event()
        if event.type == "hub.close":
            facts = event.json()
            return f"closed {facts['reason']} {facts.get('topic', '')}".strip()
        assert event.type == "hub.open"
        return "200"
    return verdict(status, await client.body())


# ---- the ways to read ----

LATER = {"earliest": "earliest", "latest": "latest"}


async def open_stream(server: Server, way: str, user: str, topics: list[str], cursor: str = "") -> Client:
    """Ask for a stream of *topics* in the *way*; `hub.open` is not read yet.

    Args:
        server: the hub.
        way: words: `GET`, `POST`, `path` or `ticket`; then from where: `live`, `earliest`, `latest`, `cursor`.
        user: who asks.
        topics: what for; one topic of a user where the way is `path`.
        cursor: the id, for the way `cursor`.
    """
    how, _, since = way.partition(" ")
    after = {"": "", "live": "", "cursor": cursor}.get(since, since)
    headers = said_by(user)
    query = [("topic", topic) for topic in topics]
    client = await server.client()
    if how == "POST":
        body = {"topics": topics, **({"lastEventId": after} if after else {})}
        headers["Content-Type"] = "application/json"
        await client.request("POST", "/notifications/subscribe", headers=headers, body=json.dumps(body).encode())
        return client
    if how == "ticket":
        answer = await ask(server, "POST", "/notifications/tickets", user)
        assert answer.status == 201
        query.append(("ticket", answer.json()["ticket"]))
        headers = {}
    if how == "GET" and after:
        headers["Last-Event-ID"] = after
    elif after:
        query.append(("lastEventId", after))
    path = "/notifications/subscribe"
    if how == "path":
        path, query = f"/sse/{topics[0].removeprefix('user/')}", query[1:]
    await client.request("GET", f"{path}?{urlencode(query)}", headers=headers)
    return client


# ---- what is asked ----

# who, what is asked for: what the answer is
ASKED = [
    (NOBODY, ["news"], "200"),
    (NOBODY, ["news/*"], "200"),
    (NOBODY, ["news/**/x", "news/1"], "200"),
    (NOBODY, ["orders/1"], "401"),
    (NOBODY, ["news", "orders/1"], "401"),
    (NOBODY, ["**"], "401"),
    (NOBODY, ["*/x"], "401"),
    (NOBODY, ["user/ann"], "401"),
    (NOBODY, [], "401"),
    ("ann", ["orders/1"], "200"),
    ("ann", ["orders/*", "orders/**"], "200"),
    ("ann", ["orders"], "200"),
    ("ann", ["news/today", "orders/1"], "200"),
    ("ann", ["user/ann"], "200"),
    ("ann", ["user/ann/x"], "403 user/ann/x"),
    ("ann", ["user/bob"], "403 user/bob"),
    ("ann", ["user/*"], "403 user/*"),
    ("ann", ["room/lobby"], "200"),
    ("ann", ["room/*"], "403 room/*"),
    ("ann", ["room/lobby/x"], "403 room/lobby/x"),
    ("ann", ["orders/1", "secrets", "more"], "403 secrets"),
    ("ann", ["**"], "403 **"),
    ("ann", ["*/1"], "403 */1"),
    ("ann", [], "403 notifications"),
    ("bob", ["**"], "200"),
    ("bob", ["*/x", "**/y/*", "secrets"], "200"),
    ("bob", [], "200"),
    ("bob", ["user/ann"], "403 user/ann"),
    ("bob", ["user/**"], "403 user/**"),
    ("bob", ["room/lobby"], "403 room/lobby"),
    ("bob", ["ai/1"], "403 ai/1"),
    ("*", ["user/%2A"], "200"),
    ("*", ["user/*"], "403 user/*"),
    ("*", ["user/ann"], "403 user/ann"),
    ("a/b", ["user/a%2Fb"], "200"),
    ("a/b", ["user/a/b"], "403 user/a/b"),
    ("a/b", ["user/a"], "403 user/a"),
    ("root", ["orders/1"], "403 orders/1"),
    ("root", ["**"], "403 **"),
    ("root", ["user/root", "news"], "200"),
    ("somebody else", ["orders/1"], "401"),
]
WAYS = ["GET live", "GET cursor", "GET earliest", "GET latest", "POST live", "POST cursor", "POST earliest"]


@pytest.mark.parametrize("way", [*WAYS, "history", "a page of the history", "EventSource", "ticket", "mint"])
async def test_a_reader_reads_what_its_grants_cover(server: Server, way: str) -> None:
    cursor = str(await server.hub.notifications.send_notification("first", topic="news/1"))
    said = {}
    for user, topics, _ in ASKED:
        said[user, *topics] = await answer_to(server, way, user, topics, cursor)
    expected = {(user, *topics): answer for user, topics, answer in ASKED}
    if way == "EventSource":
        words = {"200": "200", "401": "closed unauthorized"}
        expected = {
            asked: words.get(answer) or answer.replace("403", "closed forbidden") for asked, answer in expected.items()
        }
    elif way == "mint":
        # A ticket is for somebody who is known; nothing asked is whatever may be read.
        known = {who: answer for who, answer in expected.items() if who[0] in USERS and who[1:]}
        expected = {who: known.get(who, "201" if who[0] in USERS else "401").replace("200", "201") for who in expected}
    elif way == "ticket":
        expected = {who: answer if who[0] in USERS else "401" for who, answer in expected.items()}
    assert said == expected


async def answer_to(server: Server, way: str, user: str, topics: list[str], cursor: str) -> str:
    query = urlencode([("topic", topic) for topic in topics])
    if way == "mint":
        body = {"topics": topics} if topics else None
        answer = await ask(server, "POST", "/notifications/tickets", user, body)
        return verdict(answer.status, answer.body)
    if "history" in way:
        after = f"&after={cursor}&limit=1" if "page" in way else ""
        answer = await ask(server, "GET", f"/notifications/history?{query}{after}", user)
        return verdict(answer.status, answer.body)
    if way == "EventSource":
        client = await server.client()
        headers = said_by(user, Accept="text/event-stream")
        await client.request("GET", f"/notifications/subscribe?{query}", headers=headers)
    elif way == "ticket" and user not in USERS:
        answer = await ask(server, "POST", "/notifications/tickets", user)
        return verdict(answer.status, answer.body)
    else:
        client = await open_stream(server, way, user, topics, cursor)
    said = await begun(client)
    client.reset()
    return said


# who, the last segment of /sse/…: what the answer is
USER_STREAMS = [
    (NOBODY, "ann", "401"),
    ("ann", "ann", "200"),
    ("ann", "bob", "403 user/bob"),
    ("ann", "*", "403 user/%2A"),
    ("ann", "**", "403 user/%2A%2A"),
    ("ann", "ann/x", "403 user/ann%2Fx"),
    ("bob", "ann", "403 user/ann"),
    ("*", "*", "200"),
    ("*", "ann", "403 user/ann"),
    ("a/b", "a/b", "200"),
    ("a/b", "a", "403 user/a"),
    ("root", "ann", "403 user/ann"),
]


@pytest.mark.parametrize("after", ["", "earliest", "latest"])
async def test_the_stream_of_a_user_is_for_that_user(server: Server, after: str) -> None:
    said = {}
    for user, id, _ in USER_STREAMS:
        client = await server.client()
        path = f"/sse/{quote(id, safe='')}?lastEventId={after}"
        await client.request("GET", path, headers=said_by(user))
        said[user, id] = await begun(client)
        client.reset()
    assert said == {(user, id): answer for user, id, answer in USER_STREAMS}


# ---- what is seen ----

PUBLIC, PRIVATE = False, True
SENT: dict[str, tuple[bool, list[str]]] = {
    "news":            (PUBLIC, ["news/1"]),
    "news, private":   (PRIVATE, ["news/2"]),
    "orders":          (PUBLIC, ["orders/1"]),
    "orders, private": (PRIVATE, ["orders/2"]),
    "both":            (PUBLIC, ["news/3", "orders/3"]),
    "both, private":   (PRIVATE, ["news/4", "orders/4"]),
    "ann":             (PRIVATE, ["user/ann"]),
    "ann, below":      (PUBLIC, ["user/ann/x"]),
    "bob, told":       (PUBLIC, ["news/5", "user/bob"]),
    "star":            (PRIVATE, ["user/%2A"]),
    "lobby":           (PRIVATE, ["room/lobby"]),
    "hall":            (PUBLIC, ["room/hall"]),
    "ai":              (PUBLIC, ["ai/1"]),
    "news, ann's":     (PRIVATE, ["news/6", "user/ann/y"]),
}  # fmt: skip
END = ["news/end", "orders/end", *(f"user/{name}" for name in ("ann", "bob", "%2A", "root")), "room/lobby"]

# who, what is asked for: what is seen
SEEN = [
    (NOBODY, ["news/**"], ["news", "both", "bob, told"]),
    (NOBODY, ["news/2", "news/4", "news/end"], []),
    ("ann", ["news/**"], ["news", "both", "bob, told"]),
    ("ann", ["orders/*"], ["orders", "orders, private", "both", "both, private"]),
    ("ann", ["news/**", "orders/*"], ["news", "orders", "orders, private", "both", "both, private", "bob, told"]),
    ("ann", ["news/**", "orders/4", "orders/end"], ["news", "both", "both, private", "bob, told"]),
    ("ann", ["news/**", "user/ann"], ["news", "both", "ann", "bob, told"]),
    ("ann", ["user/ann"], ["ann"]),
    ("ann", ["room/lobby"], ["lobby"]),
    (
        "bob",
        ["**"],
        ["news", "news, private", "orders", "orders, private", "both", "both, private", "bob, told", "news, ann's"],
    ),
    ("bob", ["news/*"], ["news", "news, private", "both", "both, private", "bob, told", "news, ann's"]),
    ("bob", ["user/bob"], ["bob, told"]),
    ("bob", ["*/6", "user/bob"], ["bob, told", "news, ann's"]),
    ("*", ["user/%2A"], ["star"]),
    ("root", ["news/**", "user/root"], ["news", "both", "bob, told"]),
]


async def send(server: Server) -> None:
    for name, (private, topics) in SENT.items():
        await server.hub.notifications.send_notification(name, topics=topics, private=private)


@pytest.mark.parametrize(
    "way", [*WAYS, "ticket live", "ticket cursor", "ticket earliest", "ticket latest", "path live", "path earliest"]
)
async def test_a_reader_sees_what_it_asked_for_and_may_read(server: Server, way: str) -> None:
    cursor = str(await server.hub.notifications.send_notification("before", topics=END))
    if "live" not in way:
        await send(server)
    readers: list[tuple[str, list[str], Client]] = []
    for user, topics, _ in SEEN:
        if fits(way, user, topics):
            client = await open_stream(server, way, user, topics, cursor)
            assert await begun(client) == "200"
            readers.append((user, topics, client))
    if "live" in way:
        await send(server)
    await server.hub.notifications.send_notification("end", topics=END)
    seen = {}
    for user, topics, client in readers:
        *found, _ = [event.data for event in await client.upto("end")]
        seen[user, *topics] = [name for name in found if name != "before"]
    expected = {(user, *topics): names for user, topics, names in SEEN if fits(way, user, topics)}
    assert seen == expected
    assert len(seen) > 1


def fits(way: str, user: str, topics: list[str]) -> bool:
    """Tell whether these topics can be asked for in the *way*."""
    if way.startswith("ticket"):
        return user != NOBODY
    return not way.startswith("path") or (len(topics) == 1 and topics[0].startswith("user/"))


@pytest.mark.parametrize("limit", [1, 1_000])
async def test_the_history_has_what_a_reader_may_read(server: Server, limit: int) -> None:
    await send(server)
    seen: dict[tuple[str, ...], list[str]] = {}
    shown: set[tuple[str, ...]] = set()
    for user, topics, _ in SEEN:
        found: list[str] = []
        after = "earliest"
        while after is not None:
            query = urlencode([*(("topic", topic) for topic in topics), ("after", after), ("limit", limit)])
            page = (await ask(server, "GET", f"/notifications/history?{query}", user)).json()
            found += [each["data"] for each in page["notifications"]]
            shown |= {(user, each["data"], *each["topics"]) for each in page["notifications"]}
            after = page["next"]
        seen[user, *topics] = found
    assert seen == {(user, *topics): names for user, topics, names in SEEN}
    for row in (
        (NOBODY, "bob, told", "news/5"),
        (NOBODY, "both", "news/3"),
        ("ann", "both", "news/3", "orders/3"),
        ("ann", "both, private", "orders/4"),
        ("bob", "both, private", "news/4", "orders/4"),
        ("bob", "bob, told", "news/5", "user/bob"),
        ("bob", "news, ann's", "news/6"),
        ("root", "bob, told", "news/5"),
    ):
        assert row in shown
    assert len(shown) == len({row[:2] for row in shown}), "the same topics whatever was asked for"


async def test_the_envelope_names_a_topic_that_was_asked_for(server: Server) -> None:
    await send(server)
    for user, topics, named in (
        (NOBODY, ["news/5"], "news/5"),
        ("bob", ["user/bob"], "user/bob"),
        ("ann", ["orders/4"], "orders/4"),
    ):
        client = await server.client()
        query = urlencode([*(("topic", topic) for topic in topics), ("envelope", "1"), ("lastEventId", "earliest")])
        await client.request("GET", f"/notifications/subscribe?{query}", headers=said_by(user))
        assert await begun(client) == "200"
        assert (await client.event()).json()["topic"] == named
        client.reset()


# ---- what is sent ----

# who, the topics, whether it is private: what the answer is
SENDS = [
    (NOBODY, ["guestbook"], PUBLIC, "201"),
    (NOBODY, ["guestbook"], PRIVATE, "401"),
    (NOBODY, ["orders/1"], PUBLIC, "401"),
    (NOBODY, ["guestbook", "orders/1"], PUBLIC, "401"),
    (NOBODY, [], PUBLIC, "401"),
    ("ann", ["orders/1"], PUBLIC, "201"),
    ("ann", ["orders/1"], PRIVATE, "201"),
    ("ann", ["guestbook"], PUBLIC, "201"),
    ("ann", ["guestbook"], PRIVATE, "403 guestbook"),
    ("ann", ["orders/1", "guestbook"], PUBLIC, "201"),
    ("ann", ["orders/1", "guestbook"], PRIVATE, "403 guestbook"),
    ("ann", ["orders/1", "secrets"], PUBLIC, "403 secrets"),
    ("ann", ["orders"], PUBLIC, "403 orders"),
    ("ann", ["orders/1/2"], PUBLIC, "403 orders/1/2"),
    ("ann", ["news/1"], PUBLIC, "403 news/1"),
    ("ann", ["room/lobby"], PUBLIC, "403 room/lobby"),
    ("ann", ["user/ann"], PUBLIC, "403 user/ann"),
    ("ann", ["user/bob"], PRIVATE, "403 user/bob"),
    ("ann", [], PUBLIC, "403 notifications"),
    ("bob", ["anything", "news/1"], PRIVATE, "201"),
    ("bob", [], PUBLIC, "201"),
    ("bob", ["user/bob"], PUBLIC, "403 user/bob"),
    ("bob", ["room/lobby"], PUBLIC, "403 room/lobby"),
    ("bob", ["ai/1"], PUBLIC, "403 ai/1"),
    ("root", ["orders/1"], PUBLIC, "403 orders/1"),
    ("root", ["guestbook"], PUBLIC, "201"),
    ("somebody else", ["orders/1"], PUBLIC, "401"),
]


@pytest.mark.parametrize("way", ["one", "the first of a list", "the last of a list", "one with a key"])
async def test_a_publisher_needs_a_grant_on_every_topic(server: Server, way: str) -> None:
    watcher = await open_stream(server, "GET", "bob", ["**"])
    assert await begun(watcher) == "200"
    said, sent = {}, []
    for user, topics, private, answer in SENDS:
        name = f"{user} {topics} {private}"
        draft: dict[str, Any] = {"data": name, "private": private, **({"topics": topics} if topics else {})}
        other = {"data": "beside it", "topic": "guestbook"}
        if way == "one with a key":
            draft["key"] = "k"
        body = {"the first of a list": [draft, other], "the last of a list": [other, draft]}.get(way, draft)
        result = await ask(server, "POST", "/notifications/publish", user, body)
        said[user, *topics, private] = verdict(result.status, result.body).replace("200", "201")
        if answer == "201" and (way != "one with a key" or result.status == 201):
            sent.append(name)
    assert said == {(user, *topics, private): answer for user, topics, private, answer in SENDS}
    await server.hub.notifications.send_notification("end", topic="x")
    *seen, _ = [event.data for event in await watcher.upto("end")]
    assert [name for name in seen if name != "beside it"] == sent, "what is refused is not sent"
    beside = len([name for name in seen if name == "beside it"])
    assert beside == (len(sent) if "list" in way else 0), "nothing of a list is sent"


# ---- for administrators ----

JSON = {"Content-Type": "application/json"}
FOR_ADMINISTRATORS: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/notifications/stats", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/notifications/history", {"Accept": "application/x-ndjson"}, 200),
    ("GET", "/notifications/history?topic=news/1", {"Accept": "application/json, application/x-ndjson"}, 200),
    ("POST", "/events/order.created", JSON, 202),
    ("GET", "/notifications/connections", {}, 200),
    ("DELETE", "/notifications/connections/none", {}, 404),
    ("DELETE", "/notifications/users/ada/connections", {}, 204),
    ("DELETE", "/notifications/tokens/one", {}, 204),
]


async def test_of_nobody_known_nothing_is_read_where_only_known_ones_may(serve: Serve) -> None:
    server = await serve(setup={"authenticate": by_header, "routes": "all"})
    for path in ("publish", "subscribe"):
        answer = await server.ask(
            "POST", f"/notifications/{path}", body=b"no JSON", headers={"Content-Type": "application/json"}
        )
        assert answer.status == 401, "or each costs what it takes to read a megabyte, and counts as no refusal"


async def test_what_is_for_administrators_is_for_nobody_else(server: Server) -> None:
    statuses = {}
    for method, path, headers, _ in FOR_ADMINISTRATORS:
        for user in (NOBODY, "ann", "bob", "*", "root"):
            body = b"{}" if method == "POST" else None
            answer = await server.ask(method, path, headers=said_by(user, **headers), body=body)
            statuses[method, path, user] = answer.status
    expected = {}
    for method, path, _, status in FOR_ADMINISTRATORS:
        others = {"ann": 403, "bob": 403, "*": 403}
        for user, one in {NOBODY: 401, **others, "root": status}.items():
            expected[method, path, user] = one
    assert statuses == expected


async def test_the_stream_of_another_is_ended_by_administrators_only(server: Server) -> None:
    client = await open_stream(server, "GET", "ann", ["orders/1"])
    assert await begun(client) == "200"
    path = f"/notifications/connections/{server.subscriptions[0].id}"
    assert [(await ask(server, "DELETE", path, user)).status for user in (NOBODY, "bob", "ann")] == [401, 403, 403]
    assert (await ask(server, "DELETE", path, "root")).status == 204
    assert (await client.event()).json() == {"reason": "revoked"}


async def test_a_user_that_is_spelled_with_wildcards_is_one_user(server: Server) -> None:
    clients = {}
    for user in ("ann", "*", "a/b"):
        topics = ["user/" + quote(user, safe="").replace("*", "%2A")]
        clients[user] = await open_stream(server, "GET", user, topics)
        assert await begun(clients[user]) == "200"
    for user in ("*", "a/b"):
        path = f"/notifications/users/{quote(user, safe='').replace('*', '%2A')}/connections"
        assert (await ask(server, "DELETE", path, "root")).status == 204
        assert (await clients[user].event()).json() == {"reason": "revoked"}
    await server.hub.notifications.send_notification("still here", topic="user/ann")
    assert (await clients["ann"].event()).data == "still here"


# ---- answers of an AI ----

AI = "/ai/chat/stream"


async def test_any_user_may_begin_an_answer(server: Server) -> None:
    ways: list[tuple[str, str, Any]] = [
        ("POST", f"{AI}/init", {"message": "hi"}),
        ("POST", AI, {"message": "hi"}),
        ("GET", f"{AI}?message=hi", None),
    ]
    for method, path, body in ways:
        for user in (NOBODY, "somebody else", "ann", "root"):
            client = await server.client()
            headers = said_by(user, **(JSON if body else {}))
            data = json.dumps(body).encode() if body else None
            await client.request(method, path, headers=headers, body=data)
            status = await client.head()
            assert status == (401 if user not in USERS else 201 if path.endswith("init") else 200)
            client.reset()


async def test_an_answer_belongs_to_whoever_began_it(server: Server) -> None:
    begun = await ask(server, "POST", f"{AI}/init", "ann", {"message": "hi"})
    id = begun.json()["sessionId"]
    ways = [
        ("GET", f"{AI}/{id}", {"Accept": "application/json"}),
        ("GET", f"{AI}/{id}", {}),
        ("GET", f"{AI}/{id}?format=openai", {}),
        ("GET", f"{AI}/{id}", {"Last-Event-ID": f"{id}.1"}),
        ("POST", f"{AI}/{id}/cancel", {}),
        ("DELETE", f"{AI}/{id}/cancel", {}),
        ("DELETE", f"{AI}/{id}", {}),
    ]
    for user, refused in ((NOBODY, 401), ("bob", 404), ("root", 404), ("*", 404), ("ann", 200)):
        for method, path, headers in ways:
            answer = await server.ask(method, path, headers=said_by(user, **headers))
            assert (user, method, path, answer.status) == (user, method, path, refused)


async def test_the_answer_of_another_is_not_resumed_by_its_id(server: Server) -> None:
    id = (await ask(server, "POST", f"{AI}/init", "ann", {"message": "hi"})).json()["sessionId"]
    texts = {}
    for user in ("ann", "bob", "root"):
        client = await server.client()
        headers = said_by(user, **{"Last-Event-ID": f"{id}.0"})
        await client.request("GET", f"{AI}?format=openai", headers=headers)
        assert await client.head() == 200
        deltas = [event.json() for event in await client.rest() if event.data != "[DONE]"]
        texts[user] = "".join(
            choice["delta"].get("content", "") for each in deltas for choice in each.get("choices", ())
        )
    whole = (await ask(server, "GET", f"{AI}/{id}", "ann", Accept="application/json")).json()["text"]
    assert len(whole) > 20
    assert texts == {"ann": whole, "bob": "", "root": ""}
