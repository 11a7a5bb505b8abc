"""AI token streams over real sockets: begun in three ways, refused, stopped, told to others and counted."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.errors import EventBufferFull, ShuttingDown
from hub.events.event import Event as BusEvent
from hub.generations.providers.provider import Prompt, ProviderError
from hub.hub import Hub
from hub.notification import Notification
from hub.settings import Settings
from tests.ports import free_port
from tests.snippets import snippet
from tests.web.chat import PATH, USAGE, Chat, Scripted, away, kinds, text
from tests.web.client import until
from tests.web.conftest import Complaints, Serve
from tests.web.process import ServeProcess
from tests.web.server import Answer

pytestmark = pytest.mark.both_loops
ID = re.compile(r"[A-Za-z0-9._~-]+")


# ---- POST …/init ----


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """Start a hub with a provider; the tests that script its answers put another one in its place."""
    return partial(serve, ai_provider="simulated")


async def test_init_begins_at_once_and_says_where(chat: Chat):
    answer = await chat.server.post(PATH + "/init", {"message": "hi", "temperature": 0.5})
    said = answer.json()
    id = said["sessionId"]
    assert answer.status == 201
    assert said.keys() == {"sessionId", "streamUrl", "cancelUrl", "expiresAt"}
    assert answer.headers["Location"] == said["streamUrl"] == f"{PATH}/{id}"
    assert said["cancelUrl"] == f"{PATH}/{id}/cancel"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["expiresAt"])
    assert ID.fullmatch(id)
    await chat.provider.answer()  # although nobody watches
    assert chat.provider.prompts == [Prompt([{"role": "user", "content": "hi"}], None, {"temperature": 0.5})]


async def test_init_takes_what_openai_takes(chat: Chat):
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    ]
    answer = await chat.server.post(PATH + "/init", {"messages": messages, "model": "m"})
    assert answer.status == 201
    await chat.provider.answer()
    assert chat.provider.prompts == [Prompt(messages, "m", {})]


async def test_a_hub_under_a_prefix_names_its_own_paths(serve: Serve):
    server = await serve(prefix="/live")
    answer = await server.post(PATH + "/init", {"message": "hi"})
    assert answer.headers["Location"] == f"/live{PATH}/{answer.json()['sessionId']}"
    assert (await server.ask("GET", answer.headers["Location"], headers={"Accept": "application/json"})).status == 200


async def test_clients_that_double_their_delay_are_told_a_shorter_one(chat: Chat):
    id, _ = await chat.begin()
    for headers, least, most in (({"HX-Request": "true"}, 500, 1_500), ({}, 1_000, 3_000)):
        client = await chat.open(f"{PATH}/{id}", headers=headers)
        await client.next("start")
        assert least <= (client.decoder.retry or 0) <= most


async def test_an_idempotency_key_never_begins_a_second_generation(chat: Chat):
    first, second, other = [
        await chat.server.post(PATH + "/init", {"message": "hi"}, Idempotency_Key=key) for key in ("a", "a", "b")
    ]
    assert [each.status for each in (first, second, other)] == [201, 200, 201]
    assert first.json() == second.json()
    assert other.json()["sessionId"] != first.json()["sessionId"]
    await chat.provider.answer(1)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "a"}
    client = await chat.open(PATH, "POST", headers=headers, body=b'{"message": "hi"}')
    assert (await client.next("start")).json()["sessionId"] == first.json()["sessionId"]
    assert len(chat.provider.prompts) == 2


async def test_an_idempotency_key_stands_for_one_question(chat: Chat):
    for path in (PATH + "/init", PATH):
        await chat.server.post(PATH + "/init", {"message": "hi", "temperature": 1}, Idempotency_Key="a")
        for other in ({"message": "ho", "temperature": 1}, {"message": "hi"}, {"message": "hi", "model": "m"}):
            answer = await chat.server.post(path, other, Idempotency_Key="a")
            assert (answer.status, answer.json()["field"]) == (422, "Idempotency-Key")
    assert len(chat.provider.prompts) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "message"),
        ({"message": "a", "messages": []}, "message"),
        ({"message": " "}, "message"),
        ({"message": 1}, "message"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 1_001}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "a"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"message": "a", "model": 1}, "model"),
        ({"message": "a", "model": "m" * 257}, "model"),
        ({"message": "a", "model": "\ud800"}, "model"),
        ({"message": "\ud800"}, "body"),
        ({"message": "a", "stop": ["\ud800"]}, "body"),
    ],
)
@pytest.mark.parametrize("path", [PATH, PATH + "/init"])
async def test_errors_name_the_field(chat: Chat, body: object, field: str, path: str):
    answer = await chat.server.post(path, body)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert chat.provider.prompts == []


async def test_what_is_not_json_and_what_is_too_much(serve: Serve):
    chat = Chat(await serve(ai_total=1))
    assert (await chat.server.ask("POST", PATH + "/init", body=b"{}")).status == 415
    wrong = await chat.server.post(PATH + "/init", {"message": "a"}, Idempotency_Key="x" * 257)
    assert (wrong.status, wrong.json()["field"]) == (400, "Idempotency-Key")
    wrong = await chat.server.ask("GET", PATH + "?message=a&format=xml")
    assert (wrong.status, wrong.json()["field"]) == (400, "format")
    assert (await chat.server.ask("GET", PATH)).json()["field"] == "message"
    await chat.begin()
    refused = await chat.server.post(PATH + "/init", {"message": "a"})
    assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (429, True)
    assert len(chat.provider.prompts) == 1


# ---- GET ?message= ----


async def test_a_bare_eventsource_begins_and_resumes_and_never_begins_twice(chat: Chat):
    client = await chat.open(f"{PATH}?message=hello")
    answering = await chat.provider.answer()
    id = (await client.next("start")).json()["sessionId"]
    assert client.headers["Content-Location"] == f"{PATH}/{id}"
    answering.say("a", "b")
    await client.next()
    last = (await client.next()).id
    client.reset()
    answering.say("c")
    again = await chat.open(f"{PATH}?message=hello", headers={"Last-Event-ID": last})
    assert (await again.next("start")).json()["sessionId"] == id
    answering.finish()
    events = await again.rest()
    assert text(events) == "c"
    answer = await chat.server.ask("GET", f"{PATH}?message=hello", headers={"Last-Event-ID": events[-1].id})
    assert answer.status == 204
    assert len(chat.provider.prompts) == 1
    assert chat.provider.prompts[0].messages == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("home", "last"),
    [
        *(("memory", last) for last in ("unknown.3", "nonsense", "k3f9x2-17", "a b", "*.1", "expired")),
        *(("file", last) for last in ("unknown.3", "*.1", "expired")),
    ],
)
async def test_who_comes_back_for_what_is_lost_is_told_so_and_ends(serve: Serve, tmp_path: Path, last: str, home: str):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, ai_keep=0, **log))
    calls = 0
    if last == "expired":
        last = f"{await chat.finished('a')}.1"
        chat.server.hub.generations.sweep()
        calls = 1
    client = await chat.open(f"{PATH}?message=hello", headers={"Last-Event-ID": last})
    events = await client.rest()
    assert kinds(events) == ["failed", "close"]
    assert events[0].json()["reason"] == "lost"
    assert events[1].id.endswith(".end")
    answer = await chat.server.ask("GET", f"{PATH}?message=hello", headers={"Last-Event-ID": events[1].id})
    assert answer.status == 204
    assert len(chat.provider.prompts) == calls


# ---- POST and cancel ----


async def test_the_answer_comes_on_the_post_itself_and_is_resumed_where_it_says(chat: Chat):
    headers = {"Content-Type": "application/json"}
    client = await chat.open(PATH, "POST", headers=headers, body=b'{"message": "hi"}')
    answering = await chat.provider.answer()
    place = client.headers["Content-Location"]
    id = (await client.next("start")).json()["sessionId"]
    assert place == f"{PATH}/{id}"
    answering.say("a")
    last = (await client.next()).id
    client.reset()
    answering.say("b")
    answering.finish()
    again = await chat.open(place, headers={"Last-Event-ID": last})
    assert text(await again.rest()) == "b"


@pytest.mark.parametrize(
    ("home", "method", "below"),
    [("memory", "DELETE", ""), ("memory", "POST", "/cancel"), ("memory", "DELETE", "/cancel"), ("file", "DELETE", "")],
)
async def test_a_cancel_reaches_the_provider_and_may_be_repeated(
    serve: Serve, tmp_path: Path, method: str, below: str, home: str
):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, **log))
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answers: list[Answer] = [await chat.server.ask(method, f"{PATH}/{id}{below}") for _ in range(2)]
    for answer in answers:
        assert (answer.status, answer.json()) == (200, {"sessionId": id, "phase": "cancelled"})
    assert answering.closed
    assert kinds(await client.rest()) == ["cancelled", "close"]
    again = await chat.watch(id)
    assert kinds(await again.rest()) == ["cancelled", "close"]


# ---- what is asked ----


@pytest.mark.parametrize(
    "text", ['{"message": "a", "temperature": 1e999}', '{"message": "a", "stop": %s}' % ("[" * 979 + "]" * 979)]
)
async def test_what_no_provider_could_be_told_is_refused(chat: Chat, text: str):
    headers = {"Content-Type": "application/json"}
    for path in (PATH, PATH + "/init"):
        answer = await chat.server.ask("POST", path, headers=headers, body=text.encode())
        assert (answer.status, answer.json()["field"]) == (400, "body")
    assert not chat.provider.prompts


async def test_a_message_of_a_tool_needs_no_content(chat: Chat):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    asked = [{"role": "user", "content": "a"}, call, {"role": "tool", "content": "b", "tool_call_id": "1"}]
    assert (await chat.server.post(PATH + "/init", {"messages": asked})).status == 201
    await chat.provider.answer()
    assert chat.provider.prompts[0].messages == asked


async def test_an_answer_says_that_its_connection_ends_with_it(chat: Chat):
    id = await chat.finished("a")
    for client in (await chat.open(f"{PATH}/{id}"), await chat.open(f"{PATH}?message=hi")):
        assert client.headers["Connection"] == "close"


async def test_an_event_source_is_sent_away_where_no_answer_can_begin_now(serve: Serve):
    chat = Chat(await serve(ai_total=1))
    await chat.begin()
    answer = await chat.server.ask("GET", f"{PATH}?message=hi")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert re.fullmatch(away("capacity", "ai_total"), answer.body)
    assert (await chat.server.post(PATH, {"message": "hi"})).status == 429
    assert len(chat.provider.prompts) == 1


# ---- around it ----


async def test_pages_of_other_origins_may_use_it_if_they_are_named(serve: Serve):
    origin = "https://app.example.com"
    chat = Chat(await serve(cors_origins=(origin,)))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked = await chat.server.ask("OPTIONS", PATH + "/init", headers=headers)
    assert "idempotency-key" in asked.headers["Access-Control-Allow-Headers"].lower().split(", ")
    client = await chat.open(f"{PATH}?message=hi", headers={"Origin": origin})
    assert client.headers["Access-Control-Allow-Origin"] == origin
    assert "Content-Location" in client.headers["Access-Control-Expose-Headers"]
    for path in (f"{PATH}/unknown", PATH):
        answer = await chat.server.ask("GET", path, headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    end = {"Origin": origin, "Last-Event-ID": "a.1.end"}
    assert (await chat.server.ask("GET", f"{PATH}/a", headers=end)).headers["Access-Control-Allow-Origin"] == origin


async def test_the_finished_answer_is_a_notification_and_an_event_and_only_the_event_has_its_text(chat: Chat):
    heard: list[BusEvent] = []
    chat.server.hub.bus.on("ai.stream.finished", heard.append)
    subscriber = await chat.server.subscribe("ai/*")
    id = await chat.finished("a", "两")
    event = await subscriber.next("ai.finished")
    what = {"sessionId": id, "phase": "done", "owner": None, "finishReason": "stop", "usage": USAGE}
    assert event.json() == what
    assert [each.payload for each in heard] == [{**what, "text": "a两"}]
    history = (await chat.server.ask("GET", f"/notifications/history?topic=ai/{id}")).json()
    assert [each["data"] for each in history["notifications"]] == [what]


@pytest.mark.parametrize("home", ["memory", "file"])
async def test_nothing_of_the_text_of_an_answer_outlives_it(serve: Serve, tmp_path: Path, home: str):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, ai_keep=0, **log))
    subscriber = await chat.server.subscribe("ai/*")
    id = await chat.finished("between", "you", "and", "me")
    await subscriber.next("ai.finished")
    chat.server.hub.generations.sweep()
    assert (await chat.server.ask("GET", f"{PATH}/{id}", headers={"Accept": "application/json"})).status == 410
    everything = await chat.server.ask("GET", "/notifications/history?topic=**&topic=ai/**&topic=user/**")
    assert id in everything.body.decode()
    assert "between" not in everything.body.decode()


async def test_half_a_character_from_a_provider_breaks_nothing(chat: Chat):
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answering.say("a\ud83d")
    answering.finish()
    assert text(await client.rest()) == "a\ufffd"


# ---- a provider of one's own ----


@pytest.mark.slow
async def test_a_class_beside_where_the_hub_is_started_answers(tmp_path: Path):
    parrot = snippet("howto/stream-ai-tokens.md", "answers_of_mine.py")
    (tmp_path / "answers_of_mine.py").write_text(parrot, encoding="utf-8")
    hub = await ServeProcess.start(
        *("serve", "--port", str(free_port()), "--ai-provider", "answers_of_mine:Parrot"), cwd=tmp_path
    )
    try:
        await hub.listening()
        client = await hub.site.client()
        await client.request("GET", f"{PATH}?message=polly+wants")
        assert await client.head() == 200
        assert text(await client.rest()) == "polly wants "
    finally:
        await hub.aclose()


# ---- what others do wrong ----


async def test_a_provider_that_can_not_be_closed_leaves_the_rest_of_the_hub_closed(caplog: pytest.LogCaptureFixture):
    class Stubborn(Scripted):
        async def aclose(self) -> None:
            raise RuntimeError("mine")

    hub = Hub(Settings())
    hub.provider = Stubborn()
    await hub.open()
    await hub.aclose()
    assert "the provider failed to close" in caplog.text
    with pytest.raises(ShuttingDown):
        hub.notifications.send_notification("late")


@pytest.mark.parametrize(
    ("owner", "topics"),
    [
        ("ann", ("user/ann",)),
        ("a/b", ("user/a%2Fb",)),
        ("a*", ("user/a%2A",)),
        ("", ()),
        (None, ()),
        ("x" * 300, ()),
    ],
)
async def test_an_answer_is_told_to_its_owner_if_that_can_be_a_topic(owner: str | None, topics: tuple[str, ...]):
    hub = Hub(Settings(ai_window=0))
    await hub.open()
    told: list[Notification] = []
    hub.notifications.stream("ai/*").subscribe(told.append)
    stream = await hub.generations.begin(owner=owner)
    stream.finish()
    assert [each.topics for each in told] == [(f"ai/{stream.id}", *topics)]
    assert told[0].private
    await hub.aclose()


async def test_an_event_that_nobody_can_take_keeps_no_notification_back(chat: Chat, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise EventBufferFull(1)

    subscriber = await chat.server.subscribe("ai/*")
    monkeypatch.setattr(chat.server.hub.bus, "emit", full)
    id = await chat.finished("a")
    assert (await subscriber.next("ai.finished")).json()["sessionId"] == id


# ---- what is counted ----


async def test_answers_and_viewers_are_counted(chat: Chat, complaints: Complaints):
    async def counted() -> dict[str, int]:
        stats = (await chat.server.ask("GET", "/notifications/stats")).json()
        names = ("generations", "viewers", *(f"generations_{how}" for how in ("begun", "done", "failed", "cancelled")))
        return {name: stats[name] for name in names if stats[name]}

    assert await counted() == {}
    client = await chat.open(f"{PATH}?message=hi")
    await client.next("start")
    assert await counted() == {"generations": 1, "viewers": 1, "generations_begun": 1}
    (await chat.provider.answer()).finish()
    await client.rest()
    await until(lambda: chat.server.hub.viewers == 0)
    assert await counted() == {"generations_begun": 1, "generations_done": 1}
    id, answering = await chat.begin()
    answering.fail(ProviderError("rate_limited", "too much to do"))
    await (await chat.server.hub.generations.find(id)).ended()
    complaints.take()
    id, _ = await chat.begin()
    await chat.server.ask("DELETE", f"{PATH}/{id}")
    ended = {"generations_done": 1, "generations_failed": 1, "generations_cancelled": 1}
    assert await counted() == {"generations_begun": 3, **ended}
    text = (await chat.server.ask("GET", "/metrics")).body.decode()
    assert "hub_generations_begun_total 3.0" in text
    assert "hub_viewers 0.0" in text
