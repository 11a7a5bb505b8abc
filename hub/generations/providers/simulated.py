"""A provider without a model: it says the same to the same prompt, as fast and as badly as it is told to."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from hub.generations.providers.provider import Delta, Prompt, ProviderError

_TEXT = (
    "a the hub stream token answer event browser server client connection message order time every one other "
    "first last when while until then now here never always sends keeps waits resumes arrives begins ends and or "
    "but because so that which with without before after between across quickly quietly exactly once again"
)
_WORDS = tuple(_TEXT.split())
_PIECES = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True)
class SimulatedProvider:
    """Makes up an answer of at least *tokens* pieces; what it says depends on the prompt and the *seed* alone.

    Attributes:
        seed: changes what is said.
        tokens: how many pieces an answer has, at least.
        first: seconds until the first piece.
        rate: pieces a second, above 0.
        jitter: by which part of the time between two pieces that time may differ, 0 to 1.
        fail_after: pieces after which the provider fails; None: it does not.
        hang_after: pieces after which it says nothing more, and does not end; None: it does not.
        disconnect_after: pieces after which the line to it breaks; None: it does not.
    """

    seed: int = 0
    tokens: int = 60
    first: float = 0.3
    rate: float = 40.0
    jitter: float = 0.25
    fail_after: int | None = None
    hang_after: int | None = None
    disconnect_after: int | None = None

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Say something about the prompt, piece by piece."""
        asked = prompt.question
        chance = random.Random(f"{self.seed}:{asked}")
        pieces = self._pieces(asked, chance)
        await asyncio.sleep(self.first)
        for number, piece in enumerate(pieces):
            await self._misbehave(number)
            if number:
                await asyncio.sleep((1 + self.jitter * chance.uniform(-1, 1)) / self.rate)
            yield Delta(piece)
        await self._misbehave(len(pieces))
        words = len(asked.split())
        yield Delta(
            finish_reason="stop",
            usage={"prompt_tokens": words, "completion_tokens": len(pieces), "total_tokens": words + len(pieces)},
        )

    def _pieces(self, asked: str, chance: random.Random) -> list[str]:
        pieces = _PIECES.findall(f"You asked: {asked[:200]}\n\n") if asked else []
        while len(pieces) < self.tokens:
            length = chance.randint(6, 14)
            words = [chance.choice(_WORDS) for _ in range(length)]
            pieces += [words[0].capitalize(), *(f" {word}" for word in words[1:-1]), f" {words[-1]}. "]
        return pieces

    async def _misbehave(self, said: int) -> None:
        if said == self.fail_after:
            raise ProviderError("provider_failed", "the provider failed")
        if said == self.disconnect_after:
            raise ProviderError("provider_disconnected", "the connection to the provider broke")
        if said == self.hang_after:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Hold nothing, let go of nothing."""
