"""A hub whose provider is the test, and what a client makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from hub.generations.providers.provider import Delta, Prompt
from tests.spec_decoder import Event
from tests.web.client import Client, StreamEnded, until
from tests.web.server import Server

PATH = "/ai/chat/stream"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
AWAY = {"draining": rb"[1-6][0-9]{3}", "capacity": rb"[1-6][0-9]{4}", "log_unavailable": rb"(?:10|[2-9])[0-9]{3}"}


def away(reason: str, limit: str = "") -> bytes:
    """Return the pattern of an answer that sends a client away, because of *limit* if that is not empty."""
    facts = f'"reason":"{reason}"' + (f',"limit":"{limit}"' if limit else "")
    return rb"retry: %b\nevent: hub\.close\ndata: \{%b\}\n\n" % (AWAY[reason], facts.encode())


class Answering:
    """One answer of the provider, which comes as the test says.

    Attributes:
        closed: it is over, for whatever reason.
    """

    def __init__(self) -> None:
        self.closed = False
        self._more: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._more.put_nowait(Delta(piece))

    def finish(self) -> None:
        self._more.put_nowait(Delta("", "stop", USAGE))
        self._more.put_nowait(None)

    def fail(self, error: Exception) -> None:
        self._more.put_nowait(error)

    async def stream(self) -> AsyncGenerator[Delta, None]:
        try:
            while (what := await self._more.get()) is not None:
                if isinstance(what, Exception):
                    raise what
                yield what
        finally:
            self.closed = True


class Scripted:
    """A provider that says what the test says.

    Attributes:
        prompts: what it was asked, in order.
        answers: what it answers, in the same order.
    """

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.answers: list[Answering] = []

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        self.prompts.append(prompt)
        self.answers.append(Answering())
        return self.answers[-1].stream()

    async def aclose(self) -> None:
        """Hold nothing, let go of nothing."""

    async def answer(self, number: int = 0) -> Answering:
        await until(lambda: len(self.answers) > number)
        return self.answers[number]


class Chat:
    """A hub whose provider is the test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.provider = server.hub.provider = Scripted()

    async def begin(self) -> tuple[str, Answering]:
        """Begin a generation; return its id, and the provider's end of it."""
        number = len(self.provider.answers)
        answer = await self.server.post(PATH + "/init", {"message": "hi"})
        assert answer.status == 201, answer.body
        return answer.json()["sessionId"], await self.provider.answer(number)

    async def said(self, id: str, text: str) -> None:
        """Return when the generation *id* has said *text*."""
        stream = await self.server.hub.generations.find(id)
        await until(lambda: stream.text() == text)

    async def finished(self, *pieces: str) -> str:
        """Let a generation say *pieces*, each a part of its own, and end; return its id."""
        id, answering = await self.begin()
        answering.say(*pieces)
        answering.finish()
        await (await self.server.hub.generations.find(id)).ended()
        return id

    async def open(self, path: str, method: str = "GET", **options: Any) -> Client:
        """Open a stream."""
        client = await self.server.client()
        await client.request(method, path, **options)
        assert await client.head() == 200
        assert client.headers["Content-Type"] == "text/event-stream"
        return client

    async def watch(self, id: str, after: str | None = None, query: str = "") -> Client:
        """Watch the generation *id*, from the id *after* on, and read its start."""
        client = await self.open(f"{PATH}/{id}{query}", headers={} if after is None else {"Last-Event-ID": after})
        await client.next("start")
        return client


def text(events: list[Event]) -> str:
    """The text that a client puts together from *events*."""
    return "".join(each.json()["content"] for each in events if each.type == "message" and each.data != "[DONE]")


def kinds(events: list[Event]) -> list[str]:
    return [each.data if each.data == "[DONE]" else each.type for each in events]


async def raw(client: Client) -> bytes:
    """All that comes, framing and all, until the server ends."""
    received = b""
    while True:
        try:
            received += await client.at_most(1 << 20)
        except StreamEnded:
            return received
