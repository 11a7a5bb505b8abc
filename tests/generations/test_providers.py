"""Who answers: found by name, and the one that makes things up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.errors import InvalidSettings
from hub.generations.providers.choice import make_provider
from hub.generations.providers.provider import Delta, Prompt, ProviderError
from hub.generations.providers.simulated import SimulatedProvider
from hub.settings import Settings

ASKED = Prompt([{"role": "user", "content": "hi there"}])


async def said(provider: SimulatedProvider, prompt: Prompt = ASKED) -> list[Delta]:
    return [delta async for delta in provider.stream(prompt)]


def fast(**options: int) -> SimulatedProvider:
    return SimulatedProvider(first=0.0, rate=1e6, **options)


# ---- by name ----


def test_by_default_nobody_answers():
    assert make_provider(Settings()) is None
    assert make_provider(Settings.load({}, environ={"HUB_AI_PROVIDER": ""})) is None
    assert make_provider(Settings(ai_provider="application")) is None


def test_the_simulated_provider_makes_words_up():
    settings = Settings(ai_provider="simulated", ai_simulated_tokens=7, ai_simulated_first=0.5, ai_simulated_rate=3)
    assert make_provider(settings) == SimulatedProvider(tokens=7, first=0.5, rate=3)


def test_a_class_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_answers.py").write_text(
        "class Mute:\n    async def stream(self, prompt):\n        return\n        yield\n"
        "    async def aclose(self):\n        pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    provider = make_provider(Settings(ai_provider="my_answers:Mute"))
    assert type(provider).__qualname__ == "Mute"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module_at_all:A", "ModuleNotFoundError"),
        ("hub.generations.providers.provider:Parrot", "AttributeError"),
        ("hub.generations.providers.provider:Prompt", "TypeError"),
        ("builtins:object", r"it has no stream\(\)"),
    ],
)
def test_what_is_no_provider_stops_the_start(name: str, why: str):
    with pytest.raises(InvalidSettings, match=rf"ai_provider \(HUB_AI_PROVIDER\): {name} .*{why}"):
        make_provider(Settings(ai_provider=name))


@pytest.mark.parametrize("name", [" ", "open ai", "parrot", "a:b:c", "a.:B", "1a:B", "a:B.C", "a-b:C"])
def test_what_is_no_name_of_a_provider_is_refused(name: str):
    with pytest.raises(InvalidSettings, match=r"answers\.mine:Parrot"):
        Settings.load({"ai_provider": name}, environ={})


# ---- what is asked ----


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("hi", "hi"),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}, {"text": "b"}], "ab"),
        ([{"text": 1}, "text"], ""),
        (None, ""),
    ],
)
def test_the_question_is_the_text_of_the_last_message(content: object, question: str):
    assert Prompt([{"role": "user", "content": "before"}, {"role": "user", "content": content}]).question == question


def test_a_digest_tells_questions_apart():
    first = Prompt([{"role": "user", "content": "a"}], "m", {"x": 1, "y": 2})
    assert first.digest == Prompt([{"content": "a", "role": "user"}], "m", {"y": 2, "x": 1}).digest
    others = (first._replace(model=None), first._replace(options={}), first._replace(messages=[]))
    assert len({first.digest, *(other.digest for other in others)}) == 4


# ---- simulated ----


async def test_the_same_prompt_gets_the_same_answer_and_another_seed_another():
    first, second, other = await said(fast()), await said(fast()), await said(fast(seed=1))
    assert first == second != other
    assert "".join(delta.text for delta in first).startswith("You asked: hi there")


async def test_it_has_the_tokens_it_was_told_and_says_what_it_cost():
    *pieces, last = await said(fast(tokens=100))
    assert len(pieces) >= 100
    assert last.finish_reason == "stop"
    assert last.usage == {"prompt_tokens": 2, "completion_tokens": len(pieces), "total_tokens": len(pieces) + 2}


@pytest.mark.parametrize(
    ("knob", "reason"), [("fail_after", "provider_failed"), ("disconnect_after", "provider_disconnected")]
)
async def test_it_misbehaves_where_it_was_told(knob: str, reason: str):
    heard: list[Delta] = []

    async def listen() -> None:
        async for delta in fast(**{knob: 5}).stream(ASKED):
            heard.append(delta)

    with pytest.raises(ProviderError, match=reason):
        await listen()
    assert len(heard) == 5


async def test_it_hangs_where_it_was_told_and_can_be_closed_there():
    stream = fast(hang_after=2).stream(ASKED)
    for _ in range(2):
        await anext(stream)
    hanging = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])
    await stream.aclose()
