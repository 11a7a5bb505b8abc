"""Who asks, with what rights, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hub.errors import InvalidInput
from hub.topics import check_pattern, topic_of

MAX_ID = 256
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user of the application, as its own login or a token says.

    The topics `user/{user}` may always be read by the user; ids are percent-encoded in topics.

    Attributes:
        user: the id of the user: not empty, at most 256 characters.
        session: the login that this is one of, so that it can be asked about again; None: the user has only one.
        subscribe: topics and patterns that may be read.
        publish: topics and patterns that may be published to.
        admin: may read statistics, connections, members and presence, export, and change the hub.
        presence: may be told who is there.
        info: what others are told of the user; JSON values.
        expires: when the rights end, in seconds since 1970; None: when the application says so.
        issued: when they were given, likewise; None: unknown.
        token: the id of the token (`jti`); None: it has none, or there is no token.
        by_token: a token says so; else the application's login does, and is asked again.
    """

    user: str
    session: str | None = None
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    admin: bool = False
    presence: bool = False
    info: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
    expires: float | None = None
    issued: float | None = None
    token: str | None = None
    by_token: bool = False

    def __post_init__(self) -> None:
        """Take lists of topics too, and check what the application says.

        Raises:
            InvalidInput: the user is not a text of 1 to 256 characters, or a topic or pattern breaks the grammar.
        """
        if not isinstance(self.user, str) or not 1 <= len(self.user) <= MAX_ID:
            raise InvalidInput("user", f"is not a text of 1 to {MAX_ID} characters")
        topic_of("user", self.user, "user")  # the topic that belongs to the user
        for name in ("subscribe", "publish"):
            patterns = getattr(self, name)
            if isinstance(patterns, str):
                raise InvalidInput(name, "is a text, not a list of topics and patterns")
            if type(patterns) is not tuple:
                object.__setattr__(self, name, patterns := tuple(patterns))
            for each in patterns:
                check_pattern(each, name)
