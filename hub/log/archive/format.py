"""The archive of a log: JSON lines, with which it can move to another file or machine and keep its ids. No I/O.

    {"hub":"history","version":1,"epoch":"8e844e1e90"}
    {"id":"8e844e1e90-2","topics":["a"],"data":1,"type":null,"retry":null,"private":false,"tags":null,"at":1795172710.25}
    {"newest":3,"notifications":1,"lost":{"swept":1,"topics":{"a":1},"forgotten":0}}

The last line has the number of notifications, and what is known to be missing. Each line, also the last, ends with LF:
an archive that was cut anywhere has no last line, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from hub.errors import InvalidArchive, InvalidInput, TooLarge
from hub.eventstream import compact_json
from hub.log.log import MovableLog
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position
from hub.topics import check_topic

MEDIA_TYPE = "application/x-ndjson"
VERSION = 1
MAX_AT = 253_402_300_800.0  # the year 10000
# Far below the last offset that an id can name, and far beyond any that a hub gives out: 300 years at 100,000 a second.
MAX_NEWEST = 10**15
# As JSON, each byte of the data may take six; and the last line has up to 20,000 topics.
MAX_LINE_BYTES = 16 * 1024 * 1024
WRITTEN_TOGETHER = 100

_FIELDS = ("id", "topics", "data", "type", "retry", "private", "tags", "at")


class Contents(NamedTuple):
    """What an archive holds.

    Attributes:
        epoch: the name of the history.
        newest: the newest offset that was given out in it.
        number: how many notifications there are.
        trimmed: all that was known of what is missing.
    """

    epoch: str
    newest: int
    number: int
    trimmed: TrimmedState


# ---- lines out ----


def entry(notification: Notification, at: str) -> str:
    """Return *notification* as a JSON object on one line; *at* is the time of its acceptance, as JSON."""
    _, topics, text, is_json, _, _, type, retry, private, tags = notification
    data = text if is_json else compact_json(text)
    rest = compact_json({"type": type, "retry": retry, "private": private, "tags": tags or None})[1:-1]
    return f'{{"id":"{notification.id}","topics":{compact_json(topics)},"data":{data},{rest},"at":{at}}}'


def first_line(epoch: str) -> bytes:
    """Return the first line of an archive."""
    return f"{compact_json({'hub': 'history', 'version': VERSION, 'epoch': epoch})}\n".encode()


def line(notification: Notification) -> bytes:
    """Return the line of *notification*."""
    return f"{entry(notification, compact_json(notification.at))}\n".encode()


def last_line(newest: int, number: int, trimmed: TrimmedState) -> bytes:
    """Return the line that completes an archive of *number* notifications up to *newest*.

    What was *trimmed* beyond that offset, while the archive was made, counts as trimmed up to it.
    """
    topics = {topic: min(offset, newest) for topic, offset in trimmed.topics.items()} if newest else {}
    gone = {"swept": min(trimmed.overall, newest), "topics": topics, "forgotten": min(trimmed.forgotten, newest)}
    return f"{compact_json({'newest': newest, 'notifications': number, 'lost': gone})}\n".encode()


def is_last_line(line: bytes) -> bool:
    """Return whether *line* is the last line of an archive."""
    return line.startswith(b'{"newest":') and line.endswith(b"\n")


async def lines(log: MovableLog, upto: int) -> AsyncGenerator[bytes]:
    """Yield the archive of *log* up to the offset *upto*, several lines at a time.

    Notifications that are trimmed meanwhile are missing, and the last line says so.

    Raises:
        LogUnavailable: the log can't be read.
    """
    yield first_line(log.epoch)
    after = number = 0
    while after < upto:
        page = await log.read(after, ("**",), upto=upto)
        after, found = page.reached, iter(page.notifications)
        number += len(page.notifications)
        while some := b"".join(line(each) for each in islice(found, WRITTEN_TOGETHER)):
            yield some
    yield last_line(upto, number, log.trimmed_state())


# ---- lines in ----


def read(lines: Iterable[bytes]) -> Iterator[Notification | Contents]:
    """Yield each notification of an archive, then its contents; *lines* must have their line ends.

    Raises:
        InvalidArchive: it is cut short, or a line breaks a rule.
    """
    reading = _Reading()
    number = 0
    for number, line in enumerate(lines, 1):
        if reading.complete:
            raise InvalidArchive(number, "comes after the last one")
        try:
            item = reading.take(_fields(number, line))
        except (InvalidInput, TooLarge) as error:
            raise error if isinstance(error, InvalidArchive) else InvalidArchive(number, str(error)) from None
        if item is not None:
            yield item
    if not reading.complete:
        raise InvalidArchive(number + 1, "is missing: the archive was cut short")


def _fields(number: int, line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidArchive(number, f"is longer than {MAX_LINE_BYTES:,} bytes")
    if not line.endswith(b"\n"):
        raise InvalidArchive(number, "has no line end: the archive was cut short")
    try:
        fields = json.loads(line.decode())
    except RecursionError:
        raise InvalidArchive(number, "is nested too deeply") from None
    except ValueError as error:
        raise InvalidArchive(number, f"is not JSON in UTF-8: {str(error)[:200]}") from None
    if not isinstance(fields, dict):
        raise InvalidArchive(number, "is not a JSON object")
    return fields


class _Reading:
    """The state of reading an archive: before the first line, between, or after the last."""

    def __init__(self) -> None:
        self._epoch: str | None = None
        self._number = self._newest = 0
        self.complete = False

    def take(self, fields: Mapping[str, Any]) -> Notification | Contents | None:
        """Return the notification or the contents in the next line; None for the first line."""
        if self._epoch is None:
            self._epoch = _epoch(fields)
            return None
        if "newest" in fields:
            contents = _contents(fields, self._epoch, self._newest, self._number)
            self.complete = True
            return contents
        notification = _notification(fields, self._epoch, self._newest)
        self._newest = notification.position.offset
        self._number += 1
        return notification


def _epoch(fields: Mapping[str, Any]) -> str:
    if fields.get("hub") != "history":
        raise InvalidInput("hub", "is not 'history': this is not the archive of a hub")
    if fields.get("version") != VERSION:
        raise InvalidInput("version", f"is not {VERSION}, the one that this hub knows")
    epoch = fields.get("epoch")
    if not isinstance(epoch, str) or Position.parse(f"{epoch}-0") is None:
        raise InvalidInput("epoch", "is not 1 to 32 letters and digits")
    return epoch


def _notification(fields: Mapping[str, Any], epoch: str, after: int) -> Notification:
    _check_names(fields, _FIELDS)
    id, topics, data, type, retry, private, tags, at = (fields[name] for name in _FIELDS)
    position = Position.parse(id) if isinstance(id, str) else None
    if position is None or position.epoch != epoch:
        raise InvalidInput("id", f"is not {epoch}- and an offset")
    if position.offset <= after:
        raise InvalidInput("id", f"is not beyond {epoch}-{after}")
    if position.offset > MAX_NEWEST:
        raise InvalidInput("id", f"is beyond {epoch}-{MAX_NEWEST}: a log has to have room to go on")
    if not isinstance(topics, list):
        raise InvalidInput("topics", "is not a list of topics")
    if not _is_number(at) or not 0 <= at < MAX_AT:
        raise InvalidInput("at", "is not a number of seconds since 1970")
    draft = Draft.of(data, topics=topics, type=type, retry=retry, private=private, tags=tags)
    return Notification.accept(draft, position, float(at))


def _contents(fields: Mapping[str, Any], epoch: str, newest: int, number: int) -> Contents:
    _check_names(fields, ("newest", "notifications", "lost"))
    last = _offset(fields["newest"], "newest", newest, MAX_NEWEST)
    if fields["notifications"] != number:
        raise InvalidInput("notifications", f"is not {number}, as many as came before")
    lost = fields["lost"]
    if not isinstance(lost, dict):
        raise InvalidInput("lost", "is not a JSON object")
    _check_names(lost, ("swept", "topics", "forgotten"), "lost.")
    topics = lost["topics"]
    if not isinstance(topics, dict):
        raise InvalidInput("lost.topics", "is not a JSON object")
    swept, forgotten = (_offset(lost[name], f"lost.{name}", 0, last) for name in ("swept", "forgotten"))
    for topic, offset in topics.items():
        _offset(offset, f"lost.topics.{check_topic(topic, 'lost.topics')}", 1, last)
    return Contents(epoch, last, number, TrimmedState(swept, topics, forgotten))


def _check_names(fields: Mapping[str, Any], names: tuple[str, ...], within: str = "") -> None:
    for name in names:
        if name not in fields:
            raise InvalidInput(within + name, "is missing")
    unknown = fields.keys() - set(names)
    if unknown:
        raise InvalidInput(within + ascii(min(unknown))[1:-1][:80], f"unknown field; there are {', '.join(names)}")


def _offset(value: object, field: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(field, f"is not an offset from {least} to {most}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
