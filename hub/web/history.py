"""`/notifications/history`: what the log keeps, page by page or as an archive."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Hashable
from contextlib import aclosing

from aiohttp import ClientConnectionError, web

from hub.connections.peer import watch_peer
from hub.connections.resume import EARLIEST, LATEST, Start, position_asked, start
from hub.encoding import GapReason, moment
from hub.errors import InvalidInput, LogUnavailable, NotThere, ShuttingDown
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.log.archive.format import MEDIA_TYPE, entry, lines
from hub.log.log import Log, Movable, Page
from hub.notification import Notification, Position
from hub.topics import check_wanted
from hub.tracing import without_context
from hub.web.access import Access, Reading
from hub.web.endpoint import cors
from hub.web.query import Parameters

logger = logging.getLogger("hub.web")

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_BYTES = 1024 * 1024
MAX_PAGES = 10
WRITE_BYTES = 64 * 1024

_LIMIT = re.compile(r"[0-9]{1,4}", re.ASCII)
_PARAMETERS = Parameters("topic", "after", "limit", elsewhere={"lastEventId": "is 'after' on this path"})
_HEADERS = {"Cache-Control": "no-store"}


class Excerpt:
    """The part of the history in one response, gathered from pages of the log.

    Args:
        begin: where it begins.
        upto: the offset at which the history ends.
        limit: how many notifications it may have.

    Attributes:
        after: the offset up to which it is complete.
        gap: why notifications are missing; None if none is.
        oldest: the oldest offset that is still kept.
    """

    def __init__(self, begin: Start, upto: int, limit: int) -> None:
        self.after = begin.after or 0
        self.gap = begin.gap
        self.oldest = 0
        self.notifications: list[Notification] = []
        self._upto, self._limit = upto, limit
        self._size = 0
        self._cut = False
        self._told: Hashable = None  # the mark of the last hole in the earlier pages
        self._begun = begin.known  # else it begins with the first that is found, and nothing before that is missing

    def take(self, page: Page) -> None:
        """Add the notifications of *page* that fit; the first one always fits."""
        told, self._told = self._told, page.hole or self._told
        if page.hole and page.hole != told and self._begun:
            self.gap = self.gap or GapReason.TRIMMED
        self.oldest = page.oldest
        for each in page.notifications:
            self._size += len(each.chunk)
            if self.notifications and (len(self.notifications) == self._limit or self._size > MAX_BYTES):
                self._cut = True
                return
            self.notifications.append(each)
            self.after = each.position.offset
            self._begun = True
        self.after = page.reached

    @property
    def at_end(self) -> bool:
        """Whether the end of the history is reached."""
        return self.after >= self._upto

    @property
    def full(self) -> bool:
        """Whether no further page is needed."""
        return self.at_end or self._cut or len(self.notifications) == self._limit

    def to_json(self, epoch: str, shown: Callable[[Notification], Notification] = lambda each: each) -> str:
        """Return the body of the response; *shown* returns a notification as its reader may see it."""
        found = ",".join([entry(shown(each), f'"{moment(each.at)}"') for each in self.notifications])
        facts: dict[str, object] = {
            "next": None if self.at_end else str(Position(epoch, self.after)),
            "recovered": self.gap is None,
        }
        if self.gap is not None:
            facts |= {"reason": self.gap, "oldest": str(Position(epoch, self.oldest))}
        return f'{{"notifications":[{found}],{compact_json(facts)[1:]}'


async def history(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Return a page of the history; or all of it, as an archive, if the client accepts that media type."""
    if _accepts_archive(request):
        return await export(hub, request)
    return await history_pages(hub, request)


async def history_pages(hub: Hub, request: web.Request) -> web.Response:
    """Return a page of the history.

    Raises:
        NotThere: the client wants an archive.
    """
    if _accepts_archive(request):
        raise NotThere("archive")
    query = _PARAMETERS.read(request)
    topics = check_wanted(query.getall("topic", []))
    access = Access.of(request)
    reading = await access.read(request, topics)
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    asked = query.get("after") or EARLIEST
    if asked == LATEST:
        raise InvalidInput("after", "is an id, or earliest; the latest are for a stream to begin with")
    excerpt = await _excerpt(hub.log, reading, asked, hub.fanout.newest.offset, limit)
    while not reading.stands:  # what was read may be of a room that its reader has left since
        reading = access.again(reading)
        excerpt = await _excerpt(hub.log, reading, asked, hub.fanout.newest.offset, limit)
    identity, floors = reading.identity, dict(reading.visibility.since)

    def shown(each: Notification) -> Notification:
        rooms = [topic for topic in each.topics if topic in floors and floors[topic][1] < each.position.offset]
        topics = access.policy.shown(identity, each.topics, private=each.private, rooms=rooms)
        return each._replace(topics=topics, tags=without_context(each.tags))

    return web.Response(
        body=excerpt.to_json(hub.log.epoch, shown).encode(), headers=_HEADERS | {"Content-Type": "application/json"}
    )


async def _excerpt(log: Log, reading: Reading, asked: str, upto: int, limit: int) -> Excerpt:
    """Return what of the history follows the position that was *asked* for, as far as it may be read.

    Raises:
        LogUnavailable: the log can't be used.
    """
    topics, visibility = reading.topics, reading.visibility
    position = position_asked(asked)
    log.bounds()  # raises while the log can't be used
    located = None if position is None else await log.locate(position)
    begin = start(asked, located=located, trimmed=lambda after: log.trimmed(topics, after, visibility))
    excerpt = Excerpt(begin, upto, limit)
    # Where little matches, many pages are empty: the client goes on with its next request.
    for _ in range(MAX_PAGES):
        excerpt.take(await log.read(excerpt.after, topics, upto=upto, visibility=visibility))
        if excerpt.full:
            break
        await asyncio.sleep(0)
    return excerpt


def _limit(text: str) -> int:
    limit = int(text) if _LIMIT.fullmatch(text) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput("limit", f"is not a whole number from 1 to {MAX_LIMIT:,}")
    return limit


def _accepts_archive(request: web.Request) -> bool:
    accepted = ",".join(request.headers.getall("Accept", [])).split(",")
    return any(each.partition(";")[0].strip().lower() == MEDIA_TYPE for each in accepted)


# ---- all of it ----


async def export(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Stream the archive, all of the history, as fast as the client reads.

    What can't be completed is aborted, so that it does not look whole.
    """
    await Access.of(request).administer(request)
    if hub.draining:
        raise ShuttingDown
    log = hub.log
    if not isinstance(log, Movable):
        raise LogUnavailable("its history can't be exported")
    log.bounds()  # raises while the log can't be read: after the headers no status can say so
    response = web.StreamResponse(headers=_HEADERS | {"Content-Type": MEDIA_TYPE})
    response.headers.update(cors(request, hub.settings.cors_origins))
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        return response
    watch_peer(transport.get_extra_info("socket"), hub.settings.peer_timeout)
    try:
        async with aclosing(lines(log, hub.fanout.newest.offset)) as archive:
            async for some in archive:
                await _write(response, some, hub.settings.peer_timeout)
        await response.write_eof()
    except TimeoutError:
        logger.info("an export was cut: its client took nothing for too long")
        transport.abort()
    except (ConnectionError, ClientConnectionError):
        transport.abort()  # the client has left
    except BaseException as error:
        logger.warning("an export was cut: %s", error or type(error).__name__)
        transport.abort()
        raise
    return response


async def _write(response: web.StreamResponse, some: bytes, patience: float) -> None:
    """Write *some* in small parts; each has *patience* seconds, which is enough for a slow client."""
    for place in range(0, len(some), WRITE_BYTES):
        async with asyncio.timeout(patience):
            await response.write(some[place : place + WRITE_BYTES])
        await asyncio.sleep(0)  # others get their turn, however fast this client reads
