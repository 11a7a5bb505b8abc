"""Why somebody may read or publish to a topic, or may not: asked of the rules that answer real requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hub.access.grants import covers
from hub.access.identity import Identity
from hub.encoding import moment
from hub.errors import Forbidden, HubError, InvalidInput, Unauthorized
from hub.hub import Hub
from hub.notification import Draft
from hub.topics import is_pattern, room_of, topic_of
from hub.web.access import Access
from hub.web.verifier import Verifier


class Subject(NamedTuple):
    """Who is asked about.

    Attributes:
        identity: with its rights; None: nobody known.
        source: where these are from: `token`, `stream`, `typed`, or `nobody`.
    """

    identity: Identity | None
    source: str


class Debugger:
    """Explains the rights of one hub.

    Args:
        hub: the hub.
        access: its rules and hooks.
        verifier: what reads tokens; None: tokens are not accepted.
    """

    def __init__(self, hub: Hub, access: Access, verifier: Verifier | None) -> None:
        self._hub, self._access, self._verifier = hub, access, verifier

    async def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return who *asked* is about, and for each of its topics whether it is granted, and why.

        Raises:
            InvalidInput, InvalidTopic: *asked* breaks a rule.
            Unauthorized: the token in it is refused; says why.
        """
        subject = await self._subject(asked)
        verdicts = [await self._verdict(subject.identity, topic) for topic in asked["topics"]]
        return {"who": _shown(subject), "topics": verdicts}

    async def _subject(self, asked: Mapping[str, Any]) -> Subject:
        token, user = asked.get("token"), asked.get("user")
        if token:
            if self._verifier is None:
                raise InvalidInput("token", "can't be read: this hub accepts no tokens")
            identity = await self._verifier.verify(token)
            if self._access.state is not None and self._access.state.revoked(identity):
                raise Unauthorized("revoked", "the rights were revoked")
            return Subject(identity, "token")
        if not user:
            return Subject(None, "nobody")
        if asked.get("subscribe") is None and asked.get("publish") is None:
            held = [each.holder.identity for each in self._hub.connections.of(user)]
            if (newest := next(filter(None, reversed(held)), None)) is not None:
                return Subject(newest, "stream")
        grants = tuple(asked.get("subscribe") or ()), tuple(asked.get("publish") or ())
        return Subject(Identity(user=user, subscribe=grants[0], publish=grants[1]), "typed")

    async def _verdict(self, identity: Identity | None, topic: str) -> dict[str, Any]:
        verdict: dict[str, Any] = {"topic": topic}
        try:
            reading = await self._access.reading(identity, (topic,))
        except HubError as error:
            verdict["read"] = {"allowed": False, **_refusal(error)}
        else:
            private = reading.visibility.sees((topic,), private=True)
            verdict["read"] = {"allowed": True, "private": private, "why": await self._why(identity, topic)}
        if is_pattern(topic):
            verdict["publish"] = {"allowed": False, "code": "pattern", "why": "nothing can be published to a pattern"}
            return verdict
        try:
            await self._access.check_publish(identity, [Draft.of(None, topic=topic)])
        except HubError as error:
            verdict["publish"] = {"allowed": False, **_refusal(error)}
        else:
            asks = self._access.hooks.authorize_publish is not None
            why = self._why_published(identity, topic) + ("; the application is asked for each notification" * asks)
            verdict["publish"] = {"allowed": True, "why": why}
        return verdict

    async def _why(self, identity: Identity | None, topic: str) -> str:
        policy = self._access.policy
        if policy.trusted:
            return "nobody is asked who they are here: everybody may do everything"
        if identity is not None:
            if (grant := _covering(identity.subscribe, topic)) is not None:
                return f"by the grant {grant}"
            if topic == topic_of("user", identity.user):
                return "it is the user's own topic"
            if (since := await self._member_since(identity.user, topic)) is not None:
                return f"as a member of the room, what came after {since}"
        public = _covering(policy.anonymous_subscribe, topic)
        return "anybody may read it" + (f", by {public}" if public else "")

    async def _member_since(self, user: str, topic: str) -> str | None:
        room = room_of(topic)
        if room is None or self._access.state is None:
            return None
        rooms = await self._hub.rooms.rooms_of(user)
        return next((str(each.since) for each in rooms if each.room == room), None)

    def _why_published(self, identity: Identity | None, topic: str) -> str:
        policy = self._access.policy
        if policy.trusted:
            return "nobody is asked who they are here: everybody may do everything"
        if identity is not None and (grant := _covering(identity.publish, topic)) is not None:
            return f"by the grant {grant}"
        public = _covering(policy.anonymous_publish, topic)
        return f"anybody may publish to it, by {public}" if public else "as a member of the room"


def _covering(patterns: Sequence[str], topic: str) -> str | None:
    return next((each for each in patterns if covers(each, topic)), None)


def _refusal(error: HubError) -> dict[str, str]:
    code = error.code if isinstance(error, Forbidden | Unauthorized) else type(error).__name__
    return {"code": code, "why": str(error)}


def _shown(subject: Subject) -> dict[str, Any]:
    identity = subject.identity
    if identity is None:
        return {"user": None, "source": subject.source}
    return {
        "user": identity.user,
        "source": subject.source,
        "admin": identity.admin,
        "presence": identity.presence,
        "subscribe": list(identity.subscribe),
        "publish": list(identity.publish),
        "expires": None if identity.expires is None else moment(identity.expires),
    }
