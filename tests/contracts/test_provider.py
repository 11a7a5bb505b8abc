"""What every provider does, whoever makes the text."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hub.generations.providers.provider import Delta, Prompt, Provider, ProviderError
from hub.generations.providers.simulated import SimulatedProvider
from tests.ai.conftest import missing
from tests.snippets import snippet
from tests.web.client import until

ASKED = Prompt([{"role": "user", "content": "one two three politics"}], "m")
WORDS = ("one ", "two ", "three ")


class Api:
    """An API that speaks as OpenAI's does, and says the words of the question slowly.

    Attributes:
        open: how many answers are under way.
    """

    def __init__(self) -> None:
        self.open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["messages"][-1]["content"].split()
        self.open += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for word in asked:
                if word == "politics":
                    break  # in the middle of the answer
                choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
                await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                await asyncio.sleep(0.01)
                if word == "cut":
                    assert request.transport is not None
                    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
                    await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                    request.transport.abort()
            else:
                choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
                await response.write(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode())
            return response
        finally:
            self.open -= 1


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    api = Api()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", api.answer)
    async with TestServer(app, handler_cancellation=True) as server:
        yield api, str(server.make_url("/v1"))


@pytest.fixture(params=["simulated", "documented", "openai"])
async def provider(request: pytest.FixtureRequest, api: tuple[Api, str]) -> AsyncIterator[Provider]:
    provider: Provider
    if request.param == "simulated":
        provider = SimulatedProvider(tokens=1, first=0, rate=1_000, fail_after=6)  # the words of the question
    elif request.param == "documented":
        names: dict[str, type[Provider]] = {}
        exec(snippet("howto/stream-ai-tokens.md", "answers_of_mine.py").partition("async def summary")[0], names)
        provider = names["Parrot"]()
    else:
        if importlib.util.find_spec("openai") is None:
            missing("the package openai")
        from hub.generations.providers.openai import OpenAIProvider

        provider = OpenAIProvider(api[1])
    yield provider
    await provider.aclose()


def plain(prompt: Prompt) -> Prompt:
    return prompt._replace(messages=[{"role": "user", "content": prompt.question.removesuffix(" politics")}])


async def said(provider: Provider, prompt: Prompt) -> list[Delta]:
    return [delta async for delta in provider.stream(prompt)]


async def test_it_says_pieces_and_why_it_ends(provider: Provider):
    deltas = await said(provider, plain(ASKED))
    text = "".join(delta.text for delta in deltas)
    assert "one two three" in text
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert all(isinstance(delta, Delta) for delta in deltas)


async def test_answers_at_the_same_time_are_not_mixed_up(provider: Provider):
    asked = [plain(ASKED)._replace(messages=[{"role": "user", "content": f"{word} again"}]) for word in ("a", "b")]
    answers = await asyncio.gather(*(said(provider, prompt) for prompt in asked))
    for word, deltas in zip(("a", "b"), answers, strict=True):
        assert f"{word} again" in "".join(delta.text for delta in deltas)


async def test_closing_the_answer_stops_the_making_of_it(provider: Provider, api: tuple[Api, str]):
    stream = provider.stream(plain(ASKED))
    while not (await anext(stream)).text:
        pass
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await until(lambda: api[0].open == 0)


async def test_what_goes_wrong_in_the_middle_is_told_in_words_for_people(provider: Provider):
    heard: list[Delta] = []

    async def listen() -> None:
        async for delta in provider.stream(ASKED):
            heard.append(delta)

    with pytest.raises(ProviderError) as caught:
        await listen()
    assert any(delta.text for delta in heard)
    assert caught.value.reason.isidentifier()
    assert caught.value.message


# ---- what only the one for OpenAI's API can get wrong ----


@pytest.fixture
async def openai(api: tuple[Api, str]) -> AsyncIterator[Provider]:
    if importlib.util.find_spec("openai") is None:
        missing("the package openai")
    from hub.generations.providers.openai import OpenAIProvider

    provider = OpenAIProvider(api[1])
    yield provider
    await provider.aclose()


async def test_a_line_that_breaks_behind_the_last_word_breaks_nothing(openai: Provider):
    deltas = await said(openai, ASKED._replace(messages=[{"role": "user", "content": "one two cut"}]))
    assert "".join(delta.text for delta in deltas) == "one two cut "
    assert deltas[-1].finish_reason == "stop"


async def test_nothing_of_what_was_asked_is_in_what_is_logged(openai: Provider):
    with pytest.raises(ProviderError) as caught:
        await said(openai, ASKED._replace(messages=[{"role": "user", "content": "secret \ud800"}]))
    assert "secret" not in str(caught.value)
