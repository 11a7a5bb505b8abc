"""A provider without a model: the same prompt gets the same answer, at a given speed and with given failures."""

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
    """A provider that makes up answers; their text depends only on the prompt and the *seed*.

    Attributes:
        seed: another seed gives another text.
        tokens: minimum number of pieces of an answer.
        first: seconds until the first piece.
        rate: pieces a second, above 0.
        jitter: maximum random change of the time between two pieces, as a share of it, 0 to 1.
        fail_after: number of pieces after which the provider fails; None: never.
        hang_after: number of pieces after which it sends nothing more and does not end; None: never.
        disconnect_after: number of pieces after which the connection to it breaks; None: never.
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
        """Yield the answer to *prompt*, piece by piece, then the finish reason and the usage."""
        asked = prompt.question
        chance = random.Random(f"{self.seed}:{asked}")
        pieces = self._pieces(asked, chance)
        await asyncio.sleep(self.first)
        for number, piece in enumerate(pieces):
            await self._fail_if_due(number)
            if number:
                await asyncio.sleep((1 + self.jitter * chance.uniform(-1, 1)) / self.rate)
            yield Delta(piece)
        await self._fail_if_due(len(pieces))
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

    async def _fail_if_due(self, said: int) -> None:
        if said == self.fail_after:
            raise ProviderError("provider_failed", "the provider failed")
        if said == self.disconnect_after:
            raise ProviderError("provider_disconnected", "the connection to the provider broke")
        if said == self.hang_after:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Do nothing: there is no resource to release."""
