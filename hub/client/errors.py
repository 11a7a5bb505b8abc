"""The errors of the Python client, named after what happened to the caller's request.

ClientError
├── Unreachable                 nothing answers, or the connection broke
├── NotAHub                     something else answers, such as a proxy whose hub is away
├── Refused                     the hub said no, and why
│   ├── NotValid                400, 413, 415, 422: a field breaks its rule
│   ├── NotAuthenticated        401: no token, or one that is not valid (any more)
│   ├── NotAllowed              403: a right is missing
│   └── Busy                    429, 503: the same request may succeed later
└── ClientClosed                the client, or the stream, was closed before

What can be found wrong without asking is `hub.errors.InvalidInput`, as in the hub. No error holds a token.
"""

from __future__ import annotations

from hub.notification import Position

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be answered later."""


class ClientError(Exception):
    """The base class of the client's errors.

    Attributes:
        lasting: the same request would fail again.
        retry_after: seconds after which the hub wants to be asked again; None: it did not say.
        accepted: of a `publish_many` that failed, what was accepted before.
    """

    lasting = True
    retry_after: float | None = None
    accepted: tuple[Position, ...] = ()


class Unreachable(ClientError):
    """No hub answers at `url`, or the connection to it broke; `why` is the reason."""

    def __init__(self, url: str, why: str, *, lasting: bool = False) -> None:
        super().__init__(url, why)
        self.url, self.why, self.lasting = url, why, lasting

    def __str__(self) -> str:
        return f"no hub answers at {self.url}: {self.why}"


class NotAHub(ClientError):
    """Something answers at `url` that no hub would say; `status` is that of HTTP, `kind` shows what it was."""

    def __init__(self, url: str, status: int, kind: str, *, retry_after: float | None = None) -> None:
        super().__init__(url, status, kind)
        self.url, self.status, self.kind = url, status, kind
        self.lasting, self.retry_after = status not in PASSING, retry_after

    def __str__(self) -> str:
        return f"what answers at {self.url} is not a hub, or the hub is mounted under another path: {self.kind}"


class Refused(ClientError):
    """The hub refused the request, or ended the stream for good.

    Attributes:
        detail: why, a sentence.
        status: that of HTTP; None: the stream had begun.
        code: a word for programs, such as `token_expired`; empty if there is none.
        type: the type of the problem, such as `urn:broadcast-hub:invalid-topic`; empty if there is none.
        field: the field that breaks its rule; empty if it is none.
        topic: the topic to which a right is missing; empty if it is none.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str = "",
        type: str = "",
        field: str = "",
        topic: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.status, self.code, self.type = detail, status, code, type
        self.field, self.topic, self.retry_after = field, topic, retry_after
        self.lasting = status not in PASSING

    def __str__(self) -> str:
        return self.detail


class NotValid(Refused):
    """A field of the request breaks its rule."""


class NotAuthenticated(Refused):
    """The hub does not know who asks, or the token is not valid (any more)."""


class NotAllowed(Refused):
    """The caller lacks a right; `topic` names the first topic without one."""


class Busy(Refused):
    """Nothing is wrong with the request, but the hub can't fulfil it now."""


class ClientClosed(ClientError):
    """The client, or the stream, was closed, or a socket is not open yet; `why` says which."""

    def __init__(self, why: str = "the client is closed") -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


NOT_OPEN = "the socket is not open: use it in a with block"


_KINDS = {
    400: NotValid,
    401: NotAuthenticated,
    403: NotAllowed,
    413: NotValid,
    415: NotValid,
    422: NotValid,
    429: Busy,
    503: Busy,
}


def refusal(status: int, problem: dict[str, object], retry_after: float | None) -> Refused:
    """Return the error for an answer with *status* whose body is *problem* (RFC 9457)."""
    said = {name: str(problem.get(name, "")) for name in ("detail", "code", "type", "field", "topic")}
    return _KINDS.get(status, Refused)(status=status, retry_after=retry_after, **said)


_ENDINGS: dict[str, tuple[type[Refused], str]] = {
    "unauthorized": (NotAuthenticated, "the hub does not know who you are"),
    "token_invalid": (NotAuthenticated, "the token is not valid"),
    "token_expired": (NotAuthenticated, "the token has expired"),
    "revoked": (NotAllowed, "your rights, or this stream, were revoked"),
    "forbidden": (NotAllowed, "you may not read it"),
    "replaced": (Refused, "a newer stream of the same user has taken the place of this one"),
}
"""Reasons of `hub.close` after which coming back would change nothing."""


def ending(reason: str, topic: str) -> Refused | None:
    """Return the error of a stream that the hub ended with *reason*; None: it is worth opening again."""
    if reason not in _ENDINGS:
        return None
    kind, detail = _ENDINGS[reason]
    return kind(f"{topic}: {detail}" if topic else detail, code=reason, topic=topic)
