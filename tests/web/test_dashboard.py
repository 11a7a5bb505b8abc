"""The dashboard's routes: what they tell, to whom, and that nothing is counted while nobody looks."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from aiohttp import web
from reactivex import Subject

from hub import Identity
from hub.topics import topic_of
from hub.web.admin_address import admin_app
from hub.web.dashboard.dashboard import Dashboard
from hub.web.dashboard.failures import MOST, Failures
from hub.web.dashboard.feed import Feed
from hub.web.dashboard.routes import HERE, routes
from hub.web.dashboard.traffic import Traffic
from tests.access.jwt import SECRET
from tests.web.client import Client, until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server, Site
from tests.web.test_client_files import node, npm, run  # noqa: F401 - fixtures
from tests.web.test_processes import both, redis, settings  # noqa: F401 - fixtures

DATA = [(method, path) for path, handlers in routes().items() for method in handlers if "." not in path]
DATA = [each for each in DATA if each[1] != "/dashboard"]
FILES = [path for path in routes() if path not in {each[1] for each in DATA}]
USERS = {
    "ann": Identity(user="ann", subscribe=("orders/**",), publish=("orders/new",)),
    "root": Identity(user="root", admin=True),
}


async def by_header(request: web.Request) -> Identity | None:
    return USERS.get(request.headers.get("X-User", ""))


GUARDED: dict[str, Any] = {"authenticate": by_header, "routes": None}
ROOT = {"X-User": "root"}


async def told(server: Site, path: str, **headers: str) -> Any:
    answer = await server.ask("GET", f"{server.prefix}/dashboard/{path}", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json()


async def explained(server: Server, body: object) -> Any:
    answer = await server.post("/dashboard/explain", body, X_User="root")
    assert answer.status == 200, answer.body
    return answer.json()


async def look(server: Site, **headers: str) -> Client:
    """Return a viewer of the feed, whose first samples have been read."""
    client = await server.client()
    await client.request("GET", f"{server.prefix}/dashboard/feed", headers=headers)
    assert await client.head() == 200
    await client.next("samples")
    return client


async def sample(viewer: Client) -> Any:
    return json.loads((await viewer.next("sample")).data)


# Who may look


@pytest.mark.parametrize("given", [{}, {"dashboard": True, "setup": {"routes": ["subscribe", "stats"]}}], ids=str)
async def test_it_is_not_there_unless_it_is_asked_for(serve: Serve, given: Any) -> None:
    server = await serve(**given)
    assert {(await server.ask("GET", path)).status for path in routes()} == {404}


async def test_where_nobody_is_known_it_has_to_be_named_as_statistics_have(serve: Serve) -> None:
    server = await serve(dashboard=True, setup={"routes": None})
    assert (await server.ask("GET", "/notifications/stats")).status == 404
    assert (await server.ask("GET", "/dashboard/figures")).status == 404


@pytest.mark.parametrize(("method", "path"), DATA)
async def test_what_it_tells_is_for_administrators(serve: Serve, method: str, path: str) -> None:
    server = await serve(dashboard=True, setup=GUARDED)
    body = json.dumps({"topics": ["a"]}).encode() if method == "POST" else None
    json_type = {"Content-Type": "application/json"} if body else {}
    for user, status in (("", 401), ("ann", 403), ("root", 200)):
        client = await server.client()
        await client.request(method, path, headers={"X-User": user, **json_type}, body=body)
        assert await client.head() == status
        await client.aclose()


@pytest.mark.parametrize("path", FILES)
async def test_the_page_itself_holds_no_secret_and_lets_nothing_from_elsewhere_run(serve: Serve, path: str) -> None:
    server = await serve(dashboard=True, setup=GUARDED)
    answer = await server.ask("GET", path)
    assert answer.status == 200
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert b"http://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b"")


async def test_it_is_at_the_address_for_administration_where_there_is_one(serve: Serve) -> None:
    server = await serve(dashboard=True, setup=GUARDED)
    runner = web.AppRunner(admin_app(server.app), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        admin = Site(runner.addresses[0][:2])
        assert (await admin.ask("GET", "/dashboard")).status == 200
        facts = await told(admin, "facts", **ROOT)
        assert (facts["user"], facts["connections"], facts["tail"], facts["publish"]) == ("root", True, False, False)
        assert (await sample(await look(admin, **ROOT)))["total"]["streams"]["handler"] == 1
        await admin.aclose()
    finally:
        await runner.cleanup()


# Figures


async def test_the_figures_are_what_was_published_and_delivered(serve: Serve) -> None:
    server = await serve(dashboard=True, prefix="/live")
    readers = [await server.subscribe("orders", f"user/{number}") for number in range(5)]
    viewer = await look(server)
    server.send(*range(20), topic="orders")
    server.send("hidden", topic="nobody/listens")
    for reader in readers:
        await reader.upto("19")
    while (found := await sample(viewer))["total"]["published"] < 21:
        pass
    assert {kind: count for kind, count in found["total"]["streams"].items() if count} == {
        "subscription": 5,
        "handler": 1,
    }
    assert (found["total"]["published"], found["total"]["delivered"]) == (21, 100)
    assert found["log"]["bounds"]["count"] == 21
    assert {topic: rate > 0 for topic, rate in found["busiest"]} == {"orders": True, "nobody/listens": True}
    assert found["busiest"][0][0] == "orders"
    assert (found["missing"], found["failures"], len(found["workers"])) == (0, 0, 1)
    polled = await told(server, "figures")
    assert polled["total"]["published"] == 21
    while (found := await sample(viewer))["written"] is None:
        server.send("more", topic="orders")
    assert 0 < found["written"]["p50"] <= found["written"]["p99"]


async def test_nothing_is_counted_while_nobody_looks(serve: Serve) -> None:
    server = await serve(dashboard=True)
    dashboard, trunk = server.app[Dashboard.KEY], server.hub.notifications.subject
    idle = len(trunk.observers)
    viewers = [await look(server) for _ in range(2)]
    assert (dashboard.feed.viewers, dashboard.traffic.counts, len(trunk.observers)) == (2, True, idle + 1)
    viewers[0].close()
    await until(lambda: dashboard.feed.viewers == 1)
    assert dashboard.traffic.counts
    viewers[1].close()
    await until(lambda: dashboard.feed.viewers == 0)
    await until(lambda: dashboard.feed._task is None)
    assert (dashboard.traffic.counts, len(trunk.observers), dashboard.traffic.rates) == (False, idle, {})


async def test_all_who_look_share_one_sample_a_second_and_a_late_one_sees_what_was() -> None:
    taken = 0

    async def count() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"number": taken}

    steps: list[str] = []
    feed = Feed(count, begin=lambda: steps.append("begin"), end=lambda: steps.append("end"), seconds=0.01)
    first, second = feed.watch(), feed.watch()
    assert (await anext(first)).data == "[]"
    one = json.loads(str((await anext(first)).data))
    seen = json.loads(str((await anext(second)).data))
    assert one in seen
    ahead = [json.loads(str((await anext(each)).data))["number"] for each in (first, second)]
    assert min(ahead) > one["number"]
    await first.aclose()
    assert steps == ["begin"]
    await second.aclose()
    assert (steps, feed.viewers) == (["begin", "end"], 0)
    before = taken
    third = feed.watch()
    assert (await anext(third)).data == "[]", "what is old is forgotten"
    await third.aclose()
    assert taken <= before + 1


async def test_a_feed_whose_figures_fail_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    fails = [True, True, False, False]

    async def fail() -> dict[str, Any]:
        if fails.pop(0) if fails else False:
            raise RuntimeError("no figures")
        return {}

    feed = Feed(fail, begin=lambda: None, end=lambda: None, seconds=0.01)
    watching = feed.watch()
    await anext(watching)
    assert (await anext(watching)).data == "{}"
    await watching.aclose()
    assert [record.getMessage() for record in caplog.records] == ["the figures of the dashboard can't be taken"]


async def test_a_hub_that_drains_ends_the_feed(serve: Serve) -> None:
    server = await serve(dashboard=True)
    viewer = await look(server)
    await server.hub.drain(0)
    await viewer.gone()


async def test_they_are_those_of_all_processes_and_of_each(serve: Serve, settings: dict[str, Any]) -> None:  # noqa: F811
    one, two = await both(serve, settings, dashboard=True)
    first = await one.subscribe("orders", headers={"X-User": "ann"})
    others = [await two.subscribe("orders", "x/1", headers={"X-User": "bob"}) for _ in range(2)]
    viewer = await look(one, **ROOT)
    assert (await two.post("/notifications/publish", {"topic": "orders", "data": "all"}, X_User="ann")).status == 201
    for each in (first, *others):
        await each.upto("all")
    while (found := await sample(viewer))["total"]["delivered"] < 3:
        pass
    assert found["total"]["streams"]["subscription"] == 3
    assert sorted(each["streams"] for each in found["workers"].values()) == [2, 2]  # one of them is the viewer
    assert found["missing"] == 0
    rows = {row["topic"]: row["subscribers"] for row in (await told(two, "topics", **ROOT))["topics"]}
    assert rows == {"orders": 3, "x/1": 2}
    path = "/notifications/connections?order=slowest&topic=x/1"
    assert len((await one.ask("GET", path, headers=ROOT)).json()["connections"]) == 2


# Topics and streams


async def test_topics_have_their_subscribers_users_and_rates(serve: Serve) -> None:
    server = await serve(dashboard=True, setup=GUARDED)
    viewer = await look(server, **ROOT)
    for topics in (["orders/1"], ["orders/1", "orders/*"], ["orders/2"]):
        await server.subscribe(*topics, headers={"X-User": "ann"})
    server.send(*range(30), topic="orders/2")
    server.send("unheard", topic="quiet")
    while not (await sample(viewer))["busiest"]:
        pass
    found = await told(server, "topics?order=topic", **ROOT)
    rows = {row["topic"]: (row["subscribers"], row["users"], row["rate"]) for row in found["topics"]}
    assert rows["orders/*"] == (1, None, None)
    assert rows["orders/1"] == (2, 1, 0)
    assert (rows["orders/2"][:2], rows["quiet"][:2]) == ((1, 1), (0, 0))
    assert rows["orders/2"][2] == pytest.approx(30 * rows["quiet"][2], rel=0.01)
    assert (found["total"], found["sampled"], found["missing"]) == (4, False, False)
    busiest = await told(server, "topics?order=rate&limit=1", **ROOT)
    assert [row["topic"] for row in busiest["topics"]] == ["orders/2"]
    wanted = await told(server, "topics?order=subscribers&q=orders&offset=1&limit=2", **ROOT)
    assert ([row["topic"] for row in wanted["topics"]], wanted["total"]) == (["orders/*", "orders/2"], 3)


def test_rates_are_those_of_the_time_that_went_by() -> None:
    now = 10.0
    trunk: Subject[Any] = Subject()
    traffic = Traffic(trunk, lambda: now)
    traffic.tick()
    traffic.start()
    for number in range(6):
        trunk.on_next(SimpleNamespace(topics=("a",)))
        now += 1.0 if number % 2 else 2.0  # every second one waits for another process
        traffic.tick()
    assert traffic.rates["a"] == pytest.approx(6 / 9)


async def test_who_polls_sees_the_sample_of_those_who_look(serve: Serve) -> None:
    server = await serve(dashboard=True)
    viewer = await look(server)
    latest = await sample(viewer)
    assert (await told(server, "figures"))["at"] >= latest["at"]
    dashboard = server.app[Dashboard.KEY]
    dashboard.sample = None  # type: ignore[assignment,method-assign]  # it would fail
    assert (await told(server, "figures"))["at"] >= latest["at"]


@pytest.mark.parametrize("query", ["order=best", "offset=-1", "offset=x", "limit=0", f"q={'x' * 1025}"])
async def test_a_wrong_question_is_a_400(serve: Serve, query: str) -> None:
    server = await serve(dashboard=True)
    assert (await server.ask("GET", f"/dashboard/topics?{query}")).status == 400


async def test_the_slowest_streams_come_first_and_lists_can_be_narrowed(serve: Serve, complaints: Complaints) -> None:
    server = await serve(slow="drop_oldest", buffer_bytes=200_000, setup=GUARDED)
    quick = await server.subscribe("orders/a", headers={"X-User": "ann"})
    slow = await server.client(receive_buffer=8_192)
    await slow.request("GET", server.subscribe_path("orders/*"), headers={"X-User": "ann"})
    assert await slow.head() == 200
    await slow.next("hub.open")
    slow.stop_reading()
    connection = next(each for each in server.subscriptions if tuple(each.topics) == ("orders/*",))
    while not connection.facts().dropped:
        server.send("x" * 50_000, topic="orders/b")
        await quick.block() if not quick.is_silent() else None
        server.hub.fanout.flush()
    listed = json.loads((await server.ask("GET", "/notifications/connections?order=slowest", headers=ROOT)).body)
    first, last = listed["connections"]
    assert (first["id"], listed["next"]) == (connection.id, None)
    assert first["buffered"] > 0 < first["dropped"]
    assert 0 < first["lag"] <= server.hub.fanout.newest.offset
    assert (last["lag"], last["buffered"], last["worker"]) == (0, 0, server.hub.name)
    for query, number in (
        ("user=ann", 2), ("user=bob", 0), ("topic=orders/a", 1), ("topic=orders/b", 0), ("kind=handler", 0),
        ("kind=subscription&address=127.0.0.1", 2), ("address=192.0.2.1", 0), ("order=slowest&limit=1", 1),
    ):  # fmt: skip
        path = f"/notifications/connections?{query}"
        assert len(json.loads((await server.ask("GET", path, headers=ROOT)).body)["connections"]) == number, query
    for wrong in ("kind=socket", "order=best"):
        assert (await server.ask("GET", f"/notifications/connections?{wrong}", headers=ROOT)).status == 400


# Rights


async def test_the_debugger_says_why_as_the_rules_do(serve: Serve) -> None:
    server = await serve(dashboard=True, anonymous_subscribe=["news/**"], setup=GUARDED)
    await server.hub.rooms.join("ann", "tea", publish=True)
    await server.subscribe("orders/1", headers={"X-User": "ann"})
    topics = ["orders/1", "orders/new", "user/ann", "news/x", "room/tea", "user/bob", "**", "other"]
    said = await explained(server, {"user": "ann", "topics": topics})
    assert (said["who"]["source"], said["who"]["subscribe"]) == ("stream", ["orders/**"])
    verdicts = {each["topic"]: each for each in said["topics"]}
    assert {topic: each["read"]["allowed"] for topic, each in verdicts.items()} == dict.fromkeys(topics[:5], True) | (
        dict.fromkeys(topics[5:], False)
    )
    whys = [verdicts[topic]["read"]["why"] for topic in topics]
    assert whys[0] == "by the grant orders/**"
    assert whys[2] == "it is the user's own topic"
    assert whys[3] == "anybody may read it, by news/**"
    assert whys[4].startswith("as a member of the room")
    for topic, why in zip(topics[5:], whys[5:], strict=True):
        path = f"/notifications/subscribe?topic={topic}"
        refused = await server.ask("GET", path, headers={"X-User": "ann"})
        assert (refused.status, refused.json()["detail"]) == (403, why), "the words of a real refusal"
    assert [verdicts[topic]["read"].get("private") for topic in ("orders/1", "news/x")] == [True, False]
    publish = {topic: each["publish"]["allowed"] for topic, each in verdicts.items()}
    assert {topic for topic, allowed in publish.items() if allowed} == {"orders/new", "room/tea"}
    nobody = await explained(server, {"topics": ["news/x", "other"]})
    assert [(each["read"]["allowed"], each["read"].get("code")) for each in nobody["topics"]] == [
        (True, None), (False, "unauthorized"),
    ]  # fmt: skip
    typed = await explained(server, {"user": "new", "subscribe": ["a/*"], "topics": ["a/1", "b"]})
    assert [each["read"]["allowed"] for each in typed["topics"]] == [True, False]
    assert (await server.post("/dashboard/explain", {"topics": ["a//b"]}, X_User="root")).status == 400
    assert topic_of("user", "ann") in verdicts


async def test_the_debugger_reads_tokens_and_hears_the_application(serve: Serve) -> None:
    async def no_secrets(identity: Identity | None, topics: Any) -> bool:
        return not any("secret" in topic for topic in topics)

    setup = {"authenticate": by_header, "authorize_subscribe": no_secrets, "routes": None}
    server = await serve(dashboard=True, jwt_secret=SECRET, setup=setup)
    claims = {"sub": "tom", "exp": server.hub.clock() + 60, "jti": "t1", "hub": {"subscribe": ["a/**"]}}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    said = json.loads(
        (await server.post("/dashboard/explain", {"token": token, "topics": ["a/1", "a/secret"]}, X_User="root")).body
    )
    assert (said["who"]["user"], said["who"]["source"]) == ("tom", "token")
    assert [each["read"]["allowed"] for each in said["topics"]] == [True, False]
    assert "application" in said["topics"][1]["read"]["why"]
    await server.hub.revoke_token("t1")
    for bad in (token, token[:-3], "x"):
        refused = await server.post("/dashboard/explain", {"token": bad, "topics": ["a/1"]}, X_User="root")
        assert refused.status == 401
        assert bad not in refused.body.decode() or bad == "x"
    assert server.hub.metrics.unauthorized == 0, "it is the token that is refused, not whoever asks about it"
    assert await told(server, "revocations", **ROOT) == {
        "revocations": [
            {"kind": "token", "id": "t1", "at": (await told(server, "revocations", **ROOT))["revocations"][0]["at"]}
        ]
    }


# Errors of the last hour


def test_failures_are_counted_by_line_without_secrets_and_within_a_bound() -> None:
    failures, logger = Failures(), logging.getLogger("hub.test_dashboard")
    failures.open()
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    try:
        for number in range(3):
            logger.error("GET /x?ticket=%s failed for Bearer %s and %s", "tell-tale", number, token)
        logger.error("it failed: %s", "y" * 1_000, exc_info=RuntimeError("tell-tale of a traceback"))
        logger.info("nothing to worry about")
        logging.getLogger("other").error("not of the hub")
        long, short = failures.since(0)
        assert (short.times, short.level, short.logger) == (3, "error", "hub.test_dashboard")
        assert short.text == "GET /x… failed for Bearer … and …"
        assert (len(long.text), long.times) == (300, 1)
        assert "tell-tale" not in repr(failures.since(0))
        assert failures.since(long.last + 1) == []
        for number in range(2 * MOST):
            logger.warning(f"different {number}")
        assert len(failures.since(0)) == MOST
    finally:
        failures.close()
    logger.error("nobody listens any more")
    assert len(failures.since(0)) == MOST


async def test_an_error_of_the_hub_is_listed(serve: Serve, complaints: Complaints) -> None:
    server = await serve(dashboard=True)
    logging.getLogger("hub.sse").error("a stream of the handler %s failed", "x.y")
    (failure,) = (await told(server, "failures"))["failures"]
    assert (failure["text"], failure["times"]) == ("a stream of the handler x.y failed", 1)
    assert (await told(server, "figures"))["failures"] == 1
    assert complaints.take() != []


# What the page is made of


@pytest.mark.slow
def test_the_files_are_those_that_the_sources_make(node: str, npm: str, tmp_path: Path) -> None:  # noqa: F811
    run(node, "dashboard.mjs", str(tmp_path))
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    there = {path.name: path.read_bytes() for path in HERE.iterdir() if path.suffix != ".html"}
    assert sorted(built) == sorted(there)
    assert [name for name in built if built[name] != there[name]] == [], "make web, and commit hub/web/dashboard/page"
