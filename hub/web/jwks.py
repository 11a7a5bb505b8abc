"""The keys that an issuer publishes as a JWK set at an address (`HUB_JWKS_URL`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from hub.access.identity import Identity
from hub.access.keys import Published, published_keys
from hub.access.tokens import Tokens, UnknownKey
from hub.errors import AuthUnavailable

logger = logging.getLogger("hub.access")

MAX_BYTES = 1024 * 1024
FETCH_SECONDS = 5.0
FRESH = 300.0
"""Seconds after which keys are fetched again; meanwhile those of before count."""
STALE = 3600.0
"""Seconds after which keys that could not be fetched again count no longer."""
PAUSE = 30.0
"""Seconds between two fetches, whatever tokens name."""
FIRST_PAUSE = 5.0
"""The same while there are no keys that count."""


class FetchFailed(Exception):
    """The answer is no JWK set, or does not come; the text says why."""


class Jwks:
    """Verifies tokens with the keys at an address, and fetches them again when they are old or one is missing.

    There is one fetch at a time, on which all who need it wait. It is bounded in time and size, follows no redirect
    and sends no cookie. The address comes from the settings, never from a token.

    Args:
        url: where the keys are, `https://` or on this machine.
        tokens: what verifies with them.
        clock: monotonic time in seconds.
    """

    def __init__(self, url: str, tokens: Tokens, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._shown = urlsplit(url)._replace(query="").geturl()  # a query may have an id that is nobody's business
        self._tokens, self._clock = tokens, clock
        self._fetching: asyncio.Task[None] | None = None
        self._fetched: float | None = None  # when the keys came
        self._tried: float | None = None  # when the last fetch began
        self._failed = False  # whether it failed
        self._closed = False
        self._faults: tuple[str, ...] = ()

    async def open(self) -> None:
        """Fetch the keys. If that fails, log it: those who ask try again."""
        await self._fetch()

    async def aclose(self) -> None:
        """End a fetch that is under way, and begin no other."""
        self._closed = True
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def knows(self, token: str) -> bool:
        """Return whether *token* was verified before, as far as is remembered, and has not expired."""
        return self._tokens.knows(token)

    async def verify(self, token: str) -> Identity:
        """Return the identity that *token* proves.

        Raises:
            Unauthorized: the token is not valid.
            AuthUnavailable: the keys could not be fetched, for too long or just when one was missing.
        """
        age = self._age()
        if age is None or age > STALE:
            await self._fetch_after(FIRST_PAUSE)
            age = self._age()
            if age is None or age > STALE:
                raise AuthUnavailable
        elif age > FRESH and self._may_try(PAUSE):
            self._begin()  # nobody waits for it
        try:
            return self._tokens.verify(token)
        except UnknownKey:
            await self._fetch_after(PAUSE)
            if self._failed:
                raise AuthUnavailable from None
            return self._tokens.verify(token)

    def _age(self) -> float | None:
        return None if self._fetched is None else self._clock() - self._fetched

    def _may_try(self, pause: float) -> bool:
        if self._closed:
            return False
        return self._tried is None or self._clock() - self._tried >= pause

    async def _fetch_after(self, pause: float) -> None:
        """Wait for the fetch under way; else fetch, if the last one began at least *pause* seconds ago."""
        if self._fetching is not None or self._may_try(pause):
            await self._fetch()

    async def _fetch(self) -> None:
        # `wait` does not cancel it with one of those who wait, nor them with it.
        await asyncio.wait([self._fetching or self._begin()])

    def _begin(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._tried = self._clock()
            self._fetching = asyncio.create_task(self._renew())
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _renew(self) -> None:
        try:
            published = await fetch(self._url)
        except FetchFailed as error:
            self._failed = True
            logger.warning("the keys at %s can't be fetched: %s", self._shown, error)
            return
        self._failed, self._fetched = False, self._clock()
        self._tokens.use(published.keys)
        if (faults := tuple(published.faults)) != self._faults:
            self._faults = faults
            for fault in faults:
                logger.warning("of the keys at %s, %s", self._shown, fault)


async def fetch(url: str) -> Published:
    """Return the keys that are published at *url*, within 5 seconds and 1 MiB.

    Raises:
        FetchFailed: nothing usable comes.
    """
    try:
        data = await _read(url)
    except TimeoutError:
        raise FetchFailed(f"no answer within {FETCH_SECONDS:g} s") from None
    except FetchFailed:
        raise
    except Exception as error:  # of many kinds, down to what a hostile answer causes in a parser
        raise FetchFailed(type(error).__name__) from None  # the text would repeat the address with its query
    try:
        return published_keys(data)
    except ValueError as error:
        raise FetchFailed(f"the answer {error}") from None


async def _read(url: str) -> bytes:
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a few bytes can expand beyond the bound
        headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
    )
    async with session, session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise FetchFailed(f"it answers {answer.status}")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchFailed("the answer is compressed, although that was not asked for")
        data = bytearray()
        async for part in answer.content.iter_any():
            data += part
            if len(data) > MAX_BYTES:
                raise FetchFailed(f"the answer is larger than {MAX_BYTES:,} bytes")
        return bytes(data)
