"""Rooms as a model: slow, and written without a look at the hub's own code.

It knows what was sent, in its order, and which memberships there are and have been. A place in the history is the
number of notifications before it: whoever joins sees what is sent from that place on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

PUBLIC = "news"
ROOMS = ("a", "b", "c")
GRANTED = {"ann": ("room/c",), "bob": ()}
USERS = tuple(GRANTED)


@dataclass(eq=False)
class Sent:
    """One notification; its offset is known when it is confirmed."""

    name: str
    topics: tuple[str, ...]
    private: bool
    place: int
    offset: int = 0


@dataclass
class Member:
    """One membership: from which place on the room is seen, and who made it."""

    begin: int
    publish: bool = False
    loaded: bool = False


@dataclass
class Asked:
    """What one stream has asked for.

    Attributes:
        user: who holds it.
        follow: it has the rooms of its user.
        named: topics that it names.
        own: topics of rooms that it has joined by itself, each with the place from which it is seen.
        without: rooms of its user that were removed from it.
    """

    user: str
    follow: bool
    named: set[str]
    own: dict[str, int] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)


@dataclass
class Model:
    """What was sent, and who belongs to which room."""

    history: list[Sent] = field(default_factory=list)
    members: dict[tuple[str, str], Member] = field(default_factory=dict)  # by room and user
    former: list[tuple[str, str, Member]] = field(default_factory=list)  # what has ended, with room and user

    # ---- what happens ----

    def join(self, user: str, room: str, *, publish: bool = False, loaded: bool = False) -> None:
        """Begin a membership, or change what one may do that has begun."""
        there = self.members.get((room, user))
        if there is None:
            self.members[room, user] = Member(len(self.history), publish, loaded)
        elif there.loaded or not loaded:
            there.publish, there.loaded = publish, loaded

    def leave(self, user: str, room: str) -> None:
        """End a membership, if there is one."""
        ended = self.members.pop((room, user), None)
        if ended is not None:
            self.former.append((room, user, ended))

    def rewind(self, kept: int) -> None:
        """Go back to a history of which only so much is left."""
        del self.history[kept:]
        for member in self.members.values():
            member.begin = min(member.begin, kept)

    # ---- what is seen ----

    def rooms_of(self, user: str) -> list[str]:
        return sorted(room for room, member in self.members if member == user)

    def topics(self, asked: Asked) -> set[str]:
        """Return the topics of a stream."""
        rooms = {f"room/{room}" for room in self.rooms_of(asked.user)} - asked.without if asked.follow else set()
        return asked.named | set(asked.own) | rooms

    def may_name(self, user: str, topic: str) -> bool:
        """Say whether a user may ask for a topic by its name."""
        return topic == PUBLIC or topic in GRANTED[user] or (topic.removeprefix("room/"), user) in self.members

    def through(self, asked: Asked, sent: Sent) -> set[str]:
        """Return the topics through which a stream sees a notification."""
        return {topic for topic in self.topics(asked) & set(sent.topics) if self._through(asked, sent, topic)}

    def _through(self, asked: Asked, sent: Sent, topic: str) -> bool:
        if topic == PUBLIC:
            return not sent.private
        if topic in GRANTED[asked.user]:
            return True
        member = self.members.get((topic.removeprefix("room/"), asked.user))
        begins = [] if member is None else [member.begin]
        if topic in asked.own:
            begins.append(asked.own[topic])
        return bool(begins) and sent.place >= min(begins)

    def following(self, asked: Asked, after: int) -> Iterator[Sent]:
        """Return what a stream sees beyond an offset, what is not confirmed yet included."""
        return (each for each in self.history if (each.offset or after + 1) > after and self.through(asked, each))

    def newest(self, asked: Asked) -> list[Sent]:
        """Return the newest that a stream sees of each of its topics."""
        newest: dict[str, Sent] = {}
        for each in self.following(asked, 0):
            for topic in self.topics(asked) & set(each.topics):
                if topic == PUBLIC or self._through(asked, each, topic):
                    newest[topic] = each
        return sorted(set(newest.values()), key=lambda each: each.place)

    def shown(self, asked: Asked, sent: Sent) -> list[str]:
        """Return the topics that the history shows of a notification."""
        seen = self.through(asked, sent)
        return [
            topic
            for topic in sent.topics
            if topic in seen or topic in GRANTED[asked.user] or (topic == PUBLIC and not sent.private)
        ]

    def once_seen(self, asked: Asked, sent: Sent, ended_since: int) -> bool:
        """Say whether a membership that has ended since a moment, if it is for that user, covers a notification."""
        return any(
            user == asked.user and f"room/{room}" in sent.topics and sent.place >= member.begin
            for room, user, member in self.former[ended_since:]
        )

    def before_joining(self, asked: Asked, sent: Sent) -> bool:
        """Say whether a stream sees a notification only through rooms that its user has joined after that."""
        members = [self.members.get((topic.removeprefix("room/"), asked.user)) for topic in self.through(asked, sent)]
        return all(member is not None and member.begin > sent.place for member in members)
