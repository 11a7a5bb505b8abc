"""The process that reads the log."""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from hub.access.visibility import EVERYTHING, NO_FLOORS, Floors, Visibility, above
from hub.log.search import Search, Searches, cost, judging
from hub.log.sqlite.worker.file import connect, meta, oldest, stands
from hub.log.sqlite.worker.pipe import COLUMNS
from hub.log.sqlite.worker.place import Refused
from hub.patterns import Patterns

PAGE_COUNT = 1_000
PAGE_BYTES = 64 * 1024
PAGE_WALK = 5_000  # steps; a row takes one, and more where its topics have to be judged or looked up
FEW = 1_000  # rows that are walked over sooner than looking for the topics of a pattern
MERGED_TOPICS = 200
DENSE = 4  # where at least each fourth row matches, walking is better than merging
LOOK_UP_STEPS = 16
LOOKED_UP = 500
FRAME_COLUMNS = "offset, topics, private, type, retry, text, chunk"
LOOK_BACK = 20_000  # steps, to find the newest that a reader may see of each topic
JUDGED_STEPS = 100_000
ROWS_BY_OFFSET = 250


_LINE_END = re.compile(r"\r\n|\r|\n")
_FRAME = b"%bid: %b-%d\ndata: %b\n\n"
_CHUNK = b"%x\r\n" + _FRAME + b"\r\n"


class Asked(NamedTuple):
    """What the parent wants to read: `after < offset <= upto`, of *topics*, which may be patterns.

    With *latest* only the newest of each topic, as of `upto`. *private* and *floors* are those of a `Visibility`; the
    floors are beyond `after`.
    """

    after: int
    upto: int
    topics: list[str]
    latest: bool
    private: frozenset[str] | None = None
    floors: Floors = NO_FLOORS

    @property
    def searched(self) -> tuple[Any, ...]:
        """Which of the searches this is a part of."""
        if not self.latest:
            return (self.topics,)
        # Floors decide which one is the newest only where a private one is looked for.
        floors = self.floors.items() if self.private is not None else ()
        since = frozenset((topic, ("", offset)) for topic, offset in floors)
        return (self.topics, self.upto, Visibility(self.private, since))


class Reader:
    """Reads pages, beside the writer and without waiting for it."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._database = connect(path)
        self._database.execute("PRAGMA query_only = ON")
        status = Path(path).stat()
        if options.get("inode", (status.st_dev, status.st_ino)) != (status.st_dev, status.st_ino):
            raise Refused("another file was put in its place")
        facts = dict(self._database.execute("SELECT name, value FROM meta"))
        (newest,) = self._database.execute("SELECT max(offset) FROM gone").fetchone()
        # Whether a topic has or had a bound of its own: what was trimmed there may be kept for another topic.
        self._limited = bool(options["topics"]) or max(newest or 0, facts["forgotten"]) > facts["trimmed"]
        self._epoch, self._copied = facts["epoch"].encode(), facts["copied"]
        self._searches = Searches()
        self._visibility, self._floors = EVERYTHING, NO_FLOORS  # of whom the page is for
        self._steps_back = 0  # that are left for it

    def state(self) -> dict[str, Any]:
        """Return no facts: the writer has them all."""
        return {}

    def look(self) -> dict[str, Any]:
        """Return nothing; the answer shows that this process runs."""
        return {}

    def read(self, *asked: Any) -> dict[str, Any]:
        """Return the rows that match and can be seen (the arguments are those of `Asked`), as a page."""
        rows, facts = self._page(COLUMNS, Asked(*asked))
        return {"rows": rows, **facts}

    def frames(self, *asked: Any) -> dict[str, Any]:
        """Return the same page as the bytes that go out."""
        rows, facts = self._page(FRAME_COLUMNS, Asked(*asked))
        return {"payload": self._payload(rows), "number": len(rows), "first": rows[0][0] if rows else 0, **facts}

    def _payload(self, rows: Iterable[Any]) -> bytes:
        """Return the chunks of *rows*, joined: what `hub.eventstream` makes, which this process does not load."""
        chunks: list[bytes] = []
        epoch, size, limit = self._epoch, 0, 0
        for offset, _, _, type, retry, text, chunk in rows:
            if chunk:
                chunks.append(self._renamed(chunk) if offset <= self._copied else chunk)
                continue
            if offset >= limit:
                digits = len(b"%d" % offset)
                size, limit = len(_FRAME % (b"", epoch, offset, b"")), 10**digits
            head = _head(type, retry) if type is not None or retry is not None else b""
            lines = text if "\n" not in text and "\r" not in text else "\ndata: ".join(_LINE_END.split(text))
            data = lines.encode()
            chunks.append(_CHUNK % (size + len(head) + len(data), head, epoch, offset, data))
        return b"".join(chunks)

    def _renamed(self, chunk: bytes) -> bytes:
        """Return a *chunk* that was kept before the file was copied, with the epoch that the file has now."""
        frame = chunk[chunk.index(b"\r\n") + 2 : -2]
        begin = 0 if frame.startswith(b"id: ") else frame.index(b"\nid: ") + 1
        frame = b"%bid: %b%b" % (frame[:begin], self._epoch, frame[frame.index(b"-", begin) :])
        return b"%x\r\n%b\r\n" % (len(frame), frame)

    def _page(self, columns: str, asked: Asked) -> tuple[list[Any], dict[str, Any]]:
        search = self._searches.of(*asked.searched)
        self._visibility, self._floors, self._steps_back = Visibility(asked.private), asked.floors, LOOK_BACK
        if asked.floors:
            asked = asked._replace(after=search.begin(asked.after, asked.floors))
        # One state of the file for all that is looked up: the id of a topic that is gone is given to another one, and
        # what the writer lets go of meanwhile must either be in the page or be known to be missing.
        self._database.execute("BEGIN")
        try:
            rows, reached = (self._latest if asked.latest else self._matching)(columns, asked, search)
            if reached >= asked.upto:
                self._searches.end(*asked.searched)
            if asked.private is not None:
                # Of a page, so that what can't be seen is bounded work as well.
                rows = self._visible(rows, columns.split(", "))
            return rows, {"reached": reached, "hole": self._hole(asked, search), "oldest": oldest(self._database)}
        finally:
            if self._database.in_transaction:
                self._database.execute("COMMIT")

    def _hole(self, asked: Asked, search: Search) -> str:
        """Return a mark if something beyond `after` that matched was trimmed, as `Trimmed.hole` does; else nothing.

        The mark is the number and the sum of the newest offsets trimmed per topic, beside what was forgotten of them
        and what is hidden by that. With each one that is trimmed one of these grows, and the first two shrink only as
        the others grow.
        """
        ask = self._database.execute
        patterns, floors = search.patterns, asked.floors
        overall, forgotten, hidden = (meta(self._database, name) for name in ("trimmed", "forgotten", "hidden"))
        trimmed = bool(patterns.ranges) and max(overall, forgotten) > asked.after
        count = total = 0
        for name in patterns.single:
            row = ask("SELECT offset FROM gone WHERE topic = ?", (name,)).fetchone()
            if floors and (row[0] if row else forgotten) <= floors.get(name, 0):
                continue  # nothing is missing of it, and what else goes up to there changes nothing
            trimmed = trimmed or (row[0] if row else forgotten) > asked.after
            if row:
                count, total = count + 1, total + row[0]
        if not trimmed and not self._any_trimmed(asked, search):
            return ""
        among = self._all_trimmed(search) if patterns.ranges else (0, 0)
        if among is None:
            count, total = ask("SELECT count(*), sum(offset) FROM gone").fetchone()
            return f"{forgotten} {hidden} {count} {total}"
        return f"{forgotten} {hidden} {count + among[0]} {total + among[1]}"

    def _any_trimmed(self, asked: Asked, search: Search) -> bool:
        """Return whether something beyond `after` was trimmed of a topic that matches a pattern."""
        steps = JUDGED_STEPS
        with closing(self._trimmed_within(search.patterns.ranges, asked.after)) as lost:
            for name in lost:
                verdict = search.verdicts.get(name)
                if verdict is None:
                    verdict = search.judge(name)
                    steps -= cost(name)
                if verdict or steps < 0:  # or it may be any of the others
                    return True
        return False

    def _trimmed_within(self, ranges: Sequence[tuple[str, str | None]], after: int) -> Generator[str]:
        """Yield the topics in *ranges* that lost something beyond *after* to trimming."""
        if ranges and ranges[-1][1] is None:  # most topics may match: the newest that is gone decides soon
            within = " OR ".join(["+topic >= ? AND +topic < ?"] * len(ranges))
            query = f"SELECT topic FROM gone WHERE offset > ? AND ({within}) ORDER BY offset DESC"
            asked: list[list[Any]] = [[after, *(end for low, high in ranges for end in (low, _beyond(high)))]]
        else:  # by name, which its index is kept from
            query = "SELECT topic FROM gone WHERE topic >= ? AND topic < ? AND +offset > ?"
            asked = [[low, high, after] for low, high in ranges]
        for marks in asked:
            with closing(self._database.execute(query, marks)) as rows:
                for (name,) in rows:
                    yield name

    def _all_trimmed(self, search: Search) -> tuple[int, int] | None:
        """Return of how many topics that match a pattern something was trimmed, and the sum of those offsets.

        None if it takes too long to judge them.

        What a search has learned must not count here: as long as nothing is trimmed the answer has to stay the same.
        """
        if search.patterns.everything:
            return None
        steps, count, total = JUDGED_STEPS, 0, 0
        ask, within = self._database.execute, "FROM gone WHERE topic >= ? AND topic < ?"
        for low, high in search.patterns.ranges:
            if (low, high) in search.patterns.whole:
                query = f"SELECT count(*), coalesce(sum(offset), 0) {within}"
                number, offsets = ask(query, (low, _beyond(high))).fetchone()
                count, total = count + number, total + offsets
                continue
            with closing(ask(f"SELECT topic, offset {within}", (low, _beyond(high)))) as lost:
                for name, offset in lost:
                    steps -= cost(name)
                    if steps < 0:
                        return None
                    verdict = search.verdicts.get(name)
                    if search.judge(name) if verdict is None else verdict:
                        count, total = count + 1, total + offset
        return count, total

    def _find(self, asked: Asked, search: Search) -> None:
        if asked.latest or not self._all_match(search.patterns):
            search.find(self._between, meta(self._database, "newest"))

    def _between(self, low: str, high: str | None) -> Iterator[str]:
        query = "SELECT name FROM topic WHERE name >= ? AND name < ? ORDER BY name"
        with closing(self._database.execute(query, (low, _beyond(high)))) as rows:
            for (name,) in rows:
                yield name

    def _all_match(self, patterns: Patterns) -> bool:
        """Tell whether everything that is kept can be seen, as far as that is known without a search."""
        but = patterns.everything_but
        return but is not None and not self._floors and not any(map(self._has_topics_of, but))

    def _has_topics_of(self, first: str) -> bool:
        """Tell whether there is a topic that begins with the segment *first*."""
        query = "SELECT 1 FROM topic WHERE name = ? UNION ALL SELECT 1 FROM topic WHERE name >= ? AND name < ? LIMIT 1"
        return self._database.execute(query, (first, f"{first}/", f"{first}0")).fetchone() is not None

    def _matching(self, columns: str, asked: Asked, search: Search) -> tuple[list[Any], int]:
        """Return the rows that match above the floors, or the first part of them, by whichever way looks at less."""
        if search.known <= asked.after and asked.upto - asked.after > FEW:
            self._find(asked, search)
        names = search.names
        if search.known <= asked.after or names is None or len(names) > MERGED_TOPICS:
            return self._walk(columns, asked, search)
        if search.dense:
            chosen, reached = self._walk(columns, asked, search)
            search.dense = _is_dense(chosen, reached - asked.after)
            return chosen, reached
        # What was found may be incomplete beyond that; then the next page looks again.
        upto = min(asked.upto, search.known)
        own = columns.replace("offset", "notification.offset", 1)
        query = (
            f"SELECT {own} FROM place CROSS JOIN notification ON notification.offset = place.offset "
            "WHERE place.topic = ? AND place.offset > ? AND place.offset <= ? ORDER BY place.offset"
        )
        cursors = [self._database.execute(query, (topic, begin, upto)) for topic, begin in self._begins(names, asked)]
        try:
            chosen, reached = _filled(cursors[0] if len(cursors) == 1 else heapq.merge(*cursors, key=_offset), upto)
        finally:
            for cursor in cursors:
                cursor.close()  # an open one would hold the write-ahead log
        search.dense = len(cursors) > 1 and _is_dense(chosen, reached - asked.after)
        return chosen, reached

    def _begins(self, names: Iterable[str], asked: Asked) -> list[tuple[int, int]]:
        """Return the ids of those of *names* that exist, each with the offset behind which it is read.

        They are those in this state of the file, and maybe in no other.
        """
        query, after, floors = "SELECT id FROM topic WHERE name = ?", asked.after, asked.floors
        found = ((self._database.execute(query, (name,)).fetchone(), floors.get(name, 0)) for name in names)
        return sorted((row[0], max(after, floor)) for row, floor in found if row)

    def _latest(self, columns: str, asked: Asked, search: Search) -> tuple[list[Any], int]:
        """Return the newest row of each topic, as of `upto`, in order; or the first part of them."""
        if search.known < asked.upto and asked.upto - asked.after > FEW:
            self._find(asked, search)
        if search.known < asked.upto or search.names is None:
            return self._walk(columns, asked, search)
        unknown = [name for name in search.names if search.newest.get(name, -1) < 0]
        newest = {name: self._newest(name, asked.upto, search) for name in unknown[:LOOKED_UP]}
        if len(unknown) > LOOKED_UP or any(offset < 0 for offset in newest.values()):
            return self._walk(columns, asked, search)
        newest |= {name: search.newest[name] for name in search.names if name in search.newest}
        if asked.floors:
            newest = {name: offset for name, offset in newest.items() if offset > asked.floors.get(name, 0)}
        # One that went meanwhile gave way to a newer one of its topic, which follows.
        offsets = sorted(set(newest.values()))
        return _filled(self._rows(columns, offsets[bisect_right(offsets, asked.after) :]), asked.upto)

    def _newest(self, name: str, upto: int, search: Search) -> int:
        """Return the newest offset of a topic that can be seen, as of *upto*; see `Search.newest`.

        Where nothing private has to be looked for, it may be below the topic's floor.
        """
        query = "SELECT max(offset) FROM place WHERE topic = (SELECT id FROM topic WHERE name = ?) AND offset <= ?"
        if self._visibility.private is not None:
            newest = self._newest_visible(name, search.newest.get(name, ~upto))
        else:
            newest = self._database.execute(query, (name, upto)).fetchone()[0] or 0
        search.note(name, newest)
        return newest

    def _newest_visible(self, name: str, known: int) -> int:
        if known >= 0 or self._steps_back <= 0:
            return known
        query = (
            "SELECT notification.offset, private, topics FROM place CROSS JOIN notification "
            "ON notification.offset = place.offset WHERE place.topic = (SELECT id FROM topic WHERE name = ?) "
            "AND place.offset <= ? AND place.offset > ? ORDER BY place.offset DESC"
        )
        with closing(self._database.execute(query, (name, ~known, self._floors.get(name, 0)))) as rows:
            for offset, private, joined in rows:
                topics = joined.split("\n")
                self._steps_back -= judging(topics)
                reaching = above(self._floors, topics, offset) if self._floors else topics
                if self._visibility.sees(reaching, private=bool(private)):
                    return int(offset)
                if self._steps_back <= 0:
                    return ~int(offset - 1)
        return 0

    def _rows(self, columns: str, offsets: Sequence[int]) -> Iterator[Any]:
        for place in range(0, len(offsets), ROWS_BY_OFFSET):
            part = offsets[place : place + ROWS_BY_OFFSET]
            marks = ",".join("?" * len(part))
            query = f"SELECT {columns} FROM notification WHERE offset IN ({marks}) ORDER BY offset"
            with closing(self._database.execute(query, part)) as rows:
                yield from rows

    def _walk(self, columns: str, asked: Asked, search: Search) -> tuple[list[Any], int]:
        """Return what matches of all rows, as much as makes a page, or as can be looked at for one."""
        query = f"SELECT {columns} FROM notification WHERE offset > ? AND offset <= ? ORDER BY offset"
        place = columns.split(", ").index("topics")
        everything = not asked.latest and self._all_match(search.patterns)
        verdicts, newest, floors = search.verdicts, search.newest, asked.floors
        plainly = not asked.latest and not floors
        steps, last = PAGE_WALK, 0

        def wants(name: str, alone: bool) -> bool:
            """Return whether the row at *last* is wanted because of this topic."""
            nonlocal steps
            wanted = verdicts.get(name)
            if wanted is None:
                wanted = search.judge(name)
                steps -= cost(name)
            if not wanted or (plainly and (alone or not self._limited)):
                return wanted
            if last <= floors.get(name, 0):
                return False
            if not asked.latest:
                if alone or not self._limited:
                    return True
                steps -= LOOK_UP_STEPS
                return stands(self._database, last, [name])
            offset = newest.get(name, -1)
            if offset < 0:
                offset = self._newest(name, asked.upto, search)
                steps -= LOOK_UP_STEPS
            if offset < 0 and last <= ~offset:  # it took too long to find: all that was not looked at may be it
                return stands(self._database, last, [name])
            return offset == last

        def matching(rows: Iterable[Any]) -> Iterator[Any]:
            nonlocal steps, last
            for row in rows:
                last, topics = row[0], row[place]
                if everything:
                    yield row
                elif "\n" in topics:
                    names = topics.split("\n")
                    steps -= len(names)
                    if any(wants(name, alone=False) for name in names):
                        yield row
                elif wants(topics, alone=True):
                    yield row
                steps -= 1
                if steps <= 0:
                    return

        with closing(self._database.execute(query, (asked.after, asked.upto))) as rows:
            chosen, reached = _filled(matching(rows), asked.upto)
        return chosen, min(last, reached) if steps <= 0 else reached

    def _visible(self, rows: Iterable[Any], columns: list[str]) -> list[Any]:
        """Return those of *rows*, which match by a topic above its floor, that can be seen."""
        topics, private = columns.index("topics"), columns.index("private")
        sees, floors = self._visibility.sees, self._floors
        if not floors:
            return [row for row in rows if not row[private] or sees(row[topics].split("\n"), private=True)]
        return [
            row
            for row in rows
            if not row[private] or sees(above(floors, row[topics].split("\n"), row[0]), private=True)
        ]

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _head(type: str | None, retry: int | None) -> bytes:
    head = "" if retry is None else f"retry: {retry}\n"
    return (head if type is None else f"{head}event: {type}\n").encode()


def _is_dense(chosen: Sequence[Any], among: int) -> bool:
    """Tell whether so much was found *among* so many offsets that walking is better than merging."""
    return among < DENSE * len(chosen)


def _beyond(high: str | None) -> str | bytes:
    """Return the end of a range for SQLite: where it is open, a blob, which stands after every text."""
    return b"" if high is None else high


def _offset(row: Sequence[Any]) -> int:
    return int(row[0])


def _filled(rows: Iterable[Any], upto: int) -> tuple[list[Any], int]:
    """Return as many of *rows*, each offset once, as make a page, and how far it reaches."""
    chosen: list[Any] = []
    last = size = 0
    for row in rows:  # each ends with its text and its chunk
        if row[0] == last:
            continue
        text, chunk = row[-2:]
        size += len(chunk)
        if text:
            size += len(text) if text.isascii() else len(text.encode())
        if chosen and (len(chosen) == PAGE_COUNT or size > PAGE_BYTES):
            return chosen, last
        last = row[0]
        chosen.append(row)
    return chosen, upto
