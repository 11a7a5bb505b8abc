"""Who may read over which wire: tokens, cookies, pages of other sites, tickets, the end of rights, limits in sum."""

from __future__ import annotations

from typing import Any

import pytest

from hub import Identity
from tests.web.client import StreamEnded, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.wires.test_websocket import SECRET, token
from tests.wires.test_wires import ANN, GUARDED, each_wire, news, subscribed, waiting
from tests.wires.wire import READERS, UPGRADE, LinesReader, PollReader, Reader, SocketReader, SSEReader

Headers = dict[str, str]
EVIL = {"Origin": "https://evil.example"}


def bearer(*args: Any, **claims: Any) -> Headers:
    return {"Authorization": f"Bearer {token(*args, **claims)}"}


def cookie(*args: Any, **claims: Any) -> Headers:
    return {"Cookie": f"hub_token={token(*args, **claims)}"}


@pytest.fixture
async def guarded(serve: Serve) -> Server:
    """A hub that knows users by tokens only, and sweeps often."""
    return await serve(jwt_secret=SECRET, setup={"routes": None}, heartbeat=0.3)


async def refusal(wire: type[Reader], server: Server, topic: str, headers: Headers, **query: str) -> tuple[int, str]:
    """Return the status and the code with which a reader of *topic* is refused, by its request or its `subscribe`."""
    reader = wire(server, topic, headers=headers)
    reader.query = query
    if isinstance(reader, SocketReader):
        if await reader._request("/notifications/ws", [], UPGRADE) == 101:
            answer = await reader.answer({"op": "subscribe", "topics": [topic]})
            await reader.aclose()
            return answer["status"], answer["code"]
    else:
        path = "poll" if wire is PollReader else "subscribe"
        accepted = {"Accept": "application/x-ndjson"} if wire is LinesReader else {}
        await reader._request(f"/notifications/{path}", reader._asked, accepted)
    said = await reader.client.json()
    return reader.client.status, said.get("code", said["type"].rpartition(":")[2])


@each_wire
async def test_whoever_may_not_read_is_told_why(wire: type[Reader], guarded: Server) -> None:
    for headers, refused in (
        ({}, (401, "unauthorized")),
        ({"Authorization": "Bearer nonsense"}, (401, "token_invalid")),
        ({"Cookie": "hub_token=nonsense"}, (401, "token_invalid")),
        (bearer(seconds=-60), (401, "token_expired")),
        (bearer(subscribe=["news"]), (403, "forbidden")),
        ({**cookie(), **EVIL}, (403, "cross-site")),
        ({**cookie(), **EVIL, "Sec-Fetch-Site": "cross-site"}, (403, "cross-site")),
        ({**cookie(), "Origin": "null"}, (403, "cross-site")),
    ):
        assert await refusal(wire, guarded, "orders/1", headers) == refused, headers
    assert await refusal(wire, guarded, "orders/1", {}, token=token()) == (401, "unauthorized")
    await guarded.deserted()


@each_wire
async def test_a_cookie_counts_for_programs_and_for_pages_of_the_hub(wire: type[Reader], guarded: Server) -> None:
    own = f"127.0.0.1:{guarded.address[1]}"
    for more in ({}, {"Host": own, "Origin": f"http://{own}"}, {"Sec-Fetch-Site": "same-origin"}):
        reader = await waiting(wire, guarded, "orders/1", headers={**cookie("eve"), **more})
        guarded.send("seen", topic="orders/1")
        assert (await news(reader))["data"] == "seen"
        await reader.aclose()
        await guarded.deserted()


@pytest.mark.parametrize("wire", [SSEReader, LinesReader], ids=["sse", "ndjson"])
async def test_a_ticket_opens_what_subscribe_opens(wire: type[Reader], guarded: Server) -> None:
    minted = await guarded.ask("POST", "/notifications/tickets", headers=bearer())
    reader = wire(guarded, "orders/1")
    reader.query["ticket"] = minted.json()["ticket"]
    await reader.open()
    await subscribed(guarded, 1)
    guarded.send("seen", topic="orders/1")
    assert (await news(reader))["data"] == "seen"
    assert await refusal(wire, guarded, "orders/1", {}, **reader.query) == (401, "token_invalid")


@pytest.mark.parametrize("wire", [SocketReader, PollReader], ids=["websocket", "poll"])
async def test_a_ticket_is_for_subscribe_and_stays_unused_elsewhere(wire: type[Reader], guarded: Server) -> None:
    """A WebSocket has its first message, and a client that polls has headers."""
    minted = (await guarded.ask("POST", "/notifications/tickets", headers=bearer())).json()["ticket"]
    assert await refusal(wire, guarded, "orders/1", {}, ticket=minted) == (400, "invalid-input")
    await guarded.subscribe("orders/1", query={"ticket": minted})


# ---- the end of rights ----


@each_wire
async def test_it_ends_with_the_token(wire: type[Reader], guarded: Server) -> None:
    reader = wire(guarded, "orders/1", cursor=str(guarded.hub.fanout.newest), headers=bearer(seconds=3))
    await reader.open()
    assert (await news(reader, {"hub.close"}))["reason"] == "token_expired"
    with pytest.raises(StreamEnded):
        await reader.message()


@each_wire
async def test_administrators_end_it(wire: type[Reader], guarded: Server) -> None:
    """In three ways; after that of the connection the client may come back."""
    root = bearer("root", admin=True)
    for way, path in (("c", "connections/{}"), ("t", "tokens/{}"), ("u", "users/eve/connections")):
        headers = bearer("eve", jti=way)
        reader = await waiting(wire, guarded, "orders/1", headers=headers)
        (stream,) = guarded.subscriptions
        assert stream.holder.identity is not None
        name = stream.id if way == "c" else way
        answer = await guarded.ask("DELETE", f"/notifications/{path.format(name)}", headers=root)
        assert answer.status == 204
        assert (await news(reader))["reason"] == "revoked"
        with pytest.raises(StreamEnded):
            await reader.message()
        await reader.aclose()
        await guarded.deserted()
        if way != "c":
            assert await refusal(wire, guarded, "orders/1", headers) == (401, "revoked")


@each_wire
@pytest.mark.parametrize("answer", ["nobody", "less"])
async def test_it_ends_when_the_application_takes_rights_back(wire: type[Reader], serve: Serve, answer: str) -> None:
    known: list[Identity | None] = [ANN]

    async def recheck(identity: Identity) -> Identity | None:
        return known[0]

    server = await serve(setup={**GUARDED, "recheck": recheck}, recheck=1)
    reader = await waiting(wire, server, "orders/1", headers={"X-User": "ann"})
    known[0] = None if answer == "nobody" else Identity(user="ann", subscribe=("orders/2",))
    assert (await news(reader))["reason"] == "revoked"


# ---- limits in sum ----


@each_wire
@pytest.mark.parametrize("limit", ["max_per_user", "max_per_address", "connect_rate"])
async def test_all_wires_count_together(wire: type[Reader], serve: Serve, limit: str) -> None:
    bound: dict[str, Any] = {limit: 0.8 if limit == "connect_rate" else 4}  # five seconds' worth at once: four
    server = await serve(setup=GUARDED, trusted_proxies=["127.0.0.1"], **bound)

    def headers(number: int) -> Headers:
        address = "192.0.2.7" if limit != "max_per_user" else f"192.0.2.{number}"
        return {"X-User": "ann", "X-Forwarded-For": address}

    first = str(server.hub.fanout.newest)
    for number, each in enumerate(READERS):
        await each(server, "orders/1", cursor=first, headers=headers(number)).open()
        await until(lambda number=number: len(server.hub.connections) > number)  # type: ignore[misc]
    reader = wire(server, "orders/1", cursor=first, headers=headers(9))
    await reader.open()
    told = await news(reader)
    assert (told["reason"], told["limit"]) == ("capacity", limit)
    assert server.hub.metrics.refused == 1


@each_wire
async def test_the_newest_of_a_user_ends_the_oldest_of_any_wire(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED, max_per_user=1, per_user="oldest")
    oldest = await waiting(wire, server, "orders/1", headers={"X-User": "ann"})
    for each in READERS:
        newest = each(server, "orders/1", cursor=str(server.hub.fanout.newest), headers={"X-User": "ann"})
        await newest.open()
        told = await news(oldest)
        assert (told["op"], told["reason"]) == ("hub.close", "replaced")
        oldest = newest
