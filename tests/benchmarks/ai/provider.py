"""A provider that speaks by the clock: each token says which one it is and when it was due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from hub import Delta, Prompt


class Metronome:
    """Says `tokens` tokens, `rate` a second from `begin` on, a moment of the monotonic clock in seconds.

    What it says late it says at once: how far behind the server is shows in the tokens, and nothing is left out.
    """

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the tokens that the prompt's options ask for."""
        tokens, rate, begin = (prompt.options[name] for name in ("tokens", "rate", "begin"))
        for number in range(tokens):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield Delta(f"{number}:{due * 1e9:.0f} ")
        yield Delta(finish_reason="stop")

    async def aclose(self) -> None:
        """Hold nothing, let go of nothing."""
