"""What every provider of answers does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

_to_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False).encode


class Prompt(NamedTuple):
    """What is asked.

    Attributes:
        messages: the conversation, each message with `role` and `content`; the last one is to be answered.
        model: which model is to answer; None: the provider's choice.
        options: what else the provider may understand (`temperature`, `max_tokens`, …).
    """

    messages: Sequence[Mapping[str, Any]]
    model: str | None = None
    options: Mapping[str, Any] = {}

    @property
    def question(self) -> str:
        """The text of the last message; of one in parts, that of its text parts."""
        content = self.messages[-1].get("content", "") if self.messages else ""
        if isinstance(content, str):
            return content
        texts = (part.get("text") for part in content or () if isinstance(part, Mapping))
        return "".join(text for text in texts if isinstance(text, str))

    @property
    def digest(self) -> str:
        """A short name of the question: another one has another.

        Raises:
            ValueError, RecursionError: JSON in UTF-8 can't carry the question.
        """
        return hashlib.sha256(_to_json(self).encode()).hexdigest()


class Delta(NamedTuple):
    """What a provider says next.

    Attributes:
        text: a piece of the answer; may be empty.
        finish_reason: in one of the last, why the answer ends: `stop`, `length`, …
        usage: in one of the last, what it cost: tokens by kind.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


class ProviderError(Exception):
    """The provider can't answer, or not to the end. Raised by providers, for viewers; no `HubError`, for nobody else.

    Attributes:
        reason: a word for programs, such as `rate_limited`.
        message: a sentence for people; clients get it as it is.
        detail: what the hub's own log may say beside that.
    """

    def __init__(self, reason: str, message: str, detail: str = "") -> None:
        super().__init__(reason, message, detail)
        self.reason, self.message, self.detail = reason, message, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" + (f" ({self.detail})" if self.detail else "")


class Provider(Protocol):
    """Answers prompts, piece by piece."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Return the answer as it is made. Closing the generator stops the making at once.

        It raises `ProviderError` if it can't go on.
        """
        ...

    async def aclose(self) -> None:
        """Let go of every resource."""
        ...
