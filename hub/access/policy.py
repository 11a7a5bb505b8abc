"""What whom is allowed: reading, publishing, and what is for administrators only. Pure rules, no I/O.

nobody known      the patterns of `HUB_ANONYMOUS_SUBSCRIBE` and `_PUBLISH`, for public notifications only
an identity       its grants, its own `user/{id}` for reading, the rooms to which it belongs since it does, and what
                  anonymous callers may
an administrator  also statistics, exports, lists of connections, and all that changes the hub; but no topics
                  beyond its grants
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from hub.access.grants import Grants
from hub.access.identity import Identity
from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import Forbidden, Unauthorized
from hub.topics import RESERVED, is_pattern, topic_of

REMEMBERED_GRANTS = 4_096

Rooms = Mapping[str, tuple[str, int]]
"""Topics of rooms, each with its floor: the position after which a member reads it."""
NO_ROOMS: Rooms = MappingProxyType({})


class Policy:
    """The rules of one hub.

    Args:
        guarded: somebody can be asked who they are. Where nobody can, everything is allowed that *anonymous_subscribe*
            and *anonymous_publish* cover, private notifications and the rights of administrators included if *trusted*.
        trusted: whoever reaches the hub may do everything: a hub on loopback without any authentication.
        anonymous_subscribe: topics and patterns that anybody may read.
        anonymous_publish: topics and patterns that anybody may publish to.
    """

    def __init__(
        self,
        *,
        trusted: bool = False,
        anonymous_subscribe: Iterable[str] = (),
        anonymous_publish: Iterable[str] = (),
    ) -> None:
        self.trusted = trusted
        self._subscribe = Grants(anonymous_subscribe)
        self._publish = Grants(anonymous_publish)

    @property
    def anonymous_subscribe(self) -> tuple[str, ...]:
        """Topics and patterns that anybody may read."""
        return self._subscribe.patterns

    @property
    def anonymous_publish(self) -> tuple[str, ...]:
        """Topics and patterns that anybody may publish to."""
        return self._publish.patterns

    def read(self, identity: Identity | None, topics: Iterable[str], rooms: Rooms = NO_ROOMS) -> Visibility:
        """Return what *identity* sees of *topics* and patterns.

        Private notifications are seen through topics that are granted to the identity, not through those that anybody
        may read. If all are granted, the visibility is that of a reader who may see all notifications. A membership
        grants the topic of its room, from its floor on; by a grant of the identity it is read without one.

        Args:
            identity: who asks; None: nobody known.
            topics: what is asked for.
            rooms: the topics of the rooms to which the identity belongs, each with its floor.

        Raises:
            Unauthorized: nobody known asks, and not anybody may read all of *topics*.
            Forbidden: no grant covers one of them; names the first.
        """
        if self.trusted:
            return EVERYTHING
        granted, floors, public = [], [], False
        for topic in topics:
            if identity is not None and _may_read(identity, topic):
                granted.append(topic)
            elif topic in rooms:
                granted.append(topic)
                floors.append((topic, rooms[topic]))
            elif self._subscribe.cover(topic):
                public = True
            else:
                raise _refusal(identity, topic, "you may not read")
        if not (public or floors):
            return EVERYTHING
        return Visibility(frozenset(granted) if public else None, frozenset(floors))

    def granted(self, identity: Identity | None, topic: str) -> bool:
        """Return whether a grant of *identity* covers *topic*: whatever anybody may read does not count."""
        return self.trusted or (identity is not None and _may_read(identity, topic))

    def shown(
        self, identity: Identity | None, topics: tuple[str, ...], *, private: bool, rooms: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Return those of *topics*, of a notification that *identity* may see, that it may read.

        *rooms* are the topics of the rooms through which it sees that notification.
        """
        if self.trusted:
            return topics

        def may_read(topic: str) -> bool:
            own = identity is not None and _may_read(identity, topic)
            return topic in rooms or own or (not private and self._subscribe.cover(topic))

        return tuple(filter(may_read, topics))

    def publish(
        self, identity: Identity | None, topics: Iterable[str], *, private: bool = False, rooms: Collection[str] = ()
    ) -> None:
        """Check that *identity* may publish to each of *topics*; what anybody may publish to is for public ones only.

        *rooms* are the topics of the rooms to which it may publish as a member.

        Raises:
            Unauthorized: nobody known asks, and not anybody may publish to all of *topics*.
            Forbidden: no grant covers one of them; names the first.
        """
        if self.trusted:
            return
        own = _publish_grants(identity) if identity is not None else None
        for topic in topics:
            if (own is not None and own.cover(topic)) or topic in rooms:
                continue
            if not self._publish.cover(topic):
                raise _refusal(identity, topic, "you may not publish to")
            if private:
                raise _refusal(identity, topic, "you may not send private notifications to")

    def check_may_publish(self, identity: Identity | None) -> None:
        """Check that there may be a topic to which *identity* may publish, before anything that it sends is read.

        Raises:
            Unauthorized: nobody known asks, and nobody unknown may publish to anything.
        """
        if not self.trusted and identity is None and not self._publish.patterns:
            raise _nobody()

    def check_may_read(self, identity: Identity | None) -> None:
        """Check that there may be a topic that *identity* may read, before anything that it sends is read.

        Raises:
            Unauthorized: nobody known asks, and nobody unknown may read anything.
        """
        if not self.trusted and identity is None and not self._subscribe.patterns:
            raise _nobody()

    def check_may_speak(self, identity: Identity | None) -> None:
        """Check that there may be a topic that *identity* may read or publish to.

        Raises:
            Unauthorized: nobody known asks, and nobody unknown may do anything.
        """
        if not (self.trusted or self._publish.patterns):
            self.check_may_read(identity)

    def administer(self, identity: Identity | None) -> None:
        """Check that *identity* is an administrator.

        Raises:
            Unauthorized: nobody known asks.
            Forbidden: somebody else does.
        """
        if self.trusted or (identity is not None and identity.admin):
            return
        if identity is None:
            raise _nobody()
        raise Forbidden("", "this is for administrators, and you are none (admin)")

    def known(self, identity: Identity | None) -> None:
        """Check that somebody known asks.

        Raises:
            Unauthorized: nobody known does.
        """
        if not self.trusted and identity is None:
            raise _nobody()


def _refusal(identity: Identity | None, topic: str, what: str) -> Unauthorized | Forbidden:
    """Return the error for *topic*, which no grant covers; *what* is what was asked for."""
    if identity is None:
        return _nobody()
    first = topic.partition("/")[0]
    if first in RESERVED:  # whoever has the grant ** wonders
        return Forbidden(topic, f"{what} it: {first}/ has to be granted by name")
    if is_pattern(topic):
        return Forbidden(topic, f"{what} all that it matches: one grant has to cover it")
    return Forbidden(topic, f"{what} it")


def _nobody() -> Unauthorized:
    return Unauthorized("unauthorized", "you are not logged in: send a token, or log in")


@lru_cache(maxsize=REMEMBERED_GRANTS)
def _grants(patterns: tuple[str, ...]) -> Grants:
    return Grants(patterns)


def _may_read(identity: Identity, topic: str) -> bool:
    """Return whether a grant of *identity* covers *topic*, or it is the user's own."""
    # Most users have the same grants: these are shared, and no user needs any for the own topic.
    return _grants(identity.subscribe).cover(topic) or topic == topic_of("user", identity.user)


def _publish_grants(identity: Identity) -> Grants:
    return _grants(identity.publish)
