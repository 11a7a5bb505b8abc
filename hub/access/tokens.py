"""Tokens: JSON Web Tokens (RFC 7519) that say who asks, with what rights, until when."""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from hub.access.base64url import decoded
from hub.access.identity import NOTHING, Identity
from hub.access.keys import ALGORITHMS, MAX_KEYS, MAX_KID, MAX_TRIED, Keys
from hub.access.strict_json import object_in
from hub.access.token_cache import CACHE_BYTES, TokenCache
from hub.errors import InvalidInput, InvalidTopic, Unauthorized
from hub.names import hint
from hub.topics import check_pattern

MAX_TOKEN_BYTES = 8 * 1024
MAX_ID = 256
MAX_PATTERNS = 128
MAX_INFO_BYTES = 1024
MAX_TIME = 253_402_300_799  # the end of the year 9999
DEFAULT_LEEWAY = 10.0

INVALID, EXPIRED = "token_invalid", "token_expired"

_RIGHTS = ("subscribe", "publish", "admin", "presence", "info")
_TYPES = {"jwt", "application/jwt", "at+jwt", "application/at+jwt"}
# As in topics: such characters are invisible, reorder what is around them, or can't be encoded.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class UnknownKey(Unauthorized):
    """A token that none of the keys fits; keys that are newer may."""

    def __init__(self) -> None:
        super().__init__(INVALID, "the token is signed with a key that is unknown here")


class Tokens:
    """Verifies tokens, and caches what they say.

    Args:
        keys: the keys at first; `use` replaces them.
        audience: a token must be for it (`aud`). None: a token must not be for anybody in particular (RFC 7519, 4.1.3).
        issuer: a token must be from it (`iss`); None: from whomever the keys are.
        leeway: seconds by which the clock of the issuer may differ. It does not prolong `Identity.expires`.
        clock: the time in seconds since 1970.
        cache_bytes: what verified tokens may occupy in memory.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = DEFAULT_LEEWAY,
        clock: Callable[[], float] = time.time,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._keys = keys
        self._audience, self._issuer = audience, issuer
        self._leeway, self._clock = leeway, clock
        self._cache = TokenCache(cache_bytes)

    @property
    def keys(self) -> Keys:
        """The keys that tokens are verified with."""
        return self._keys

    @property
    def cached_bytes(self) -> int:
        """What verified tokens occupy in memory."""
        return self._cache.size

    def use(self, keys: Keys) -> None:
        """Verify with *keys* from now on. If they differ from those before, tokens that were verified are forgotten."""
        if keys != self._keys:
            self._keys = keys
            self._cache.clear()

    def knows(self, text: str) -> bool:
        """Return whether *text* was verified before, as far as is remembered, and has not expired since."""
        if len(text) > MAX_TOKEN_BYTES or not text.isascii():
            return False
        identity = self._cache.get(_digest(text))
        return identity is not None and not self._has_expired(identity)

    def verify(self, text: str) -> Identity:
        """Return the identity that the token *text* proves.

        Whether it has been revoked is not looked up here; `issued`, `user` and `token` of the identity say what to
        look up. `expires` is the token's own, which the leeway may already have passed.

        Raises:
            Unauthorized: with the code `token_expired` if nothing else is wrong with it, else `token_invalid`.
        """
        if len(text) > MAX_TOKEN_BYTES or not text.isascii():
            raise _invalid("is longer than 8 KiB, or not ASCII")
        digest = _digest(text)
        identity = self._cache.get(digest)
        if identity is None:
            identity = self._verified(text)
            self._check_expiry(identity)
            self._cache.put(digest, identity)
        else:
            self._check_expiry(identity)
        return identity

    def _has_expired(self, identity: Identity) -> bool:
        return identity.expires is not None and identity.expires + self._leeway <= self._clock()

    def _check_expiry(self, identity: Identity) -> None:
        if self._has_expired(identity):
            raise Unauthorized(EXPIRED, "the token has expired: get a new one")

    def _verified(self, text: str) -> Identity:
        token = Token.parse(text)
        candidates = self._keys.candidates(token.algorithm, token.kid)
        if len(candidates) > MAX_TRIED:
            raise _invalid("has no kid, and the hub has several keys")
        if not any(key.verifies(token.signed, token.signature) for key in candidates):
            if candidates and token.kid is not None:
                raise _invalid("is not signed with the key that it names")
            raise UnknownKey
        try:
            return self._identity(_Claims(_object("claims", token.payload)))
        except InvalidInput as error:  # such as a user whose topic would be too long
            raise _invalid(f"can't be used: {error}") from None

    def _identity(self, claims: _Claims) -> Identity:
        now = self._clock()
        user, expires = claims.id("sub"), claims.time("exp")
        token = claims.id("jti") if "jti" in claims else None
        issued = claims.time("iat") if "iat" in claims else None
        # It would outlive a revocation of all that was issued until now.
        if issued is not None and issued > now + self._leeway:
            raise _invalid("was issued in the future (iat): compare the clocks")
        if "nbf" in claims and claims.time("nbf") > now + self._leeway:
            raise _invalid("is not valid yet (nbf)")
        self._check_parties(claims)
        rights = claims.rights()
        return Identity(
            user=user,
            subscribe=rights.patterns("subscribe"),
            publish=rights.patterns("publish"),
            admin=rights.switch("admin"),
            presence=rights.switch("presence"),
            info=rights.info(),
            expires=expires,
            issued=issued,
            token=token,
            by_token=True,
        )

    def _check_parties(self, claims: _Claims) -> None:
        audience = claims.audience()
        if self._audience is None:
            if audience:
                raise _invalid("is for an audience (aud), and this hub has none: set HUB_JWT_AUDIENCE")
        elif self._audience not in audience:
            raise _invalid("is for another audience (aud) than this hub")
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise _invalid("is not from the issuer that is trusted here (iss)")


class Token(NamedTuple):
    """A token in its parts, of which nothing has been verified.

    Attributes:
        algorithm: the algorithm that it names: one of ours.
        kid: the id of the key that it names; None: it names none.
        payload, signed, signature: the claims as JSON, the bytes that are signed, and their signature.
    """

    algorithm: str
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Token:
        """Return the parts of *text*.

        Addresses of keys and keys in the header (`jku`, `x5u`, `jwk`, `x5c`) are ignored.

        Raises:
            Unauthorized: it is not a signed token, or names an algorithm or an extension that is not ours.
        """
        parts = text.split(".", 3)
        if len(parts) != 3:
            raise _invalid("is not a signed JSON Web Token")
        header, payload, signature = parts
        try:
            return cls(*_named(header), decoded(payload), f"{header}.{payload}".encode(), decoded(signature))
        except ValueError:
            raise _invalid("is not a signed JSON Web Token") from None


# The tokens of one issuer have the same header, or one for each of its keys. What is refused is not cached.
@lru_cache(maxsize=MAX_KEYS)
def _named(header: str) -> tuple[str, str | None]:
    """Return the algorithm and the kid that the first part of a token names.

    Raises:
        ValueError: it is not base64url.
        Unauthorized: as for `Token.parse`.
    """
    facts = _object("header", decoded(header))
    algorithm, kid, kind = facts.get("alg"), facts.get("kid"), facts.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _invalid(f"is signed with none of the algorithms {', '.join(ALGORITHMS)}")
    if "crit" in facts or "b64" in facts:
        raise _invalid("asks for an extension that is unknown here (crit)")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _invalid("is for another purpose (typ)")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise _invalid(f"has a kid that is not a string of 1 to {MAX_KID} characters")
    return algorithm, kid


class _Claims:
    """Claims whose signature is right, but whose values may have any type."""

    def __init__(self, claims: dict[str, Any], prefix: str = "") -> None:
        self._claims, self._prefix = claims, prefix

    def get(self, name: str) -> Any:
        return self._claims.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def id(self, name: str) -> str:
        """Return an id: a string of 1 to 256 characters that can be seen."""
        value = self._claims.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            raise _wrong(name, f"is not a string of 1 to {MAX_ID} characters")
        plain = value.isascii() and value.isprintable()  # most are: a faster look
        if not plain and any(unicodedata.category(character) in _FORBIDDEN for character in value):
            raise _wrong(name, "has a control or format character, or is not valid UTF-8")
        return value

    def time(self, name: str) -> float:
        """Return a time in seconds since 1970."""
        value = self._claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
            raise _wrong(name, "is not a time in seconds since 1970")
        return float(value)

    def audience(self) -> list[str]:
        value = self._claims.get("aud", [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise _wrong("aud", "is neither a string nor a list of strings")
        return listed

    def rights(self) -> _Claims:
        """Return the claims in `hub`; a member that is unknown is a mistake, which would be a right less."""
        value = self._claims.get("hub", {})
        if not isinstance(value, dict):
            raise _wrong("hub", "is not an object")
        for name in value:
            if name not in _RIGHTS:
                raise _wrong("hub", f"has a member that is unknown; {hint(name, _RIGHTS)}it has {', '.join(_RIGHTS)}")
        return _Claims(value, "hub.")

    def patterns(self, name: str) -> tuple[str, ...]:
        value = self._claims.get(name, [])
        if not isinstance(value, list):
            raise _wrong(self._prefix + name, "is not a list of topics and patterns")
        if len(value) > MAX_PATTERNS:
            raise _wrong(self._prefix + name, f"has more than {MAX_PATTERNS} topics and patterns")
        checked: list[str] = []
        try:
            for each in value:
                checked.append(check_pattern(each))  # noqa: PERF401 - their number says where the wrong one is
        except InvalidTopic as error:
            raise _wrong(f"{self._prefix}{name}[{len(checked)}]", error.why) from None
        return tuple(dict.fromkeys(checked))

    def switch(self, name: str) -> bool:
        value = self._claims.get(name, False)
        if not isinstance(value, bool):
            raise _wrong(self._prefix + name, "is neither true nor false")
        return value

    def info(self) -> Mapping[str, Any]:
        value = self._claims.get("info", {})
        if value == {}:
            return NOTHING
        if not isinstance(value, dict):
            raise _wrong(self._prefix + "info", "is not an object")
        try:
            size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        except (UnicodeEncodeError, RecursionError):
            raise _wrong(self._prefix + "info", "is not valid UTF-8, or nested too deeply") from None
        if size > MAX_INFO_BYTES:
            raise _wrong(self._prefix + "info", f"has more than {MAX_INFO_BYTES:,} bytes")
        return MappingProxyType(value)


def _object(part: str, data: bytes) -> dict[str, Any]:
    try:
        return object_in(data)
    except ValueError as error:
        raise _invalid(f"can't be read: the part with the {part} {error}") from None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _invalid(why: str) -> Unauthorized:
    return Unauthorized(INVALID, f"the token {why}")


def _wrong(claim: str, why: str) -> Unauthorized:
    return Unauthorized(INVALID, f"the claim {claim} of the token {why}")
