"""Any OpenAI-compatible API, through OpenAI's own client (the extra `openai`)."""

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
    # The client explains no error of the line behind the headers, and no answer that is not JSON.
    (httpx.TimeoutException, "timeout", "the provider said nothing for too long"),
    (httpx.HTTPError, "provider_disconnected", _BROKE),
    (ValueError, "provider_malformed", "the provider sent something unreadable"),
)


class OpenAIProvider:
    """Streams chat completions.

    Args:
        base_url: where the API is; None: OpenAI's own, or what `OPENAI_BASE_URL` says.
        api_key: None: what `OPENAI_API_KEY` says, but only without a *base_url*: OpenAI's key goes nowhere else.
        model: what answers where the prompt names nothing.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None, model: str | None = None) -> None:
        if base_url is not None and api_key is None:
            api_key = "none"
        try:
            # A second attempt would be a second answer: whoever asked decides about that.
            self._client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)
        except openai.OpenAIError as error:
            raise InvalidSettings([f"ai_api_key (HUB_AI_API_KEY): {error}"]) from None
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield what the model says; closing this closes the request, and the provider stops."""
        said = complete = False
        try:
            answer = await self._client.chat.completions.create(**self._request(prompt))
            async with answer:
                async for chunk in answer:
                    for delta in _deltas(chunk):
                        said, complete = said or bool(delta.text), complete or bool(delta.finish_reason)
                        yield delta
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            if not complete:  # else all is said; only what the answer cost may be missing
                raise _explained(error, said) from error
        if not complete:  # a connection that is closed in the middle looks like an end otherwise
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
    """Return what one chunk says."""
    usage = chunk.usage.model_dump(exclude_none=True) if getattr(chunk, "usage", None) else None
    deltas = [
        Delta((choice.delta.content if choice.delta else None) or "", choice.finish_reason)
        for choice in chunk.choices or ()
        if choice.index == 0
    ]
    return [*deltas, Delta(usage=usage)] if usage else deltas


def _explained(error: Exception, said: bool) -> ProviderError:
    """Return *error* in the hub's words: nothing of what was asked or answered reaches a client, or the log."""
    for kind, reason, message in _REASONS:
        if isinstance(error, kind):
            return ProviderError(reason, message, type(error).__name__)
    message = "the provider failed in the middle of the answer" if said else "the provider failed"
    return ProviderError("provider_failed", message, type(error).__name__)
