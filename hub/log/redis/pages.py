"""Pages of the history that this process does not hold itself: found by index in Redis, on a connection of its own.

As in the other homes, a page looks at so much and no more: where a pattern names few topics, their places are merged;
where it names many, what is kept is walked over and each topic is judged, here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from hub.access.visibility import Floors, Visibility, above
from hub.errors import LogUnavailable
from hub.log.log import Page
from hub.log.memory import visible
from hub.log.redis.entry import Keys, notification_of
from hub.log.redis.script import READ
from hub.log.redis.tail import Check, Tail
from hub.log.search import Search, Searches, judging
from hub.notification import Notification
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason

PAGE_COUNT = 1_000
PAGE_BYTES = 64 * 1024
WALK = 1_000  # notifications whose topics are looked at for a page
FEW = 1_000  # offsets that are walked over sooner than looking for the topics of a pattern
FOUND_NAMES = 1_000  # of a pattern, in one call; where there are more, walking is better
MERGED_NAMES = 200
MERGED_PLACES = 2_000
LATEST_NAMES = 500
LOOK_BACK = 20_000  # steps, to find the newest that a reader may see of each topic
BACK_PLACES = 16
READ_SECONDS = 5.0
TRIES = 2


class Pages:
    """Reads pages.

    Args:
        link: the way to Redis.
        keys: of the log.
        check: see `Check`.
        tail: what is known here.
    """

    def __init__(self, link: RedisLink, keys: Keys, check: Check, tail: Tail) -> None:
        self._link, self._keys, self._check, self._tail = link, keys, check, tail
        self._searches = Searches()
        self._searched = ""  # the epoch that the searches are of
        self._connection: RedisConnection | None = None
        self._lock = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.aclose()

    async def read(self, after: int, topics: Collection[str], upto: int, latest: bool, visibility: Visibility) -> Page:
        """Return what `Log.read` does.

        Raises:
            LogUnavailable: Redis does not answer, or the history has become another one.
        """
        epoch = self._tail.epoch
        floors = visibility.floors(epoch, after)
        if self._searched != epoch:
            # The connection may lead to a server that only follows that of the new epoch by now.
            self._searches, self._searched = Searches(), epoch
            await self.aclose()
        own = (upto, visibility) if latest else ()
        search = self._searches.of(topics, *own)
        reading = _Reading(self, epoch, topics, search=search, upto=upto, visibility=visibility, floors=floors)
        begin = search.begin(after, floors)
        if latest:
            chosen, reached = await reading.latest(begin)
        else:
            chosen, reached = await reading.matching(begin)
        if reached >= upto:
            self._searches.end(topics, *own)
        if visibility.private is not None:
            chosen = visible(chosen, visibility.sees, floors)
        # What was trimmed when this was read has to be known here, for it is missing in the page.
        await self._tail.heard(epoch, reading.trims)
        if self._tail.epoch != epoch:
            raise LogUnavailable("its history has just changed")
        hole = self._tail.trimmed.hole(topics, after, floors)
        return Page(chosen, reached, hole, reading.oldest)

    async def ask(self, epoch: str, *question: Any) -> list[Any]:
        """Return the answer of the script that reads, asked about *epoch*.

        Raises:
            LogUnavailable: see `read`.
        """
        error: Exception | None = None
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    async with self._lock:
                        connection = await self._connected()
                    (answer,) = await READ.run(
                        connection, self._keys.read, [question[0], epoch, *question[1:]], seconds=READ_SECONDS
                    )
            except BROKEN as caught:
                error = caught
                if self._connection is not None:
                    await self._connection.aclose()
                continue
            if answer[0] == b"epoch":
                await connection.aclose()
                await self._tail.restart()
                raise LogUnavailable("its history has just changed")
            found: list[Any] = answer
            return found
        assert error is not None
        raise LogUnavailable(reason(error))

    async def _connected(self) -> RedisConnection:
        if self._connection is None or self._connection.closed:
            connection = await self._link.connect()
            try:
                await self._check(connection)  # before anything is read there, it is known which history that is
            except BaseException:
                await connection.aclose()
                raise
            self._connection = connection
        return self._connection


class _Reading:
    """One page.

    Attributes:
        trims: how often something had been trimmed when the last part of it was read.
        oldest: the oldest offset that was kept then.
    """

    def __init__(
        self,
        pages: Pages,
        epoch: str,
        topics: Collection[str],
        *,
        search: Search,
        upto: int,
        visibility: Visibility,
        floors: Floors,
    ) -> None:
        self._pages, self._epoch, self._topics, self._search = pages, epoch, topics, search
        self._upto, self._visibility, self._floors = upto, visibility, floors
        self.trims = self.oldest = 0

    async def _ask(self, *question: Any) -> list[Any]:
        answer = await self._pages.ask(self._epoch, *question)
        self.trims, self.oldest = int(answer[1]), int(answer[2])
        return answer

    # ---- what matches ----

    async def matching(self, after: int) -> tuple[list[Notification], int]:
        """Return what matches, or the first part of it, and how far that reaches."""
        search, upto = self._search, self._upto
        if (but := self._all_but()) is not None:
            return self._page(await self._ask("all", after, upto, WALK, PAGE_COUNT, PAGE_BYTES, *but))
        if search.known <= after and upto - after > FEW:
            await self._find()
        if search.known <= after or search.names is None or len(search.names) > MERGED_NAMES:
            return await self._walk(after)
        # What was found may be incomplete beyond that; then the next page looks again.
        names = search.names
        places = max(BACK_PLACES, MERGED_PLACES // max(len(names), 1))
        begins = (each for name in names for each in (name, max(after, self._floors.get(name, 0))))
        bounds = (min(upto, search.known), PAGE_COUNT, PAGE_BYTES)
        return self._page(await self._ask("topics", *bounds, places, *begins))

    def _all_but(self) -> Collection[str] | None:
        """Return the first segments of the topics that do not match where all others do; None: it is not so simple."""
        but = self._search.patterns.everything_but
        if but is None or self._floors:
            return None
        return None if any(topic.partition("/")[0] in but for topic in self._topics) else but

    def _page(self, answer: list[Any]) -> tuple[list[Notification], int]:
        found = [notification_of(self._epoch, int(offset), *rest) for offset, *rest in answer[4]]
        return found, int(answer[3])

    async def _find(self) -> None:
        """Look for the topics that match, in a bounded number of steps."""
        search, ranges = self._search, self._search.patterns.ranges
        asked = [end.replace("\0", "\1") if end else "" for low, high in ranges for end in (low, high)]
        answer = await self._ask("names", FOUND_NAMES, *asked)
        if answer[0] == b"many":
            search.find(lambda low, high: (), int(answer[3]))
            search.names = None
            return
        found = {end: [name.decode() for name in names] for end, names in zip(ranges, answer[4], strict=True)}
        search.find(lambda low, high: found[low, high], int(answer[3]))

    async def _walk(self, after: int, *, latest: bool = False) -> tuple[list[Notification], int]:
        """Return what matches of all that is kept, as much as can be looked at for a page."""
        answer = await self._ask("walk", after, self._upto, WALK)
        reached = int(answer[3])
        wanted: list[tuple[int, list[str]]] = []
        for number, joined in answer[4]:
            offset, topics = int(number), joined.decode().split("\n")
            matching = [topic for topic in topics if self._wants(topic, offset)]
            if matching:
                wanted.append((offset, matching))
        if latest:
            newest = await self._newest({topic for _, topics in wanted for topic in topics})
            wanted = [
                (offset, topics)
                for offset, matching in wanted
                if (topics := [each for each in matching if _may_be_newest(offset, newest[each])])
            ]
        question: list[Any] = []
        for offset, topics in wanted:
            question += (offset, len(topics), *topics)
        return self._page(await self._ask("rows", reached, PAGE_COUNT, PAGE_BYTES, *question))

    def _wants(self, topic: str, offset: int) -> bool:
        verdict = self._search.verdicts.get(topic)
        if verdict is None:
            verdict = self._search.judge(topic)
        return verdict and offset > self._floors.get(topic, 0)

    # ---- the newest of each topic ----

    async def latest(self, after: int) -> tuple[list[Notification], int]:
        """Return what is the newest of one of its topics, as of `upto`, in order; or the first part of it."""
        search, upto = self._search, self._upto
        if search.known < upto and upto - after > FEW:
            await self._find()
        if search.known < upto or search.names is None or len(search.names) > LATEST_NAMES:
            return await self._walk(after, latest=True)
        newest = await self._newest(search.names)
        if any(offset < 0 for offset in newest.values()):
            return await self._walk(after, latest=True)
        found: dict[int, list[str]] = {}
        for name, offset in newest.items():
            if offset > after:
                found.setdefault(offset, []).append(name)
        # One that went meanwhile gave way to a newer one of its topic, which follows.
        question = (each for offset in sorted(found) for each in (offset, len(found[offset]), *found[offset]))
        return self._page(await self._ask("rows", upto, PAGE_COUNT, PAGE_BYTES, *question))

    async def _newest(self, names: Iterable[str]) -> dict[str, int]:
        """Return by name the newest offset that can be seen; see `Search.newest`."""
        found: dict[str, int] = {}
        looked = {name: self._search.newest.get(name, ~self._upto) for name in names}
        steps = LOOK_BACK
        while looked:
            found |= {name: offset for name, offset in looked.items() if offset >= 0 or steps <= 0}
            part = [name for name in looked if name not in found][:MERGED_NAMES]
            if not part:
                break
            asked = [each for name in part for each in (name, ~looked[name], self._floors.get(name, 0))]
            private = self._visibility.private is not None
            places = BACK_PLACES if private else 1
            answer = await self._ask("back", places, int(private), *asked)
            for name, stand in zip(part, answer[3], strict=True):
                offset, cost = self._visible(stand, places)
                steps -= cost
                looked[name] = offset
                self._search.note(name, offset)
            looked = {name: offset for name, offset in looked.items() if name not in found}
        return found

    def _visible(self, places: Sequence[Any], most: int) -> tuple[int, int]:
        """Return the first of *places* that can be seen, and how many steps it took to tell."""
        steps = 1
        for number, private, joined in places:
            if self._visibility.private is None or private != b"p":
                return int(number), steps
            topics = joined.decode().split("\n")
            steps += judging(topics)
            if self._visibility.sees(above(self._floors, topics, int(number)), private=True):
                return int(number), steps
        return (~(int(places[-1][0]) - 1) if len(places) == most else 0), steps


def _may_be_newest(offset: int, newest: int) -> bool:
    """Tell whether *offset* is the newest one, or may be: it took too long to find that out."""
    return offset == newest if newest >= 0 else offset <= ~newest
