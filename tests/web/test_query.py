"""What is asked in a query is never misread in silence."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import pytest

from hub import names
from hub.web import query
from tests.web.conftest import Serve
from tests.web.server import Server

SUBSCRIBE = "/notifications/subscribe"
HISTORY = "/notifications/history"
POLL = "/notifications/poll"
CHAT = "/ai/chat/stream"


async def refusal(server: Server, path: str, **how: Any) -> tuple[str, str]:
    """Return the field and the detail of the 400 that *path* gets."""
    answer = await server.ask("GET", path, **how)
    assert answer.status == 400, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    return problem["field"], problem["detail"]


@pytest.mark.parametrize(
    ("path", "typo", "meant"),
    [
        *((SUBSCRIBE, typo, "topic") for typo in ("topics", "topc", "Topic", "TOPIC", "topic[]", "topic[0]", "_topic")),
        *((SUBSCRIBE, typo, "envelope") for typo in ("envelop", "Envelope", "enveloppe")),
        *((SUBSCRIBE, typo, "lastEventId") for typo in ("lastEvntId", "last_event", "lastEventIds")),
        *((SUBSCRIBE, typo, "topic") for typo in ("topicc", "toppic", "tpoic", "topi", "topic1")),
        *((SUBSCRIBE, typo, "envelope") for typo in ("envelpoe", "evelop", "envelopes", "envalope")),
        *((HISTORY, typo, "topic") for typo in ("topics", "topc")),
        *((HISTORY, typo, "limit") for typo in ("limits", "lmit", "Limit")),
        *((HISTORY, typo, "after") for typo in ("afer", "After")),
        (CHAT, "messages", "message"),
        (CHAT, "fromat", "format"),
        (CHAT + "/some", "formt", "format"),
        ("/sse/42", "envelop", "envelope"),
    ],
)
async def test_a_parameter_that_is_nearly_one_of_ours_is_refused_with_a_hint(
    serve: Serve, path: str, typo: str, meant: str
) -> None:
    server = await serve(demo=True)
    field, detail = await refusal(server, f"{path}?{typo}=orders")
    assert (field, f"did you mean {meant}?" in detail) == (typo, True)
    await server.deserted()


@pytest.mark.parametrize(
    "name",
    [
        *("_", "t", "ts", "cb", "r", "v", "token", "ticket", "nocache", "cachebust", "datastar", "timestamp", "rnd"),
        *("optic", "tonic", "toxic", "tropic", "topical", "topicId", "topic_id", "typical", "developer", "elope"),
        *("later", "alter", "alert", "limited", "unlimited", "climit", "lastEventAt", "[]", "[0]", "-"),
        *("top", "event", "user", "userId", "evs_preamble", "padding", "utm_source", "x" * 5_000),
    ],
)
async def test_what_is_not_ours_passes(serve: Serve, name: str) -> None:
    server = await serve()
    client = await server.subscribe("a", query={name: "1"})
    assert client.opened.json()["topics"] == ["a"]
    assert (await server.ask("GET", f"{HISTORY}?{name}=1")).status == 200


async def test_a_query_of_many_strange_names_costs_the_look_at_a_few(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = list[str]()

    def mistyped(name: str, known: Iterable[str]) -> str:
        looked_at.append(name)
        return names.mistyped(name, known)

    monkeypatch.setattr(query, "mistyped", mistyped)
    server = await serve()
    ids = server.send(*"ab")
    anagrams = [f"{''.join(letters)}{digit}" for letters in permutations("opic") for digit in "123456789"]
    many = dict.fromkeys(f"t{anagram}" for anagram in anagrams if not anagram.startswith("opic"))
    client = await server.subscribe(query={**dict.fromkeys(many, "1"), "last_event_id": ids[0]})
    assert (await client.next()).data == "b", "a spelling of ours is understood wherever it stands"
    assert looked_at == list(many)[: query.MOST_JUDGED]


@pytest.mark.parametrize(
    "name",
    [
        "lastEventId",
        "last-event-id",
        "last_event_id",
        "lastEventID",
        "LastEventId",
        "Last-Event-ID",
        "evs_last_event_id",
    ],
)
async def test_every_usual_spelling_of_the_last_event_id_is_understood(serve: Serve, name: str) -> None:
    server = await serve(demo=True)
    ids = server.send(*"abc") + server.send("for 42", topic="user/42")
    client = await server.subscribe(query={name: ids[0], "_": "17"})
    assert [(await client.next()).data for _ in "bc"] == ["b", "c"]
    posted = await server.client()
    headers = {"Content-Type": "application/json"}
    await posted.request("POST", f"{SUBSCRIBE}?{name}={ids[1]}", headers=headers, body=b"{}")
    assert await posted.head() == 200
    assert (await posted.next("hub.open")).id == ids[1]
    own = await server.client()
    await own.request("GET", f"/sse/42?{name}={ids[0]}")
    assert await own.head() == 200
    await own.next("hub.open")
    assert (await own.next()).data == "for 42"


async def test_a_viewer_of_an_answer_comes_back_by_any_spelling_too(serve: Serve) -> None:
    server = await serve(ai_provider="simulated")
    answer = await server.ask("GET", f"{CHAT}?last_event_id=some.3.end")
    assert answer.status == 204


@pytest.mark.parametrize(
    ("method", "path", "field", "why"),
    [
        ("POST", SUBSCRIBE + "?topic=orders", "topic", "a POST names its topics in the body"),
        ("GET", "/sse/42?topic=orders", "topic", "the path names the topic here"),
        ("GET", HISTORY + "?last_event_id=x-1", "last_event_id", "is 'after' on this path"),
        ("POST", CHAT + "?message=hi", "message", "a POST has its message in the body"),
        ("GET", POLL + "?cursor=x-1", "cursor", "is no parameter here; send the cursor of an answer as lastEventId"),
        ("GET", POLL + "?after=x-1", "after", "is no parameter here; did you mean lastEventId?"),
    ],
)
async def test_what_belongs_elsewhere_is_refused_and_told_where(
    serve: Serve, method: str, path: str, field: str, why: str
) -> None:
    server = await serve(demo=True)
    answer = await server.ask(method, path, headers={"Content-Type": "application/json"}, body=b'{"message": "hi"}')
    assert answer.status == 400
    assert (answer.json()["field"], answer.json()["detail"]) == (field, f"{field}: {why}")
    assert not server.hub.generations.streaming


@pytest.mark.parametrize("path", [SUBSCRIBE, HISTORY, CHAT])
@pytest.mark.parametrize("query", ["topic=%FF", "x=%C3", "a=1&topic=%ED%A0%80&b=2", "%FF=1"])
async def test_a_query_that_is_not_utf_8_is_refused(serve: Serve, path: str, query: str) -> None:
    server = await serve(ai_provider="simulated")
    field, detail = await refusal(server, f"{path}?{query}")
    assert "UTF-8" in detail
    assert "\ufffd" not in field or query.startswith("%FF")


@pytest.mark.parametrize("query", ["topic=%E5%AE%9E", "topic=%E5%AE%9E&%C3%BC=1"])
async def test_a_query_in_utf_8_is_read(server: Server, query: str) -> None:
    client = await server.client()
    await client.request("GET", f"{SUBSCRIBE}?{query}")
    assert await client.head() == 200
    assert (await client.next("hub.open")).json()["topics"] == ["实"]


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        ("/notifications/publish", {"data": 1, "tpoic": "a"}, "did you mean topic? "),
        ("/notifications/publish", {"data": 1, "idempotency": "a"}, ""),
        (SUBSCRIBE, {"topic": "a"}, "did you mean topics? "),
        (SUBSCRIBE, {"last_event_id": "a"}, "did you mean lastEventId? "),
    ],
)
async def test_an_unknown_field_of_a_body_is_refused_with_a_hint(
    server: Server, path: str, body: dict[str, object], hint: str
) -> None:
    problem = (await server.post(path, body)).json()
    field = next(name for name in body if name != "data")
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: unknown field; {hint}")
