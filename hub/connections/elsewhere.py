"""The open streams of the other processes of a hub: found, counted, listed, changed and ended from here."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from hub.connections.client_stream import ClientStream, CloseReason, StreamFacts, StreamKind
from hub.connections.registry import StreamRegistry
from hub.errors import StateUnavailable
from hub.state.peers import Peers

logger = logging.getLogger("hub.peers")

T = TypeVar("T")

FIND, END, LIST, FIGURES = "find a stream", "end a stream", "list streams", "figures"


class Elsewhere(NamedTuple):
    """An open stream of another process.

    Attributes:
        peer: names the process.
        user: who holds the stream; None: nobody knows.
    """

    peer: str
    user: str | None


Place = tuple[float, str]
"""When a stream began, in seconds since 1970, and its id: the order of all streams of a hub."""


class StreamsElsewhere:
    """What concerns the streams of all processes.

    Args:
        streams: those of this process.
        peers: the others.
        figures: the figures of this process; those of all are added up.
    """

    def __init__(self, streams: StreamRegistry, peers: Peers, figures: Callable[[], Mapping[str, Any]]) -> None:
        self._streams, self._peers, self._figures = streams, peers, figures
        self._base = time.time() - time.monotonic()  # the order of the streams does not follow the clock
        peers.answer(FIND, self._find)
        peers.answer(END, self._end)
        peers.answer(LIST, self._list)
        peers.answer(FIGURES, self._own_figures)

    # ---- one stream ----

    async def find(self, id: str) -> Elsewhere | None:
        """Return where the open stream with this *id* is; None: in no other process.

        Raises:
            StateUnavailable: not all of them have answered, and no other one has it.
        """
        said = await self._asked(FIND, id, lambda facts: None if facts is None else (facts["user"],))
        found = next((Elsewhere(peer, *facts) for peer, facts in said.items() if facts is not None), None)
        if found is None:
            self._check(said)
        return found

    async def _find(self, id: str) -> dict[str, Any] | None:
        stream = self._streams.get(id)
        return None if stream is None or stream.closed_because is not None else {"user": stream.holder.user}

    async def end(self, id: str) -> bool:
        """End the open stream with this *id*, wherever it is; return whether there was one. Raises as `find`."""
        if self.end_here(id):
            return True
        said = await self._asked(END, id, bool)
        if any(said.values()):
            return True
        self._check(said)
        return False

    async def _end(self, id: str) -> bool:
        return self.end_here(id)

    def end_here(self, id: str) -> bool:
        """End the open stream with this *id* in this process; return whether there was one."""
        stream = self._streams.get(id)
        if stream is None:
            return False
        self._streams.end_each(CloseReason.REVOKED, [stream])
        return True

    async def _asked(self, question: str, facts: Any, read: Callable[[Any], T]) -> Mapping[str, T]:
        """Return by process what *read* makes of the answers; one that it can't read counts as none."""
        found: dict[str, T] = {}
        for peer, answer in (await self._peers.ask_all(question, facts)).items():
            try:
                found[peer] = read(answer)
            except (TypeError, ValueError, LookupError, AttributeError) as error:  # while another version takes over
                logger.warning("what a process answers (%s) is not understood here: %s", question, error)
        return found

    def _check(self, said: Mapping[str, Any]) -> None:
        if len(said) < self._peers.others:
            raise StateUnavailable("not all processes of the hub answer")

    # ---- all of them ----

    async def page(self, after: str | None, limit: int) -> tuple[list[StreamFacts], str | None]:
        """Return the first *limit* streams behind *after*, the oldest first, and the *after* of the next page.

        Raises:
            StateUnavailable: not all processes have answered.
        """
        behind = self._behind(after or "")
        said = await self._asked(LIST, [*behind, limit + 1], _listed)
        self._check(said)
        rows = self._rows(behind, limit + 1)
        for found in said.values():
            rows += found
        rows = heapq.nsmallest(limit + 1, rows, key=lambda row: row[0])
        page = rows[:limit]
        more = None
        if len(rows) > limit and page:
            began, id = page[-1][0]
            more = f"{began!r}/{id}" if said else id
        return [facts for _, facts in page], more

    def _behind(self, after: str) -> Place:
        """Return behind what a page begins: what an earlier page said, or the id of an open stream of this process."""
        began, slash, id = after.partition("/")
        stream = self._streams.get(after)
        if stream is not None:
            return self._place(stream)
        try:
            return (float(began), id) if slash else (0.0, "")
        except ValueError:
            return 0.0, ""

    def _rows(self, behind: Place, most: int) -> list[tuple[Place, StreamFacts]]:
        places = ((self._place(stream), stream) for stream in self._streams)
        found = heapq.nsmallest(most, (each for each in places if each[0] > behind), key=lambda each: each[0])
        return [(place, stream.facts()) for place, stream in found]

    def _place(self, stream: ClientStream) -> Place:
        return round(self._base + stream.begun, 6), stream.id

    async def _list(self, asked: Any) -> list[list[Any]]:
        began, id, most = asked
        return [[*place, *facts] for place, facts in self._rows((began, id), most)]

    async def figures(self) -> dict[str, Any]:
        """Return the figures of all processes that answer, added up, and how many those are."""
        own = self._figures()

        def read(answer: Any) -> Mapping[str, Any]:
            _added([own, answer])
            return dict(answer)

        said = [own, *(await self._asked(FIGURES, None, read)).values()]
        return {**_added(said), "processes": len(said)}

    async def _own_figures(self, asked: Any) -> Mapping[str, Any]:
        return self._figures()


def _added(figures: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums; but each process counts all notifications that were published, and since when it runs."""
    added: dict[str, Any] = {}
    for name, value in figures[0].items():
        values = [each[name] for each in figures if name in each]
        if isinstance(value, Mapping):
            added[name] = _added(values)
        else:
            added[name] = max(values) if name in {"published", "uptime"} else sum(values)
    return added


def _listed(found: list[list[Any]]) -> list[tuple[Place, StreamFacts]]:
    return [((float(began), str(id)), _facts(row)) for began, id, *row in found]


def _facts(row: list[Any]) -> StreamFacts:
    facts = StreamFacts(*row)
    reason = None if facts.reason is None else CloseReason(facts.reason)
    return facts._replace(kind=StreamKind(facts.kind), topics=tuple(facts.topics), reason=reason)
