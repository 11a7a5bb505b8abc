"""Who answers: a protocol, and its implementations."""

from hub.providers.choice import make_provider
from hub.providers.provider import Delta, Prompt, Provider, ProviderError
from hub.providers.simulated import SimulatedProvider

__all__ = ["Delta", "Prompt", "Provider", "ProviderError", "SimulatedProvider", "make_provider"]
