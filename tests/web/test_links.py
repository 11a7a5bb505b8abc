"""Each link that the hub gives leads somewhere, wherever it is mounted and whatever stands before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from hub import Settings, setup_hub
from tests.web.conftest import Serve
from tests.web.server import Answer, Server, Site

CHAT = "/ai/chat/stream"
FAST: dict[str, Any] = {
    "ai_provider": "simulated",
    "ai_simulated_first": 0,
    "ai_simulated_rate": 10_000,
    "ai_simulated_tokens": 3,
}
JSON = {"Content-Type": "application/json"}


async def links(site: Site, at: str = "", **headers: str) -> dict[str, str]:
    """Return every link of the hub that *site* shows at *at*."""
    said = {**JSON, **{name.replace("_", "-"): text for name, text in headers.items()}}
    init = await site.ask("POST", f"{at}{CHAT}/init", headers=said, body=b'{"message": "hi"}')
    assert init.status == 201
    posted = await site.ask("POST", at + CHAT, headers=said, body=b'{"message": "hi"}')
    got = await site.ask("GET", f"{at}{CHAT}?message=hi", headers=said)
    published = await site.ask("POST", f"{at}/notifications/publish", headers=said, body=b'{"data": 1}')
    return {
        "init": init.headers["Location"],
        "streamUrl": init.json()["streamUrl"],
        "cancelUrl": init.json()["cancelUrl"],
        "posted": posted.headers["Content-Location"],
        "got": got.headers["Content-Location"],
        "published": published.headers["Location"],
    }


async def check_they_lead_somewhere(site: Site, links: dict[str, str]) -> None:
    for name in ("init", "streamUrl", "posted", "got"):
        answer = await site.ask("GET", links[name], headers={"Accept": "application/json"})
        assert (answer.status, answer.json()["sessionId"]) == (200, links[name].rpartition("/")[2])
    assert (await site.ask("DELETE", links["cancelUrl"])).status == 200
    answer = await site.ask("GET", links["published"])
    assert [each["data"] for each in answer.json()["notifications"]] == [1]


@pytest.mark.parametrize("prefix", ["", "/live", "/live/", "/实", "/a b", "/实/a b/c", "/%E5%AE%9E", "/a+b;c=d"])
async def test_under_any_prefix(serve: Serve, prefix: str) -> None:
    server = await serve(prefix=prefix, **FAST)
    at = quote(prefix.rstrip("/"), safe="/%+;=")
    found = await links(server, at)
    assert all(each.startswith(at + "/") for each in found.values())
    await check_they_lead_somewhere(server, found)


async def test_in_an_application_within_another(serve: Serve) -> None:
    inner, outer = web.Application(), web.Application()
    setup_hub(inner, Settings(drain=0, **FAST), prefix="/live", routes="all")
    outer.add_subapp("/api", inner)
    server = await serve(app=outer)
    found = await links(server, "/api/live")
    await check_they_lead_somewhere(server, found)


async def test_under_a_prefix_with_parameters(serve: Serve) -> None:
    server = await serve(prefix="/{tenant:[a-z]+}/live", **FAST)
    await check_they_lead_somewhere(server, await links(server, "/acme/live"))
    assert (await server.ask("GET", "/ACME/live/notifications/stats")).status == 404


async def test_the_root_path_is_in_front_of_every_link(serve: Serve) -> None:
    server = await serve(root_path="/live", **FAST)
    found = await links(server)
    assert all(each.startswith("/live/") for each in found.values())
    await check_they_lead_somewhere(server, {name: each.removeprefix("/live") for name, each in found.items()})


async def test_a_trusted_proxy_says_what_is_in_front_of_every_link(serve: Serve) -> None:
    server = await serve(root_path="/live", trusted_proxies=("127.0.0.0/8",), **FAST)
    found = await links(server, X_Forwarded_Prefix="/hub/eu")
    assert all(each.startswith("/hub/eu/") for each in found.values())


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/evil b", '/evil"', "https://evil.example", "/evil\x80", "/evil,//evil"]
)
async def test_what_is_no_prefix_is_in_no_answer_even_from_a_trusted_proxy(serve: Serve, prefix: str) -> None:
    server = await serve(trusted_proxies=("127.0.0.1",), **FAST)
    answer = await server.post(f"{CHAT}/init", {"message": "hi"}, X_Forwarded_Prefix=prefix)
    if answer.status == 201:
        assert answer.headers["Location"].startswith(CHAT)
    assert_not_in(answer, "evil")


@pytest.mark.parametrize("trusted", [(), ("192.0.2.1", "::1", "unix")])
async def test_what_somebody_else_says_is_in_no_answer(serve: Serve, trusted: tuple[str, ...]) -> None:
    server = await serve(trusted_proxies=trusted, **FAST)
    answer = await server.post(f"{CHAT}/init", {"message": "hi"}, X_Forwarded_Prefix="/evil", X_Forwarded_Host="evil")
    assert answer.headers["Location"].startswith(CHAT)
    assert_not_in(answer, "evil")


def assert_not_in(answer: Answer, word: str) -> None:
    assert word not in answer.body.decode() + str(list(answer.headers.items()))


@pytest.mark.parametrize(("trusted", "prefix"), [(("unix",), "/live"), (("127.0.0.1", "0.0.0.0/0"), "")])
async def test_who_comes_through_a_unix_socket_is_trusted_if_that_is_said(
    serve: Serve, tmp_path: Path, trusted: tuple[str, ...], prefix: str
) -> None:
    server = await serve(trusted_proxies=trusted, **FAST)
    path = str(tmp_path / "socket")
    await web.UnixSite(server.runner, path).start()
    site = Site(path)
    try:
        answer = await site.post(f"{CHAT}/init", {"message": "hi"}, X_Forwarded_Prefix="/live")
        assert answer.headers["Location"].startswith(f"{prefix}{CHAT}/")
    finally:
        await site.aclose()


# ---- the place of a notification ----


@pytest.mark.parametrize(
    "draft",
    [
        {"data": 1},
        {"data": 1, "topic": "orders"},
        {"data": 1, "topics": ["b", "a", "notifications"]},
        {"data": 1, "topic": "房间/a b&topic=c#d?e+f%41"},
        {"data": 1, "topic": "x", "private": True, "type": "t", "tags": {"a": 1}},
    ],
)
@pytest.mark.parametrize("log", ["memory://", "sqlite"])
async def test_the_place_of_a_notification_answers_it_and_nothing_else(
    serve: Serve, draft: dict[str, object], log: str, tmp_path: Path
) -> None:
    server = await serve(log=f"sqlite:///{tmp_path / 'hub.db'}" if log == "sqlite" else log)
    published = []
    for number in range(3):
        published.append(await server.publish(draft | {"data": number}))
        await server.publish([{"data": "other", "topic": "a"}, {"data": "other"}])
    for number, answer in enumerate(published):
        assert answer.status == 201
        page = (await server.ask("GET", answer.headers["Location"])).json()
        assert [(each["id"], each["data"]) for each in page["notifications"]] == [(answer.json()["id"], number)]
        assert page["recovered"] is True


async def test_a_list_and_a_repeated_publish_have_no_place(server: Server) -> None:
    once = [await server.publish({"data": 1, "key": "once"}) for _ in range(2)]
    assert [(answer.status, "Location" in answer.headers) for answer in once] == [(201, True), (200, False)]
    assert "Location" not in (await server.publish([{"data": 1}])).headers


# ---- below a prefix ----


@pytest.mark.parametrize("prefix", ["/live", "/实", "/a b/c", "/a.c"])
async def test_what_nobody_answers_below_the_prefix_is_a_problem(serve: Serve, prefix: str) -> None:
    app = web.Application()
    app.router.add_get(f"{prefix}/earlier", ours)
    server = await serve(app=app, prefix=prefix)
    at = quote(prefix)
    for path in ("/nothing", "/notifications/nothing", "/notifications/subscribe/", "/", "/a/b/c"):
        answer = await server.ask("GET", at + path)
        assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json"), path
        assert answer.headers["Cache-Control"] == "no-store"
    assert (await server.ask("GET", f"{at}/earlier")).body == b"ours"
    assert (await server.ask("DELETE", f"{at}/notifications/publish")).status == 405
    assert (await server.ask("GET", "/elsewhere")).headers["Content-Type"].startswith("text/plain")
    assert (await server.ask("GET", "/axc/nothing")).headers["Content-Type"].startswith("text/plain")


async def ours(request: web.Request) -> web.Response:
    return web.Response(text="ours")


async def test_routes_that_the_application_adds_later_below_the_prefix_are_its_own(serve: Serve) -> None:
    app = web.Application()
    setup_hub(app, Settings(drain=0), prefix="/live", routes="all")
    app.router.add_get("/live/{name}", ours)
    app.router.add_get("/live/notifications/{id}", ours)
    app.router.add_get("/{tail:.*}", ours)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site = Site(runner.addresses[0][:2])
    try:
        for path in ("/live/mine", "/live/notifications/7", "/", "/anything/else"):
            assert (await site.ask("GET", path)).body == b"ours", path
        for path in ("/live/notifications/7/8", "/live/a/b"):
            assert (await site.ask("GET", path)).status == 404, path
        assert (await site.ask("GET", "/live/notifications/stats")).json()["connections"] == 0
    finally:
        await site.aclose()
        await runner.cleanup()
