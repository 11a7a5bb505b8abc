"""`PATCH /notifications/connections/{id}`: who may change an open stream, and what it says then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hub import HUB, Identity
from hub.connections.client_stream import CloseReason
from tests.spec_decoder import SpecDecoder
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.handler_stream import Source, Stream
from tests.web.server import Server
from tests.web.test_access import USERS, ask, by_header, stream_of
from tests.web.test_rights import last_word, ticket_of, with_ticket


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


@pytest.fixture
async def server(serve: Serve, home: str) -> Server:
    """A hub that knows ann, bob and root by a header; anybody may read news."""

    async def recheck(identity: Identity) -> Identity | None:
        return USERS.get(identity.user)

    setup = {"authenticate": by_header, "recheck": recheck, "routes": None}
    return await serve(setup=setup, log=home, anonymous_subscribe=("news/**",))


def id_of(server: Server) -> str:
    """Return the id of the stream that was opened last."""
    return [stream.id for stream in server.hub.connections][-1]


async def change(server: Server, user: str, body: Any, id: str | None = None, **headers: str) -> Any:
    path = f"/notifications/connections/{id or id_of(server)}"
    return await ask(server, "PATCH", path, user, body, **headers)


async def send(server: Server, topic: str, data: str, **options: Any) -> str:
    return str(await server.hub.notifications.send_notification(data, topic=topic, **options))


async def test_what_is_added_follows_and_what_is_removed_does_not(server: Server) -> None:
    before = await send(server, "orders/2", "before")
    await send(server, "orders/2", "missed")
    client = await stream_of(server, "ann", "orders/1", "news/a")
    answer = await change(server, "ann", {"add": ["orders/2"], "remove": ["news/a"], "after": before})
    assert (answer.status, answer.json()) == (200, {"topics": ["orders/1", "orders/2"], "from": before})
    told = await client.event()
    assert (told.type, told.json()) == ("hub.topics", answer.json())
    assert (await client.event()).data == "missed"
    await send(server, "news/a", "removed")
    last = await send(server, "orders/1", "end")
    ended = await client.event()
    assert (ended.data, ended.id) == ("end", last)
    listed = (await ask(server, "GET", "/notifications/connections", "root")).json()["connections"]
    assert sorted(listed[0]["topics"]) == ["orders/1", "orders/2"]


async def test_a_gap_is_told_with_the_same_position_in_both_places(server: Server) -> None:
    client = await stream_of(server, "ann", "orders/1")
    first = await send(server, "news/x", "other")
    await send(server, "orders/2", "kept")
    answer = await change(server, "ann", {"add": ["orders/2"], "after": "nonsense"})
    assert answer.json()["from"] == first
    events = [await client.event() for _ in range(3)]
    assert [event.type for event in events] == ["hub.topics", "hub.gap", "message"]
    assert events[0].json() == answer.json()
    assert events[1].json()["reason"] == "unknown"


async def test_private_notifications_are_seen_through_what_is_granted_now(server: Server) -> None:
    begin = await send(server, "news/x", "begin")
    client = await stream_of(server, "ann", "news/**")
    await server.hub.notifications.send_notification("theirs", topics=["news/a", "user/bob"], private=True)
    await server.hub.notifications.send_notification("ours", topics=["news/a", "orders/1"], private=True)
    await change(server, "ann", {"add": ["orders/1"], "after": begin})
    await server.hub.notifications.send_notification("live", topics=["news/a", "orders/1"], private=True)
    data = [event.data for event in await client.upto("live")]  # what is removed before it is read does not come
    await change(server, "ann", {"remove": ["orders/1"]})
    await server.hub.notifications.send_notification("hidden", topics=["news/a", "orders/1"], private=True)
    await send(server, "news/a", "end")
    data += [event.data for event in await client.upto("end")]
    assert [each for each in data if not each.startswith("{")] == ["ours", "live", "end"]


# ---- who may ----


@pytest.mark.parametrize(
    ("user", "status", "code"),
    [("ann", 200, None), ("root", 200, None), ("bob", 403, "forbidden"), ("", 401, "unauthorized")],
)
async def test_a_stream_is_changed_by_its_user_and_by_administrators(
    server: Server, user: str, status: int, code: str | None
) -> None:
    await stream_of(server, "ann", "orders/1")
    answer = await change(server, user, {"add": ["orders/2"]}, Accept="text/event-stream")
    assert (answer.status, answer.json().get("code")) == (status, code)
    assert ("orders/2" in server.hub.connections.get(id_of(server)).topics) is (status == 200)  # type: ignore[union-attr]


async def test_the_stream_of_nobody_known_is_changed_by_administrators(server: Server) -> None:
    await stream_of(server, "", "news/a")
    assert (await change(server, "", {"add": ["news/b"]})).status == 401
    assert (await change(server, "ann", {"add": ["news/b"]})).status == 403
    assert (await change(server, "root", {"add": ["news/b"]})).status == 200
    refused = await change(server, "root", {"add": ["news/c", "orders/1"]})
    assert (refused.status, refused.json()["topic"]) == (403, "orders/1")


@pytest.mark.parametrize("user", ["ann", "root"])
async def test_nobody_gives_a_stream_more_than_its_holder_may_read(server: Server, user: str) -> None:
    client = await stream_of(server, "ann", "orders/1")
    answer = await change(server, user, {"add": ["orders/2", "secrets"]})
    assert (answer.status, answer.json()["code"], answer.json()["topic"]) == (403, "forbidden", "secrets")
    assert (await change(server, user, {"add": ["user/ann"]})).status == 200
    assert (await client.event()).json()["topics"] == ["orders/1", "user/ann"]


async def test_the_application_may_allow_less(serve: Serve) -> None:
    asked: list[Any] = []

    async def read(identity: Identity | None, topics: Sequence[str]) -> bool:
        asked.append((identity and identity.user, list(topics)))
        return "orders/secret" not in topics

    server = await serve(setup={"authenticate": by_header, "authorize_subscribe": read, "routes": None})
    await stream_of(server, "ann", "orders/1")
    refused = await change(server, "root", {"add": ["orders/secret"]})
    assert (refused.status, refused.json()["topic"]) == (403, "orders/secret")
    assert asked[-1] == ("ann", ["orders/secret"])
    assert (await change(server, "ann", {"add": ["orders/2"], "remove": ["orders/1"]})).status == 200


async def test_a_stream_that_is_revoked_while_the_application_thinks_is_not_changed(serve: Serve) -> None:
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def read(identity: Identity | None, topics: Sequence[str]) -> bool:
        if "orders/2" in topics:
            thinking.set()
            await go_on.wait()
        return True

    server = await serve(setup={"authenticate": by_header, "authorize_subscribe": read, "routes": None})
    client = await stream_of(server, "ann", "orders/1")
    changing = asyncio.ensure_future(change(server, "ann", {"add": ["orders/2"]}))
    await thinking.wait()
    assert (await ask(server, "DELETE", "/notifications/users/ann/connections", "root")).status == 204
    go_on.set()
    assert (await changing).status == 404
    assert await last_word(client) == "revoked"


async def test_a_stream_with_a_ticket_stays_within_its_topics(server: Server) -> None:
    ticket = await ticket_of(server, "ann", {"topics": ["orders/1", "orders/2"]})
    first = await with_ticket(server, ticket, "orders/1")
    for user in ("ann", "root"):
        refused = await change(server, user, {"add": ["orders/3"]})
        assert (refused.status, refused.json()["topic"]) == (403, "orders/3")
    assert (await change(server, "ann", {"add": ["orders/2"]})).status == 200
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    first.reset()
    await until(lambda: not len(server.hub.connections))
    again = await with_ticket(server, ticket, "orders/1", cookie=cookie)
    assert again.status == 200
    assert [(await change(server, "ann", {"add": [topic]})).status for topic in ("orders/2", "orders/3")] == [
        200,
        403,
    ], "also when it comes back"


async def test_another_sites_page_changes_nothing(server: Server) -> None:
    await stream_of(server, "ann", "orders/1")
    refused = await change(server, "ann", {"add": ["orders/2"]}, **{"Sec-Fetch-Site": "cross-site"})
    assert refused.status == 403
    assert "orders/2" not in server.hub.connections.get(id_of(server)).topics  # type: ignore[union-attr]


async def test_where_nobody_can_be_asked_anybody_may(serve: Serve) -> None:
    server = await serve()
    await stream_of(server, "", "a")
    assert (await change(server, "", {"add": ["room/x", "**"]})).status == 200


async def test_rights_are_asked_about_with_the_present_topics(serve: Serve) -> None:
    rights: dict[str, tuple[str, ...]] = {"ann": ("orders/1", "orders/2")}

    async def login(request: Any) -> Identity:
        return Identity(user="ann", subscribe=rights["ann"])

    asked = asyncio.Event()

    async def recheck(identity: Identity) -> Identity | None:
        asked.set()
        return Identity(user="ann", subscribe=rights["ann"])

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=1)
    client = await stream_of(server, "", "orders/1")
    assert (await change(server, "", {"add": ["orders/2"]})).status == 200
    asked.clear()
    await asked.wait()
    assert len(server.hub.connections) == 1
    rights["ann"] = ("orders/1",)
    assert await last_word(client) == "revoked"


@pytest.mark.parametrize("asked_again", [True, False])
async def test_a_stream_is_widened_by_the_rights_of_today(serve: Serve, asked_again: bool) -> None:
    rights: dict[str, tuple[str, ...]] = {"ann": ("orders/1", "orders/2")}

    async def login(request: Any) -> Identity:
        return Identity(user="ann", subscribe=rights["ann"])

    async def recheck(identity: Identity) -> Identity | None:
        return Identity(user="ann", subscribe=rights["ann"])

    setup = {"authenticate": login, "routes": None} | ({"recheck": recheck} if asked_again else {})
    server = await serve(setup=setup)
    await server.hub.notifications.send_notification("secret", topic="orders/2", private=True)
    client = await stream_of(server, "", "orders/1")
    rights["ann"] = ("orders/1", "orders/3")
    refused = await change(server, "", {"add": ["orders/2"], "after": "earliest"})
    assert (refused.status, refused.json()["topic"]) == (403, "orders/2")
    if asked_again:
        assert (await change(server, "", {"add": ["orders/3"]})).status == 200
    await send(server, "orders/1", "end")
    assert "secret" not in [event.data for event in await client.upto("end")]


async def test_a_stream_whose_login_has_ended_is_not_widened(serve: Serve) -> None:
    async def recheck(identity: Identity) -> Identity | None:
        return None

    server = await serve(setup={"authenticate": by_header, "recheck": recheck, "routes": None})
    await stream_of(server, "ann", "orders/1")
    assert (await change(server, "root", {"add": ["orders/2"]})).status == 403


# ---- what is refused ----


@pytest.mark.parametrize("home", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({"ad": ["orders/2"]}, "ad"),
        ({"add": "orders/2"}, "add"),
        ({"add": [1]}, "add"),
        ({"add": [f"orders/{number}" for number in range(129)]}, "add"),
        ({"remove": [f"orders/{number}" for number in range(129)]}, "remove"),
        ({"add": ["a//b"]}, "add"),
        ({"remove": {"orders/1": 1}}, "remove"),
        ({"remove": ["orders/1"]}, "remove"),
        ({"add": ["orders/2"], "remove": ["orders/2"]}, "remove"),
        ({"add": ["orders/2"], "after": 7}, "after"),
        ({"add": [f"orders/{number}" for number in range(2, 130)]}, "add"),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(server: Server, body: Any, field: str) -> None:
    await stream_of(server, "ann", "orders/1")
    answer = await change(server, "ann", body)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_what_is_no_open_subscription_is_said(server: Server) -> None:
    assert (await change(server, "ann", {}, "c_0")).status == 404
    assert (await change(server, "", {}, "c_0")).status == 401
    client = await stream_of(server, "ann", "orders/1")
    unchanged = await change(server, "ann", {"add": ["orders/1"], "remove": ["orders/2"]})
    assert (unchanged.status, unchanged.json()["topics"]) == (200, ["orders/1"])
    id = id_of(server)
    server.hub.connections.get(id).end(CloseReason.SHUTDOWN, 1_000)  # type: ignore[union-attr]
    assert (await change(server, "ann", {}, id)).status == 404
    assert await last_word(client) == "shutdown"


async def test_a_stream_of_a_handler_has_no_topics(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable)
    await streaming.open()
    server = streaming.server
    answer = await change(server, "", {"add": ["a"]})
    assert (answer.status, answer.json()["detail"]) == (
        409,
        "only subscriptions have topics: this stream is a handler",
    )


async def test_changes_at_the_same_time_are_made_one_after_the_other(server: Server) -> None:
    client = await stream_of(server, "ann", "orders/0")
    answers = await asyncio.gather(*(change(server, "ann", {"add": [f"orders/{number}"]}) for number in range(1, 9)))
    assert {answer.status for answer in answers} == {200}
    told = [(await client.event()).json()["topics"] for _ in range(8)]
    assert sorted(told, key=len) == told == sorted((answer.json()["topics"] for answer in answers), key=len)
    assert [len(topics) for topics in told] == list(range(2, 10))


async def test_the_application_can_change_a_stream_too(server: Server) -> None:
    client = await stream_of(server, "ann", "orders/1")
    changed = await server.app[HUB].change_topics(id_of(server), add=["orders/2"])
    assert (await client.event()).json() == {"topics": list(changed.topics), "from": str(changed.position)}


# ---- cut anywhere ----


@pytest.mark.slow
@pytest.mark.both_loops
async def test_a_stream_that_is_cut_after_any_byte_loses_nothing(server: Server) -> None:
    """A client that resumes as `EventSource` does, and adds its topic again as the guide says."""
    begin = await send(server, "orders/1", "begin")
    for number in range(4):
        await send(server, f"orders/{number % 2 + 1}", f"old {number}")
    whole = await read_all(server, begin, None)
    for cut in range(0, len(whole), 7):
        await read_all(server, begin, cut)


async def read_all(server: Server, begin: str, cut: int | None) -> bytes:
    """Read a stream whose topics change up to its end, or cut it after so many bytes and come back."""
    expected = {f"old {number}" for number in range(4)}
    got: list[str] = []
    client = await stream_of(server, "ann", "orders/1", lastEventId=begin)
    await change(server, "ann", {"add": ["orders/2"], "after": begin})
    while set(got) != expected:
        event = await client.event()
        got += [event.data] if event.type == "message" else []
    assert len(got) == len(expected)
    received = bytes(client.received)
    client.reset()
    await until(lambda: not len(server.hub.connections))
    if cut is None:
        return received
    cursor, since, seen = replay(received[:cut], begin)
    client = await stream_of(server, "ann", "orders/1", lastEventId=cursor)
    await change(server, "ann", {"add": ["orders/2"], "after": since})
    while not expected <= seen:
        event = await client.event()
        seen |= {event.data} if event.type == "message" else set()
    client.reset()
    await until(lambda: not len(server.hub.connections))
    return received


def replay(received: bytes, begin: str) -> tuple[str, str, set[str]]:
    """Return what the script of the guide knows after these bytes: its cursor, `since`, and what it has seen."""
    decoder = SpecDecoder()
    since, held, waiting, seen = begin, None, True, set()
    for event in decoder.feed(received):
        if event.type == "hub.topics":
            waiting, held = False, event.id
        elif event.type == "message":
            if not waiting and event.id != held:
                since = event.id
            seen.add(event.data)
    return decoder.last_event_id or begin, since, seen
