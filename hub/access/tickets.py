"""Tickets: the right to open one stream, for a client that can send neither a header nor a cookie. Pure rules.

A ticket is `<id>.<secret>`. The id is public: it names the cookie of the stream. The hub keeps only a digest of the
ticket, with the identity that asked for it, so that whoever reads what it keeps can't open a stream.

A browser repeats the URL, with the used ticket, when it connects again. So the answer that begins the stream sets a
cookie with a second secret, of which again a digest is kept, for as long as the rights last. It is a secret that is
kept, and not a signature over the rights: the rights of a token do not fit into a cookie, for a browser sends all the
cookies of a page in one line, a proxy takes 8 KiB of it, and a page that is loaded again adds one each time. This one
has less than 80 bytes; and no key is kept that could sign others if the file leaked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, TypeVar

from hub.access.identity import Identity
from hub.errors import Forbidden, Unauthorized

T = TypeVar("T")

SECONDS = 30.0
"""Seconds within which a stream must begin with a ticket."""
RETURN_SECONDS = 30 * 86_400.0
"""Seconds for which a stream may come back whose rights have no end of their own: the application is asked again."""
COOKIE = "hub_stream_"
SECURE_PREFIX = "__Secure-"

_ID_BYTES, _SECRET_BYTES = 9, 24
_TICKET = re.compile(r"([A-Za-z0-9_-]{12})\.[A-Za-z0-9_-]{32}", re.ASCII)
_NO_TICKET = "the ticket is not valid: it was used already, is older than 30 seconds, or is unknown; get a new one"


class Shown(NamedTuple):
    """What is known of a ticket that somebody has shown: not its secret.

    Attributes:
        id: the public part.
        digest: that of the whole ticket.
    """

    id: str
    digest: str


def shown(text: str) -> Shown:
    """Return what *text*, the ticket in a request, says.

    Raises:
        Unauthorized: it is not a ticket.
    """
    match = _TICKET.fullmatch(text)
    if match is None:
        raise no_ticket()
    return Shown(match[1], _digest(text))


def no_ticket() -> Unauthorized:
    """Return the one error for a ticket that is malformed, unknown, wrong, used or too old: it says not which."""
    return Unauthorized("token_invalid", _NO_TICKET)


def cookie_name(id: str, *, secure: bool) -> str:
    """Return the name of the cookie for the stream that began with ticket *id*; *secure*: over TLS."""
    return f"{SECURE_PREFIX if secure else ''}{COOKIE}{id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the hub keeps of a ticket until a stream begins with it.

    Attributes:
        id: the public part.
        digest: that of the whole ticket.
        identity: who asked for it, when that was; without the rights that no stream needs.
        topics: the topics and patterns that it is for; None: whatever the identity may read.
        expires: until when a stream may begin, in seconds since 1970.
    """

    id: str
    digest: str
    identity: Identity
    topics: tuple[str, ...] | None
    expires: float

    @classmethod
    def mint(
        cls,
        identity: Identity,
        topics: Iterable[str] | None,
        now: float,
        random: Callable[[int], str] = secrets.token_urlsafe,
    ) -> tuple[str, Ticket]:
        """Return a new ticket as the client gets it, and what the hub keeps of it.

        Args:
            identity: who asks for it, and may read *topics*.
            topics: what it is for; None: whatever the identity may read.
            now: in seconds since 1970.
            random: returns the text of so many random bytes.

        Raises:
            Unauthorized: the rights of *identity* have ended.
        """
        check_rights(identity, now)
        id = random(_ID_BYTES)
        text = f"{id}.{random(_SECRET_BYTES)}"
        only = None if topics is None else tuple(dict.fromkeys(topics))
        return text, cls(
            id=id, digest=_digest(text), identity=_for_reading(identity), topics=only, expires=now + SECONDS
        )

    def check(self, seen: Shown, asked: Collection[str], now: float, covers: Covers) -> None:
        """Check that a stream of *asked* may begin with the ticket that was *seen*.

        What the identity may read today is another question, and the caller's. *covers* tells whether one pattern
        covers another.

        Raises:
            Unauthorized: the ticket is another one, or too old, or the rights of the identity have ended.
            Forbidden: it is for other topics; names the first one.
        """
        if not hmac.compare_digest(self.digest, seen.digest) or self.expires <= now:
            raise no_ticket()
        check_rights(self.identity, now)
        if self.topics is not None:
            for topic in asked:
                if not any(covers(each, topic) for each in self.topics):
                    raise Forbidden(topic, "it is not among the topics of the ticket")

    def begin(
        self,
        asked: Collection[str],
        now: float,
        random: Callable[[int], str] = secrets.token_urlsafe,
        *,
        rooms: bool = False,
    ) -> tuple[str, Return]:
        """Return the value of the cookie of the stream of *asked* that begins now, and what the hub keeps of it.

        With *rooms* the stream has the rooms of its user, too.
        """
        value = random(_SECRET_BYTES)
        ends = self.identity.expires
        return value, Return(
            id=self.id,
            digest=self.digest,
            proof=_digest(value),
            identity=self.identity,
            topics=tuple(sorted(set(asked))),
            within=self.topics,
            expires=now + RETURN_SECONDS if ends is None else ends,
            rooms=rooms,
        )

    def to_text(self) -> str:
        """Return it as JSON."""
        return _to_text(self)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the ticket that `to_text` wrote.

        Raises:
            ValueError: it did not.
        """
        return _from_text(cls, text)


Covers = Callable[[str, str], bool]
"""Tells whether every topic that the second pattern matches is matched by the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """What the hub keeps of a stream that began with a ticket: the right to come back to it.

    Attributes:
        id: the public part of the ticket.
        digest: that of the whole ticket.
        proof: that of the value of the cookie.
        identity: who asked for the ticket, when that was.
        topics: what the stream asked for, sorted.
        within: the topics and patterns that the ticket was for; None: whatever the identity may read.
        expires: until when it may come back, in seconds since 1970.
        rooms: it has the rooms of its user, too.
    """

    id: str
    digest: str
    proof: str
    identity: Identity
    topics: tuple[str, ...]
    within: tuple[str, ...] | None
    expires: float
    rooms: bool = False

    def check(self, seen: Shown, cookie: str, asked: Collection[str], now: float, *, rooms: bool = False) -> None:
        """Check that the stream may come back, with the ticket that was *seen*, its *cookie*, and the same topics.

        Raises:
            Unauthorized: the ticket or the cookie is another one, or the rights have ended.
            Forbidden: it asks for other topics than it began with; names the first one.
        """
        right = hmac.compare_digest(self.digest, seen.digest)
        if not (hmac.compare_digest(self.proof, _digest(cookie)) and right):
            raise no_ticket()
        check_rights(self.identity, now)
        if self.expires <= now:
            raise ended()
        if other := sorted(set(self.topics) ^ set(asked)):
            raise Forbidden(other[0], "the stream that began with this ticket had other topics; get a new ticket")
        if self.rooms != rooms:
            raise Forbidden("", "the stream that began with this ticket asked otherwise for rooms; get a new ticket")

    def to_text(self) -> str:
        """Return it as JSON."""
        return _to_text(self)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `to_text` wrote.

        Raises:
            ValueError: it did not.
        """
        return _from_text(cls, text)


def check_rights(identity: Identity, now: float) -> None:
    """Check that the rights of *identity* have not ended.

    Raises:
        Unauthorized: they have.
    """
    if identity.expires is not None and identity.expires <= now:
        raise ended()


def ended() -> Unauthorized:
    """Return the error for rights that have ended."""
    return Unauthorized("token_expired", "the rights that the ticket was given for have ended: log in again")


def _for_reading(identity: Identity) -> Identity:
    """Return *identity* without the rights that no stream needs: a ticket is for one stream, and nothing else."""
    return replace(identity, publish=(), admin=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def as_values(identity: Identity) -> dict[str, Any]:
    """Return *identity* as JSON values."""
    values = {name: getattr(identity, name) for name in Identity.__dataclass_fields__}
    return {**values, "info": dict(identity.info)}


def from_values(values: Mapping[str, Any]) -> Identity:
    """Return the identity that `as_values` returned *values* for.

    Raises:
        KeyError, TypeError: it did not.
    """
    lists = {name: tuple(values[name]) for name in ("subscribe", "publish")}
    return Identity(**{**values, **lists})


def _to_text(kept: Ticket | Return) -> str:
    values = {name: getattr(kept, name) for name in type(kept).__dataclass_fields__}
    return json.dumps({**values, "identity": as_values(kept.identity)}, separators=(",", ":"))


def _from_text(cls: Callable[..., T], text: str) -> T:
    try:
        values = json.loads(text)
        identity = from_values(values["identity"])
        for name in {"topics", "within"} & values.keys():
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(**{**values, "identity": identity})
    except (KeyError, TypeError) as error:
        raise ValueError(f"is none: {error!r}") from error
