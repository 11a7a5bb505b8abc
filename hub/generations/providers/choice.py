"""The choice of the provider that the settings name."""

from __future__ import annotations

import pkgutil

from hub.errors import InvalidSettings
from hub.generations.providers.provider import Provider
from hub.generations.providers.simulated import SimulatedProvider
from hub.settings import Settings


def make_provider(settings: Settings) -> Provider | None:
    """Return the provider that *settings* name; None if they name none, or leave it to the application.

    Raises:
        InvalidSettings: a package or a setting is missing, or the class can't be found, can't be constructed or is no
            provider.
    """
    name = settings.ai_provider
    if name is None or name == "application":
        return None
    if name == "simulated":
        return SimulatedProvider(
            tokens=settings.ai_simulated_tokens, first=settings.ai_simulated_first, rate=settings.ai_simulated_rate
        )
    if name == "openai":
        from hub.generations.providers.openai import OpenAIProvider  # noqa: PLC0415 - an extra

        return OpenAIProvider(settings.ai_base_url, settings.ai_api_key, settings.ai_model)
    return _named(name)


def _named(name: str) -> Provider:
    """Return an instance of the class that *name*, `module:Class`, names."""
    try:
        provider: Provider = pkgutil.resolve_name(name)()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise InvalidSettings([f"ai_provider (HUB_AI_PROVIDER): {name} can't be made: {why}"]) from error
    for method in ("stream", "aclose"):
        if not callable(getattr(provider, method, None)):
            raise InvalidSettings([f"ai_provider (HUB_AI_PROVIDER): {name} is no provider: it has no {method}()"])
    return provider
