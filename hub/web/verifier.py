"""What turns a token into an identity, as the settings say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hub.access.identity import Identity
from hub.access.key_source import is_guessable
from hub.settings import Settings

if TYPE_CHECKING:
    from hub.access.tokens import Tokens

logger = logging.getLogger("hub.access")


class Verifier(Protocol):
    """What turns a token into an identity."""

    async def open(self) -> None:
        """Prepare; whatever fails here can be tried again later."""
        ...

    def knows(self, token: str) -> bool:
        """Return whether *token* was verified before, as far as is remembered, and has not expired."""
        ...

    async def verify(self, token: str) -> Identity:
        """Return the identity that *token* proves. Whether it has been revoked is not looked up.

        Raises:
            Unauthorized: the token is not valid.
            AuthUnavailable: that can't be told now.
        """
        ...

    async def aclose(self) -> None:
        """End what is under way."""
        ...


class Known:
    """Verifies tokens with keys that are known from the start."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def open(self) -> None:
        """Do nothing: the keys are here."""

    def knows(self, token: str) -> bool:
        """Return whether *token* was verified before, as far as is remembered, and has not expired."""
        return self._tokens.knows(token)

    async def verify(self, token: str) -> Identity:
        """Return the identity that *token* proves, without waiting for anything."""
        return self._tokens.verify(token)

    async def aclose(self) -> None:
        """Do nothing."""


def verifier_of(settings: Settings, clock: Callable[[], float] = time.time) -> Verifier | None:
    """Return what verifies tokens with the keys that *settings* name; None if they name none.

    *clock* says seconds since 1970.

    Raises:
        InvalidSettings: a key can't be used.
    """
    if settings.jwt_secret is None and settings.jwt_keys is None and settings.jwks_url is None:
        return None
    # They load a library of cryptography, which takes a tenth of a second: not where there are no tokens.
    from hub.access.keys import Keys, load_keys  # noqa: PLC0415
    from hub.access.tokens import Tokens  # noqa: PLC0415
    from hub.web.jwks import Jwks  # noqa: PLC0415

    secret = None if settings.jwt_secret is None else settings.jwt_secret.get_secret_value()
    keys = load_keys(secret, settings.jwt_keys)
    if secret is not None and is_guessable(secret):
        logger.warning("HUB_JWT_SECRET is easily guessed: hub token --make-key HS256 makes a random one")
    tokens = Tokens(
        keys or Keys(),
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        leeway=settings.jwt_leeway,
        clock=clock,
    )
    return Known(tokens) if settings.jwks_url is None else Jwks(settings.jwks_url, tokens)
