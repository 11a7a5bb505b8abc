"""The rules of access as a model: slow, for a few short topics, and written without a look at the hub's own code.

It knows of topics, rights and notifications only. What the wire makes of them is the business of whoever asks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import product

SEGMENTS = ["news", "orders", "user", "room", "ai", "ann", "bob", "a", "b", "other"]
EVERY = ["/".join(each) for length in (1, 2, 3) for each in product(SEGMENTS, repeat=length)]
"""Every topic of up to three segments; `other` stands for all that nobody names."""

PROTECTED = {"user", "room", "ai"}
TOPICS = [
    *("news", "news/a", "news/b", "orders", "orders/a", "orders/b", "orders/a/b", "a", "b/a"),
    *("user/ann", "user/bob", "user/ann/a", "room/a", "room/b", "ai/a"),
]
PATTERNS = [
    *TOPICS,
    *("**", "*", "*/a", "**/b", "*/**", "news/*", "news/**", "orders/*", "orders/**", "orders/**/b", "orders/*/b"),
    *("user/*", "user/**", "user/*/a", "room/*", "room/**", "ai/**", "**/a"),
]


def fits(pattern: list[str], topic: list[str]) -> bool:
    """Say whether *pattern* matches *topic*, segment by segment."""
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return any(fits(pattern[1:], topic[number:]) for number in range(len(topic) + 1))
    return bool(topic) and pattern[0] in {"*", topic[0]} and fits(pattern[1:], topic[1:])


@cache
def reach(pattern: str) -> frozenset[str]:
    """Return the topics that *pattern* reaches: those under a protected first segment only if it names that."""
    named, *_ = segments = pattern.split("/")
    return frozenset(
        topic
        for topic in EVERY
        if fits(segments, topic.split("/")) and (topic.split("/")[0] == named or topic.split("/")[0] not in PROTECTED)
    )


@dataclass(frozen=True)
class Rights:
    """What one user may do beyond what everybody may."""

    user: str
    subscribe: tuple[str, ...]
    publish: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """One notification."""

    offset: int
    name: str
    topics: tuple[str, ...]
    private: bool


@dataclass
class Model:
    """One hub: what everybody may do, and what was sent."""

    anybody_reads: tuple[str, ...]
    anybody_sends: tuple[str, ...]
    history: list[Sent] = field(default_factory=list)

    # ---- what is answered ----

    def granted(self, rights: Rights | None, asked: str) -> bool:
        """Say whether one grant of its own gives all that *asked* reaches; the own topic of a user is such a grant."""
        if rights is None:
            return False
        grants = (*rights.subscribe, f"user/{rights.user}")
        return any(reach(asked) <= reach(grant) for grant in grants)

    def reading(self, rights: Rights | None, asked: list[str]) -> str:
        """Return the answer to somebody who asks for *asked*: the status, and the first topic that is refused."""
        for each in asked:
            if not self.granted(rights, each) and not any(reach(each) <= reach(grant) for grant in self.anybody_reads):
                return "401" if rights is None else f"403 {each}"
        return "200"

    def sending(self, rights: Rights | None, topics: tuple[str, ...], *, private: bool) -> str:
        """Return the answer to somebody who sends a notification."""
        for topic in topics:
            own = rights is not None and any(topic in reach(grant) for grant in rights.publish)
            if not own and (private or not any(topic in reach(grant) for grant in self.anybody_sends)):
                return "401" if rights is None else f"403 {topic}"
        return "201"

    # ---- what is seen ----

    def sees(self, rights: Rights | None, asked: list[str], sent: Sent) -> bool:
        """Say whether somebody who asked for *asked*, and may, sees *sent*."""
        through = [each for each in asked if reach(each) & set(sent.topics)]
        return any(self.granted(rights, each) for each in through) if sent.private else bool(through)

    def following(self, rights: Rights | None, asked: list[str], after: int) -> list[Sent]:
        """Return what somebody sees after a position."""
        return [each for each in self.history if each.offset > after and self.sees(rights, asked, each)]

    def newest(self, rights: Rights | None, asked: list[str]) -> list[Sent]:
        """Return the newest of each topic that somebody sees through what was asked for."""
        newest = {
            topic: each
            for each in self.following(rights, asked, 0)
            for topic in each.topics
            if any(topic in reach(pattern) for pattern in asked)
        }
        return sorted(set(newest.values()), key=lambda each: each.offset)

    def shown(self, rights: Rights | None, sent: Sent) -> list[str]:
        """Return the topics of *sent* that the history shows to somebody."""
        public = set() if sent.private else set().union(*map(reach, self.anybody_reads))
        return [topic for topic in sent.topics if topic in public or self.granted(rights, topic)]
