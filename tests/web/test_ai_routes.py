"""Which routes of AI answers there are: all with a provider, some where the application begins answers, else none."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web

from hub import HUB, Settings, setup_hub
from hub.generations.providers.provider import Delta, Prompt
from tests.spec_decoder import SpecDecoder
from tests.web.conftest import Serve
from tests.web.process import ServeProcess
from tests.web.server import Answer, Server

PATH = "/ai/chat/stream"
BEGINNING = [("POST", PATH + "/init"), ("POST", PATH), ("GET", PATH + "?message=hi"), ("OPTIONS", PATH)]
WATCHING = [
    ("GET", PATH + "/{id}"),
    ("DELETE", PATH + "/{id}"),
    ("POST", PATH + "/{id}/cancel"),
    ("HEAD", PATH + "/{id}"),
]


class Parrot:
    """Says what was asked.

    Attributes:
        closed: how often it was closed.
    """

    def __init__(self) -> None:
        self.closed = 0

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        yield Delta(prompt.question)
        yield Delta(finish_reason="stop")

    async def aclose(self) -> None:
        self.closed += 1


async def ask(server: Server, method: str, path: str, id: str = "") -> Answer:
    said = {"Content-Type": "application/json"}
    body = b'{"message": "hi"}' if method == "POST" else None
    return await server.ask(method, server.prefix + path.format(id=id), headers=said, body=body)


def text_of(stream: bytes) -> str:
    """Return the text that a finished *stream* has told."""
    return "".join(each.json()["content"] for each in SpecDecoder().feed(stream) if each.data.startswith('{"content"'))


@pytest.mark.parametrize("prefix", ["", "/live"])
async def test_without_a_provider_there_are_no_ai_routes(serve: Serve, prefix: str) -> None:
    server = await serve(prefix=prefix)
    assert server.hub.provider is None
    own = await server.hub.generations.begin()
    own.append("still works")
    unknown = await ask(server, "GET", "/nothing")
    for method, path in [*BEGINNING, *WATCHING]:
        answer = await ask(server, method, path, own.id)
        assert (answer.status, answer.headers["Content-Type"]) == (404, unknown.headers["Content-Type"]), (method, path)
        assert method == "HEAD" or answer.body == unknown.body
    assert server.hub.generations.streaming == 1
    own.finish()
    assert own.text() == "still works"


async def test_an_application_that_begins_answers_itself_has_the_routes_to_watch_and_stop_them(serve: Serve) -> None:
    server = await serve(ai_provider="application", ai_window=0)
    assert server.hub.provider is None
    for method, path in BEGINNING[1:]:
        assert (await ask(server, method, path)).status == 404, (method, path)
    init = await ask(server, *BEGINNING[0])
    assert (init.status, init.headers["Allow"]) == (405, "DELETE, GET, OPTIONS"), "the name of an answer, if of any"
    own = await server.hub.generations.begin()
    own.append("all is well")
    own.finish()
    assert text_of((await ask(server, "GET", f"{PATH}/{own.id}")).body) == "all is well"
    for method, path in WATCHING[1:3]:
        endless = await server.hub.generations.begin()
        assert (await ask(server, method, path, endless.id)).json() == {"sessionId": endless.id, "phase": "cancelled"}


async def test_a_provider_that_is_given_answers_whatever_the_settings_name(serve: Serve) -> None:
    for named in (None, "simulated", "application"):
        parrot = Parrot()
        app = web.Application()
        hub = setup_hub(app, Settings(drain=0, ai_provider=named), provider=parrot, routes="all")
        assert app[HUB].provider is hub.provider is parrot
        outer = web.Application()
        outer.add_subapp("/part", app)
        server = await serve(app=outer, prefix="/other")
        answer = await server.ask("GET", f"/part{PATH}?message=hello")
        assert text_of(answer.body) == "hello"
        await server.aclose_server()
        assert parrot.closed == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 404),
        (("--demo",), 201),
        (("--demo", "--ai-provider", ""), 201),
        (("--demo", "--ai-provider", "application"), 405),
        (("--ai-provider", "simulated"), 201),
    ],
)
async def test_the_demo_answers_by_itself_unless_something_else_is_set(arguments: tuple[str, ...], status: int) -> None:
    hub = await ServeProcess.start("serve", "--port", "0", "--drain", "0", *arguments)
    try:
        await hub.listening()
        answer = await hub.site.post(PATH + "/init", {"message": "hi"})
        assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (
            status,
            "application/json" if status == 201 else "application/problem+json",
        )
    finally:
        await hub.aclose()
