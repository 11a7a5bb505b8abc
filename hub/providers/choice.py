"""From the settings to the provider that answers."""

from __future__ import annotations

from hub.providers.provider import Provider
from hub.providers.simulated import SimulatedProvider
from hub.settings import Settings


def make_provider(settings: Settings) -> Provider:
    """Return the provider that *settings* name.

    Raises:
        InvalidSettings: its package is not installed.
    """
    if settings.ai_provider == "openai":
        from hub.providers.openai import OpenAIProvider  # noqa: PLC0415 - an extra

        return OpenAIProvider(settings.ai_base_url, settings.ai_api_key, settings.ai_model)
    return SimulatedProvider(
        tokens=settings.ai_simulated_tokens, first=settings.ai_simulated_first, rate=settings.ai_simulated_rate
    )
