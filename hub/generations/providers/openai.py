"""The provider for OpenAI-compatible APIs, through OpenAI's own client (the extra `openai`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from hub.errors import InvalidSettings
from hub.generations.providers.provider import Delta, Prompt, ProviderError

try:
    import httpx
    import openai
except ImportError:
    raise InvalidSettings(["ai_provider (HUB_AI_PROVIDER): the client is not installed: pip install openai"]) from None

_BROKE = "the connection to the provider broke"
_REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (openai.RateLimitError, "rate_limited", "the provider has too much to do"),
    (openai.AuthenticationError, "provider_refused", "the provider does not accept the hub's key"),
    (openai.PermissionDeniedError, "provider_refused", "the provider does not allow this"),
    (openai.BadRequestError, "invalid_request", "the provider does not understand the request"),
    (openai.NotFoundError, "invalid_request", "the provider has no such model"),
    (openai.APITimeoutError, "timeout", "the provider did not answer in time"),
    (openai.APIConnectionError, "provider_disconnected", _BROKE),
    # The client does not convert connection errors after the headers, nor answers that are not JSON.
    (httpx.TimeoutException, "timeout", "the provider said nothing for too long"),
    (httpx.HTTPError, "provider_disconnected", _BROKE),
    (ValueError, "provider_malformed", "the provider sent something unreadable"),
)


class OpenAIProvider:
    """A provider that streams chat completions.

    Args:
        base_url: the address of the API; None: the value of `OPENAI_BASE_URL`, or else OpenAI's own API.
        api_key: the key; None: the value of `OPENAI_API_KEY`, but only without a *base_url*, so that OpenAI's key is
            sent to nobody else.
        model: the model for prompts that name none.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None, model: str | None = None) -> None:
        if base_url is not None and api_key is None:
            api_key = "none"
        try:
            # A retry would generate a second answer, which the caller has to decide.
            self._client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)
        except openai.OpenAIError as error:
            raise InvalidSettings([f"ai_api_key (HUB_AI_API_KEY): {error}"]) from None
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the answer of the model; closing the generator closes the request, and the provider stops."""
        said = complete = False
        try:
            answer = await self._client.chat.completions.create(**self._request(prompt))
            async with answer:
                async for chunk in answer:
                    for delta in _deltas(chunk):
                        said, complete = said or bool(delta.text), complete or bool(delta.finish_reason)
                        yield delta
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            if not complete:  # otherwise the answer is complete, and only its usage may be missing
                raise _explained(error, said) from error
        if not complete:  # a connection that is closed in the middle would look like a normal end
            raise ProviderError("provider_disconnected", _BROKE, "no finish_reason")

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        model = prompt.model or self._model
        if model is None:
            raise ProviderError("invalid_request", "no model is named, and none is set")
        options = {name: value for name, value in prompt.options.items() if name not in {"stream", "stream_options"}}
        return {
            "model": model,
            "messages": list(prompt.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "extra_body": options,
        }

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.close()


def _deltas(chunk: Any) -> list[Delta]:
    """Return the deltas of the first choice in *chunk*, and one with the usage, if the chunk has it."""
    usage = chunk.usage.model_dump(exclude_none=True) if getattr(chunk, "usage", None) else None
    deltas = [
        Delta((choice.delta.content if choice.delta else None) or "", choice.finish_reason)
        for choice in chunk.choices or ()
        if choice.index == 0
    ]
    return [*deltas, Delta(usage=usage)] if usage else deltas


def _explained(error: Exception, said: bool) -> ProviderError:
    """Return *error* as a `ProviderError` without any text of the question or the answer, for clients and the log."""
    for kind, reason, message in _REASONS:
        if isinstance(error, kind):
            return ProviderError(reason, message, type(error).__name__)
    message = "the provider failed in the middle of the answer" if said else "the provider failed"
    return ProviderError("provider_failed", message, type(error).__name__)
