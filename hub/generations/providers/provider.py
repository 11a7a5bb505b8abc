"""The protocol of a provider, and its values: prompts, deltas and errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

_to_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False).encode


class Prompt(NamedTuple):
    """A conversation whose last message is to be answered.

    Attributes:
        messages: the messages, each with `role` and `content`.
        model: the model that should answer; None: the provider's choice.
        options: further options that the provider may know (`temperature`, `max_tokens`, …).
    """

    messages: Sequence[Mapping[str, Any]]
    model: str | None = None
    options: Mapping[str, Any] = {}

    @property
    def question(self) -> str:
        """The text of the last message; if it consists of parts, the joined text of its text parts."""
        content = self.messages[-1].get("content", "") if self.messages else ""
        if isinstance(content, str):
            return content
        texts = (part.get("text") for part in content or () if isinstance(part, Mapping))
        return "".join(text for text in texts if isinstance(text, str))

    @property
    def digest(self) -> str:
        """A digest of the prompt (SHA-256, in hexadecimal): different prompts have different digests.

        Raises:
            ValueError, RecursionError: the prompt can't be written as JSON in UTF-8.
        """
        return hashlib.sha256(_to_json(self).encode()).hexdigest()


class Delta(NamedTuple):
    """The next piece that a provider yields.

    Attributes:
        text: a piece of the answer; may be empty.
        finish_reason: in one of the last deltas, why the answer ends: `stop`, `length`, …
        usage: in one of the last deltas, the numbers of tokens by kind.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


class ProviderError(Exception):
    """The provider can't answer, or can't complete the answer.

    Providers raise it, and the hub tells the viewers. No caller of the hub gets it, so it is no `HubError`.

    Attributes:
        reason: a word for programs, such as `rate_limited`.
        message: a sentence for people; clients get it unchanged.
        detail: additional text for the hub's own log only.
    """

    def __init__(self, reason: str, message: str, detail: str = "") -> None:
        super().__init__(reason, message, detail)
        self.reason, self.message, self.detail = reason, message, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" + (f" ({self.detail})" if self.detail else "")


class Provider(Protocol):
    """A model, or an API in front of one, that answers prompts piece by piece."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Return a generator of the answer. Closing it stops the generation at once.

        The generator raises `ProviderError` if it can't go on.
        """
        ...

    async def aclose(self) -> None:
        """Release every resource."""
        ...
