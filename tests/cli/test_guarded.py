"""The commands as real processes, and a hub that asks who they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cli.commands import Run
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.process import Process
from tests.web.server import Server
from tests.web.test_rights import SECRET, token

pytestmark = pytest.mark.slow

RIGHTS = {"subscribe": ["orders"], "publish": ["orders"]}
ALL = {**RIGHTS, "admin": True}


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A hub that takes tokens, and lets anybody read `news`."""
    return await serve(setup={"routes": None}, jwt_secret=SECRET, anonymous_subscribe=("news",), heartbeat=0.3)


def url_of(server: Server) -> str:
    assert isinstance(server.address, tuple)
    return f"http://127.0.0.1:{server.address[1]}"


async def ended(process: Process, status: int, *secrets: str) -> str:
    """Return the last line on standard error of *process*, which ends with *status* and shows no secret."""
    assert await process.end() == status, process.err
    assert "Traceback" not in process.err
    for secret in secrets:
        assert secret not in process.out + process.err
    return (process.err.splitlines() or [""])[-1]


@pytest.mark.parametrize("way", ["variable", "file", "standard input"])
async def test_each_command_sends_the_token(server: Server, run: Run, way: str, tmp_path: Path) -> None:
    text = token("tom", hub=ALL)
    (tmp_path / "token").write_text(text + "\n")
    environ = {"HUB_URL": url_of(server), **({"HUB_TOKEN": text} if way == "variable" else {})}
    option = {"variable": (), "file": ("--token-file", "token"), "standard input": ("--token-file", "-")}[way]
    stdin = text if way == "standard input" else None
    listening = await run("listen", "orders", "-n", "1", *option, environ=environ, stdin=stdin)
    await listening.tells("hub.open")
    for command in (("publish", "seven", "-t", "orders"), ("history", "list", "-t", "orders"), ("history", "export")):
        process = await run(*command, *option, environ=environ, stdin=stdin)
        await ended(process, 0, text)
        assert process.out
    await ended(listening, 0, text)
    assert listening.out == "seven\n"


@pytest.mark.parametrize(
    "command",
    [("publish", "x", "-t", "orders"), ("listen", "orders"), ("history", "list", "-t", "orders")],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("claims", "word"),
    [
        (None, "HUB_TOKEN"),
        ({"exp": 1_000_000}, "expired"),
        ({"aud": "elsewhere"}, "audience"),
        ({"hub": {}}, "orders: you may not"),
    ],
    ids=["none", "expired", "wrong", "no right"],
)
async def test_a_refusal_ends_the_command_with_its_reason(
    server: Server, run: Run, command: tuple[str, ...], claims: dict[str, Any] | None, word: str
) -> None:
    text = "" if claims is None else token("tom", **claims)
    process = await run(*command, environ={"HUB_URL": url_of(server), "HUB_TOKEN": text})
    line = await ended(process, 1, *([text] if text else []))
    assert line.startswith("hub: ")
    assert word in line
    assert process.out == ""


async def test_what_anybody_may_read_needs_no_token(server: Server, run: Run) -> None:
    listening = await run("listen", "news", "-n", "1", environ={"HUB_URL": url_of(server)})
    await listening.tells("hub.open")
    server.send("for all", topic="news")
    assert await listening.end() == 0
    assert listening.out == "for all\n"


@pytest.mark.parametrize("how", ["the stream", "the token", "the user", "expiry"])
async def test_a_stream_whose_rights_end_is_not_opened_again(server: Server, run: Run, how: str) -> None:
    text = token("tom", seconds=6 if how == "expiry" else 3600, jti="one", hub=RIGHTS)
    listening = await run("listen", "orders", environ={"HUB_URL": url_of(server), "HUB_TOKEN": text})
    if how != "expiry":
        await listening.tells("hub.open")
        (stream,) = server.hub.connections
        path = {
            "the stream": f"/notifications/connections/{stream.id}",
            "the token": "/notifications/tokens/one",
            "the user": "/notifications/users/tom/connections",
        }[how]
        root = {"Authorization": f"Bearer {token('root', hub={'admin': True})}"}
        assert (await server.ask("DELETE", path, headers=root)).status == 204
    line = await ended(listening, 1, text)
    assert line == (
        "hub: the token has expired" if how == "expiry" else "hub: your rights, or this stream, were revoked"
    )
    assert "coming back" not in listening.err


async def test_a_token_that_expires_is_read_again_from_its_file(server: Server, run: Run, tmp_path: Path) -> None:
    old, new = token("tom", seconds=15, hub=RIGHTS), token("tom", hub=RIGHTS)
    file = tmp_path / "token"
    file.write_text(old)
    listening = await run("listen", "orders", "-n", "2", "--token-file", "token", environ={"HUB_URL": url_of(server)})
    await listening.tells("hub.open")
    server.send("before", topic="orders")
    await until(lambda: listening.out == "before\n")
    renewed = tmp_path / "renewed"
    renewed.write_text(new)
    renewed.replace(file)
    await listening.tells("token_expired")
    server.send("meanwhile", topic="orders")
    await ended(listening, 0, old, new)
    assert listening.out == "before\nmeanwhile\n"


async def test_a_file_with_an_expired_token_ends_the_command_once_it_is_refused(
    serve: Serve, run: Run, tmp_path: Path
) -> None:
    server = await serve(setup={"routes": None}, jwt_secret=SECRET, jwt_leeway=0, heartbeat=0.3)
    text = token("tom", seconds=6, hub=RIGHTS)
    (tmp_path / "token").write_text(text)
    listening = await run("listen", "orders", "--token-file", "token", environ={"HUB_URL": url_of(server)})
    assert await ended(listening, 1, text) == "hub: the token has expired: get a new one"


async def test_standard_input_is_not_both_the_token_and_what_is_published(server: Server, run: Run) -> None:
    process = await run("publish", "--token-file", "-", "--url", url_of(server), stdin="a token\n")
    assert "standard input" in await ended(process, 2)


# ---- a hub that can not say for now ----


class Moody:
    """A hub that answers subscriptions with what it is told, one after the other, and keeps their headers."""

    def __init__(self, *answers: Callable[[], web.Response]) -> None:
        self.answers = list(answers)
        self.tokens: list[str | None] = []

    async def subscribe(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization"))
        return self.answers.pop(0)() if len(self.answers) > 1 else self.answers[0]()


Start = Callable[[Moody], Awaitable[str]]


@pytest.fixture
async def moody() -> AsyncIterator[Start]:
    runners: list[web.AppRunner] = []

    async def start(hub: Moody) -> str:
        app = web.Application()
        app.router.add_get("/notifications/subscribe", hub.subscribe)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def problem(status: int, **facts: object) -> Callable[[], web.Response]:
    body = json.dumps({"detail": "not now", **facts})
    return lambda: web.Response(
        status=status, text=body, content_type="application/problem+json", headers={"Retry-After": "0"}
    )


def stream(text: str) -> Callable[[], web.Response]:
    return lambda: web.Response(text=text, content_type="text/event-stream")


OPEN = 'retry: 10\nid: e-1\nevent: hub.open\ndata: {"recovered":null}\n\n'
ONE = 'id: e-2\ndata: {"topic":"a","data":"one"}\n\n'


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_refusal_that_passes_is_waited_out(moody: Start, run: Run, status: int) -> None:
    hub = Moody(problem(status, code="auth_unavailable"), stream(OPEN + ONE))
    listening = await run("listen", "a", "-n", "1", "--url", await moody(hub))
    assert await listening.end() == 0
    assert listening.out == "one\n"
    assert "# not now" in listening.err


@pytest.mark.parametrize("reason", ["auth_unavailable", "capacity", "draining", "log_unavailable", "shutdown", "new"])
async def test_an_end_that_passes_is_waited_out(moody: Start, run: Run, reason: str) -> None:
    close = f'event: hub.close\nretry: 10\ndata: {{"reason":"{reason}"}}\n\n'
    hub = Moody(stream(close), stream(OPEN + ONE))
    listening = await run("listen", "a", "-n", "1", "--url", await moody(hub))
    assert await listening.end() == 0
    assert listening.out == "one\n"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ('{"reason":"unauthorized"}', "HUB_TOKEN"),
        ('{"reason":"token_invalid"}', "the token is not valid"),
        ('{"reason":"token_expired"}', "the token has expired"),
        ('{"reason":"revoked"}', "revoked"),
        ('{"reason":"forbidden","topic":"a"}', "a: you may not read it"),
        ('{"reason":"replaced"}', "a newer stream"),
    ],
)
async def test_an_end_that_stays_ends_the_command(moody: Start, run: Run, data: str, line: str) -> None:
    hub = Moody(stream(f"event: hub.close\nretry: 10\ndata: {data}\n\n"))
    listening = await run("listen", "a", "--url", await moody(hub))
    assert line in await ended(listening, 1)
    assert len(hub.tokens) == 1


@pytest.mark.parametrize("data", ["", "null", "[]", "{}", '{"reason":null}', "no JSON"])
async def test_an_end_without_a_reason_is_waited_out(moody: Start, run: Run, data: str) -> None:
    hub = Moody(stream(f"event: hub.close\nretry: 10\ndata: {data}\n\n"), stream(OPEN + ONE))
    listening = await run("listen", "a", "-n", "1", "--url", await moody(hub))
    assert await listening.end() == 0


async def test_a_proxy_without_a_hub_is_waited_out_once_the_hub_was_there(moody: Start, run: Run) -> None:
    hub = Moody(stream(OPEN), lambda: web.Response(status=502, text="<h1>Bad Gateway</h1>"), stream(OPEN + ONE))
    listening = await run("listen", "a", "-n", "1", "--url", await moody(hub))
    assert await listening.end() == 0
    assert "502" in listening.err


async def test_no_redirect_is_followed_and_the_error_says_where_it_leads(moody: Start, run: Run) -> None:
    other = Moody(stream(OPEN + ONE))
    elsewhere = f"{await moody(other)}/notifications/subscribe"
    hub = Moody(lambda: web.Response(status=307, headers={"Location": f"{elsewhere}?ticket=my.own.ticket"}))
    url = await moody(hub)
    listening = await run("listen", "a", "-n", "1", "--url", url, environ={"HUB_TOKEN": "my.own.token"})
    assert await listening.end() == 1
    assert f"a redirect to {elsewhere})" in listening.err
    assert "my.own" not in listening.err
    assert (hub.tokens, other.tokens) == (["Bearer my.own.token"], [])
