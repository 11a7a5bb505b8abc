"""The process that writes the log."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from hub.log.search import topic_size
from hub.log.sqlite.worker.file import meta, oldest, opened, stands
from hub.log.sqlite.worker.pipe import COLUMNS, Key, Row
from hub.log.sqlite.worker.place import Place, Refused
from hub.patterns import PatternTrie

TRIM_STEP = 500
FORGET_EVERY = 64
FREE_PAGES = 256  # that may stay in the file for what comes next
VACUUM_STEP = 256
KNOWN_TOPICS = 100_000
KEY_STEP = 0.05  # of what all keys may take: so much is added before it is looked whether they are too many
_KEY_COST = "2 * length(CAST(key AS BLOB)) + length(CAST(topics AS BLOB)) + 40"  # the index has the key a second time


class _Topic:
    """What the writer knows of a topic it has met.

    Attributes:
        id: what it is called in the file.
        limit: how many notifications of it are kept; None if it has no bound of its own.
        count: how many there are, where there is a limit.
    """

    __slots__ = ("count", "id", "limit")

    def __init__(self, id: int, limit: int | None, count: int) -> None:
        self.id, self.limit, self.count = id, limit, count


class Writer:
    """Appends and trims; the only one that does."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._options = options
        self._limits: PatternTrie[int] = PatternTrie()
        for pattern, count in options["topics"]:
            self._limits.add(pattern.split("/"), count)
        self._place = Place(path, options["patience"])
        try:
            self._database = opened(self._place, options["epoch"], options.get("replaces"))
        except Refused:
            self._place.leave_nothing()
            raise
        # What was trimmed and does not show in what is known per topic; its readers have to be told all the same.
        self._database.execute("INSERT OR IGNORE INTO meta VALUES ('hidden', 0)")
        self._place.sync_ahead()  # what was found counts as confirmed
        if self._meta("newest") > options["last"]:
            raise Refused(f"its newest position is beyond {options['last']}, and no id can say so")
        self._epoch = self._meta("epoch")
        self._topics: dict[str, _Topic] = {}
        self._topics_size = self._all_topics_size()
        self._commits = 0
        self._most_new_keys = KEY_STEP * options["key_bytes"]
        self._new_keys = self._most_new_keys  # bytes, about; at the start it is looked at once
        self._crowded = deque(name for name in self._all_topics() if self._limit(name) is not None)
        self._thinned: list[str] = []  # those of them that are done with, if this transaction is committed

    def _all_topics(self) -> Iterator[str]:
        return (name for (name,) in self._database.execute("SELECT name FROM topic"))

    def _all_topics_size(self) -> int:
        return sum(map(topic_size, self._all_topics()))

    def state(self) -> dict[str, Any]:
        """Return what the parent has to know at the start; of the keys, those of positions that it does not know."""
        ask, known = self._database.execute, self._options.get("known", -1)
        self._forget(0.0)
        return {
            "epoch": self._meta("epoch"),
            "inode": self._place.known,
            "newest": self._meta("newest"),
            "trimmed": self._meta("trimmed"),
            "gone": dict(ask("SELECT topic, offset FROM gone ORDER BY offset")),
            "forgotten": self._meta("forgotten"),
            "ended": dict(ask("SELECT name, ended FROM epoch ORDER BY number")),
            "keys": list(
                ask("SELECT key, offset, topics, expires FROM key WHERE offset > ? ORDER BY expires", (known,))
            ),
            **self._bounds(),
        }

    def _bounds(self) -> dict[str, int]:
        return {
            "oldest": oldest(self._database),
            "kept": self._meta("kept"),
            "size": self._meta("size") + self._topics_size,
        }

    def _meta(self, name: str) -> Any:
        return meta(self._database, name)

    def _set(self, **values: object) -> None:
        self._database.executemany("UPDATE meta SET value = ? WHERE name = ?", [(v, n) for n, v in values.items()])

    def _grow(self, kept: int, size: int) -> None:
        ask = self._database.execute
        ask("UPDATE meta SET value = value + ? WHERE name = 'kept'", (kept,))
        ask("UPDATE meta SET value = value + ? WHERE name = 'size'", (size,))

    # ---- in ----

    def append(self, rows: list[Row], keys: list[Key], now: float) -> dict[str, Any]:
        """Keep *rows* and *keys*, and trim what the retention no longer keeps at *now*, in one transaction."""
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO key VALUES (?, ?, ?, ?)", keys)
            self._new_keys += sum(200 + 2 * len(key) + len(topics) for key, _, topics, _ in keys)
            thinned = self._keep(rows)
            if rows:
                self._set(newest=rows[-1][0])
            overall, more = self._trim(TRIM_STEP + 2 * len(rows), now, thinned)
            self._commits += 1
            if self._commits % FORGET_EVERY == 0 or self._new_keys >= self._most_new_keys or not rows:
                self._forget(now)
                more = self._vacuum() or more
        self._place.check()  # after the commit: what went into a file that nobody will find again is not confirmed
        if rows:
            self._place.note(self._epoch, rows[-1][0])
        return {"overall": overall, "topics": list(thinned.items()), "more": more, **self._bounds()}

    def look(self) -> dict[str, Any]:
        """Check that the file is still there.

        Raises:
            Misplaced: it is not, or another one is in its place.
        """
        self._place.check()
        return {}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
            self._database.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        self._thinned.clear()

    def _undo(self) -> None:
        self._topics.clear()  # what was learned in a transaction that is no more
        self._crowded.extend(self._thinned)
        self._thinned.clear()
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
            self._topics_size = self._all_topics_size()

    def _keep(self, rows: Sequence[Row]) -> dict[str, int]:
        """Add *rows*; return the topics thinned to a bound of their own, each with the newest offset trimmed."""
        if len(self._topics) >= KNOWN_TOPICS:  # now, while nothing counts on them
            self._topics.clear()
        if not rows:
            return {}
        database = self._database
        database.executemany(f"INSERT INTO notification ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
        places: list[tuple[int, int]] = []
        limited: dict[str, _Topic] = {}
        for row in rows:
            for name in row[2].split("\n"):
                topic = self._topic(name)
                places.append((topic.id, row[0]))
                if topic.limit is not None:
                    topic.count += 1
                    limited[name] = topic
        database.executemany("INSERT INTO place (topic, offset) VALUES (?, ?)", places)
        self._grow(len(rows), sum(row[8] for row in rows))
        thinned: dict[str, int] = {}
        for name, topic in limited.items():
            self._thin(name, topic, topic.count, thinned)
        return thinned

    def _topic(self, name: str) -> _Topic:
        topic = self._topics.get(name)
        if topic is None:
            ask = self._database.execute
            if ask("INSERT OR IGNORE INTO topic (name) VALUES (?)", (name,)).rowcount:
                self._topics_size += topic_size(name)
            id = int(ask("SELECT id FROM topic WHERE name = ?", (name,)).fetchone()[0])
            limit = self._limit(name)
            count = 0 if limit is None else ask("SELECT count(*) FROM place WHERE topic = ?", (id,)).fetchone()[0]
            topic = self._topics[name] = _Topic(id, limit, count)
        return topic

    def _limit(self, name: str) -> int | None:
        return min(self._limits.match(name.split("/")), default=None) if self._limits else None

    # ---- retention ----

    def _trim(self, most: int, now: float, thinned: dict[str, int]) -> tuple[list[tuple[str, int]], bool]:
        """Trim at most *most*; return the topics of these with the newest offset trimmed, and whether more is due.

        What was trimmed for the sake of a topic's own bound is added to *thinned*.
        """
        ask, options = self._database.execute, self._options
        most = self._thin_the_crowded(most, thinned)
        kept, size = self._meta("kept"), self._meta("size") + self._topics_size
        too_old = now - options["age"] if options["age"] is not None else 0.0
        overall: dict[str, int] = {}
        last = count = cost = its_topics = 0
        rows = ask("SELECT offset, at, topics, size FROM notification ORDER BY offset LIMIT ?", (most,))
        for offset, at, topics, its_size in rows:
            over = size - cost - its_topics > options["size"]
            full = kept - count > options["count"] or (over and kept - count > 1)
            if not full and at >= too_old:
                break
            last, count, cost = offset, count + 1, cost + its_size
            if over:
                its_topics += sum(topic_size(name) for name in topics.split("\n") if self._ends_with(name, offset))
            overall.update(dict.fromkeys(topics.split("\n"), offset))
        rows.close()
        if count:
            for name in overall:
                topic = self._topic(name)
                topic.count -= ask("DELETE FROM place WHERE topic = ? AND offset <= ?", (topic.id, last)).rowcount
                self._forget_if_empty(name, topic)
            ask("DELETE FROM notification WHERE offset <= ?", (last,))
            self._grow(-count, -cost)
            self._set(trimmed=max(last, self._meta("trimmed")))
        self._note_trimmed([*overall.items(), *thinned.items()])
        return sorted(overall.items(), key=lambda item: item[1]), count == most or bool(self._crowded)

    def _ends_with(self, name: str, offset: int) -> bool:
        """Return whether *offset* is the newest of a topic: then the topic is removed with it."""
        query = "SELECT max(offset) FROM place WHERE topic = (SELECT id FROM topic WHERE name = ?)"
        return bool(self._database.execute(query, (name,)).fetchone()[0] == offset)

    def _note_trimmed(self, trimmed: Collection[tuple[str, int]]) -> None:
        # A topic that is new there may be one of those that were forgotten, and was judged by that.
        self._database.executemany(
            "INSERT INTO gone SELECT :topic, max(:offset, value) FROM meta WHERE name = 'forgotten' "
            "ON CONFLICT (topic) DO UPDATE SET offset = max(offset, :offset)",
            [{"topic": topic, "offset": offset} for topic, offset in trimmed],
        )
        forgotten = self._meta("forgotten")
        if any(offset <= forgotten for _, offset in trimmed):  # which may not show in the table
            self._set(hidden=self._meta("hidden") + 1)

    def _thin_the_crowded(self, most: int, thinned: dict[str, int]) -> int:
        """Trim topics that were there before they had a bound of their own; return what is left of *most*."""
        while self._crowded and most > 0:
            name = self._crowded[0]
            most -= self._thin(name, self._topic(name), most, thinned) + 1
            if name not in self._topics or self._topics[name].count <= (self._topics[name].limit or 0):
                self._thinned.append(self._crowded.popleft())
        return max(most, 0)

    def _thin(self, name: str, topic: _Topic, most: int, thinned: dict[str, int]) -> int:
        """Trim a topic to its own bound, in at most *most* steps; return how many it took."""
        ask = self._database.execute
        surplus = min(topic.count - (topic.limit or 0), most)
        if surplus <= 0:
            self._forget_if_empty(name, topic)
            return 0
        found = ask("SELECT offset FROM place WHERE topic = ? ORDER BY offset LIMIT ?", (topic.id, surplus))
        offsets = [offset for (offset,) in found]
        ask("DELETE FROM place WHERE topic = ? AND offset <= ?", (topic.id, offsets[-1]))
        topic.count -= len(offsets)
        for offset in offsets:
            (topics, size), *_ = ask("SELECT topics, size FROM notification WHERE offset = ?", (offset,))
            if not stands(self._database, offset, [other for other in topics.split("\n") if other != name]):
                ask("DELETE FROM notification WHERE offset = ?", (offset,))
                self._grow(-1, -size)
        thinned[name] = offsets[-1]
        return len(offsets)

    def _forget_if_empty(self, name: str, topic: _Topic) -> None:
        ask = self._database.execute
        if ask("SELECT 1 FROM place WHERE topic = ? LIMIT 1", (topic.id,)).fetchone() is None:
            ask("DELETE FROM topic WHERE id = ?", (topic.id,))
            self._topics_size -= topic_size(name)
            del self._topics[name]

    def _forget(self, now: float) -> None:
        """Keep no more keys, and no more topics of which something was trimmed, than are remembered."""
        ask = self._database.execute
        ask("DELETE FROM key WHERE expires <= ?", (now,))
        if self._new_keys >= self._most_new_keys:
            self._new_keys = 0
            self._forget_keys()
        surplus = ask("SELECT count(*) FROM gone").fetchone()[0] - self._options["remembered"]
        if surplus > 0:
            last = ask("SELECT offset FROM gone ORDER BY offset LIMIT 1 OFFSET ?", (surplus - 1,)).fetchone()[0]
            ask("DELETE FROM gone WHERE offset <= ?", (last,))
            ask("UPDATE meta SET value = max(value, ?) WHERE name = 'forgotten'", (last,))

    def _forget_keys(self) -> None:
        """Keep no more keys than are remembered, in count and in bytes; the oldest go."""
        ask = self._database.execute
        count, size = ask(f"SELECT count(*), total({_KEY_COST}) FROM key").fetchone()
        count, size = count - self._options["keys"], size - self._options["key_bytes"]
        surplus: list[tuple[str]] = []
        oldest_first = ask(f"SELECT key, {_KEY_COST} FROM key ORDER BY expires")
        while count > len(surplus) or size > 0:
            key, cost = oldest_first.fetchone()
            surplus.append((key,))
            size -= cost
        oldest_first.close()
        self._database.executemany("DELETE FROM key WHERE key = ?", surplus)

    def _vacuum(self) -> bool:
        """Give back some of what the file no longer needs; tell whether there is more."""
        free = int(self._database.execute("PRAGMA freelist_count").fetchone()[0])
        if free <= FREE_PAGES:
            return False
        # Each row of the answer is a page that was moved.
        self._database.execute(f"PRAGMA incremental_vacuum({min(VACUUM_STEP, free - FREE_PAGES)})").fetchall()
        return free > FREE_PAGES + VACUUM_STEP

    # ---- taking over another log ----

    def adopt(self, epoch: str) -> dict[str, Any]:
        """Begin to take over another log, in a transaction that goes on until `adopted` or `abandon`."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM epoch")  # they were those of another history
        self._set(epoch=epoch)
        return {}

    def take(self, rows: list[Row]) -> dict[str, Any]:
        """Keep a part of the other log's history."""
        try:
            self._note_trimmed(self._keep(rows).items())
        except BaseException:
            self._undo()
            raise
        return {}

    def adopted(self, newest: int, overall: int, topics: dict[str, int], forgotten: int) -> dict[str, Any]:
        """End what `adopt` began: the newest offset the other log gave out, and what it had trimmed."""
        try:
            self._note_trimmed(topics.items())
            self._set(newest=newest, trimmed=overall, forgotten=forgotten)
            self._database.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        return self.state()

    def abandon(self) -> dict[str, Any]:
        """Undo everything since `adopt`."""
        self._undo()
        return {}

    def close(self) -> None:
        """Write the write-ahead log into the file, close it, and release its locks."""
        with contextlib.suppress(sqlite3.Error):
            self._undo()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        self._place.close()
