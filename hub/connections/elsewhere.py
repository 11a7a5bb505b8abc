"""The open streams of the other processes of a hub: found, counted, listed, changed and ended from here."""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from hub.connections.client_stream import ClientStream, CloseReason, StreamFacts, StreamKind
from hub.connections.registry import StreamRegistry
from hub.errors import StateUnavailable
from hub.state.peers import Peers

logger = logging.getLogger("hub.peers")

T = TypeVar("T")

FIND, END, LIST, SLOWEST, FIGURES = "find a stream", "end a stream", "list streams", "slowest streams", "figures"


class Elsewhere(NamedTuple):
    """An open stream of another process.

    Attributes:
        peer: names the process.
        user: who holds the stream; None: nobody knows.
    """

    peer: str
    user: str | None


class Wanted(NamedTuple):
    """Which streams are listed; None: whatever it is.

    Attributes:
        kind: what the client holds open.
        user: who holds them.
        address: of the client.
        topic: a topic or pattern that they asked for, as it is written.
    """

    kind: str | None = None
    user: str | None = None
    address: str | None = None
    topic: str | None = None

    def accepts(self, stream: ClientStream) -> bool:
        """Return whether *stream* is listed."""
        return (
            (self.kind is None or stream.kind == self.kind)
            and (self.user is None or stream.holder.user == self.user)
            and (self.address is None or stream.address == self.address)
            and (self.topic is None or self.topic in stream.topics)
        )


ALL = Wanted()


class Listed(NamedTuple):
    """An open stream in a list.

    Attributes:
        facts: what can be told of it.
        worker: names the process that it is in.
    """

    facts: StreamFacts
    worker: str


Burden = tuple[int, int, int]
"""How badly a stream does: bytes that wait for it, what was dropped, how far it is behind."""

Place = tuple[float, str]
"""When a stream began, in seconds since 1970, and its id: the order of all streams of a hub."""


class StreamsElsewhere:
    """What concerns the streams of all processes.

    Args:
        streams: those of this process.
        peers: the others.
        figures: the figures of this process; those of all are added up.
        name: names this process in lists of streams.
    """

    def __init__(
        self, streams: StreamRegistry, peers: Peers, figures: Callable[[], Mapping[str, Any]], name: str = ""
    ) -> None:
        self._streams, self._peers, self._figures, self._name = streams, peers, figures, name
        self._base = time.time() - time.monotonic()  # the order of the streams does not follow the clock
        peers.answer(FIND, self._find)
        peers.answer(END, self._end)
        peers.answer(LIST, self._list)
        peers.answer(SLOWEST, self._slowest)
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

    async def page(self, after: str | None, limit: int, wanted: Wanted = ALL) -> tuple[list[Listed], str | None]:
        """Return the first *limit* streams behind *after*, the oldest first, and the *after* of the next page.

        Raises:
            StateUnavailable: not all processes have answered.
        """
        behind = self._behind(after or "")
        said = await self._asked(LIST, [*behind, limit + 1, *wanted], _listed)
        self._check(said)
        rows = [(place, Listed(facts, self._name)) for place, facts in self._rows(behind, limit + 1, wanted)]
        for found in said.values():
            rows += found
        rows = heapq.nsmallest(limit + 1, rows, key=lambda row: row[0])
        page = rows[:limit]
        more = None
        if len(rows) > limit and page:
            began, id = page[-1][0]
            more = f"{began!r}/{id}" if said else id
        return [listed for _, listed in page], more

    async def slowest(self, limit: int, wanted: Wanted = ALL) -> list[Listed]:
        """Return the *limit* streams for which most waits, or was dropped, or that are farthest behind; worst first.

        Raises:
            StateUnavailable: not all processes have answered.
        """
        said = await self._asked(SLOWEST, [limit, *wanted], _with_burdens)
        self._check(said)
        rows = [(burden, Listed(facts, self._name)) for burden, facts in self._burdened(limit, wanted)]
        for found in said.values():
            rows += found
        return [listed for _, listed in heapq.nlargest(limit, rows, key=lambda row: row[0])]

    def _burdened(self, most: int, wanted: Wanted) -> list[tuple[Burden, StreamFacts]]:
        burdens = (((each.buffered, each.dropped, each.lag), each) for each in self._streams if wanted.accepts(each))
        found = heapq.nlargest(most, burdens, key=lambda row: row[0])
        return [(burden, stream.facts()) for burden, stream in found]

    async def _slowest(self, asked: Any) -> list[list[Any]]:
        most, *wanted = asked
        return [[*burden, self._name, *facts] for burden, facts in self._burdened(most, Wanted(*wanted))]

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

    def _rows(self, behind: Place, most: int, wanted: Wanted) -> list[tuple[Place, StreamFacts]]:
        places = ((self._place(stream), stream) for stream in self._streams if wanted.accepts(stream))
        found = heapq.nsmallest(most, (each for each in places if each[0] > behind), key=lambda each: each[0])
        return [(place, stream.facts()) for place, stream in found]

    def _place(self, stream: ClientStream) -> Place:
        return round(self._base + stream.begun, 6), stream.id

    async def _list(self, asked: Any) -> list[list[Any]]:
        began, id, most, *wanted = asked
        return [[*place, self._name, *facts] for place, facts in self._rows((began, id), most, Wanted(*wanted))]

    async def figures(self) -> dict[str, Any]:
        """Return the figures of all processes that answer, added up, how many those are, and `workers`: each one's own.

        Those are by name of the process; where two have the same name, it is followed by what tells them apart.
        """
        own = dict(self._figures())
        sums = _sums(own)

        def read(answer: Any) -> dict[str, Any]:
            _added([sums, _sums(answer)])  # raises if another version answers it
            return dict(answer)

        said = {self._peers.id: own, **await self._asked(FIGURES, None, read)}
        workers = _by_name({peer: figures.pop("worker", {}) for peer, figures in said.items()})
        return {**_added(list(said.values())), "processes": len(said), "workers": workers}

    async def _own_figures(self, asked: Any) -> Mapping[str, Any]:
        return self._figures()


_LARGEST = {"published", "uptime", "log_answered_seconds_ago"}


def _sums(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *figures* that are added up: all but what each process says of itself."""
    return {name: value for name, value in figures.items() if name != "worker"}


def _added(figures: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums; but each process counts all notifications that were published, and since when it runs."""
    added: dict[str, Any] = {}
    for name, value in ((name, value) for each in figures for name, value in each.items()):
        if name in added:
            continue
        values = [each[name] for each in figures if name in each]
        if isinstance(value, Mapping):
            added[name] = _added(values)
        else:
            added[name] = max(values) if name in _LARGEST else sum(values)
    return added


def _by_name(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the own figures of each process by its name, which `figures` had among them; two may have the same."""
    names = Counter(own.get("name", peer) for peer, own in workers.items())
    found = {}
    for peer, own in workers.items():
        name = own.get("name", peer)
        found[name if names[name] == 1 else f"{name}-{peer}"] = {key: own[key] for key in own if key != "name"}
    return found


def _listed(found: list[list[Any]]) -> list[tuple[Place, Listed]]:
    return [((float(began), str(id)), Listed(_facts(row), str(worker))) for began, id, worker, *row in found]


def _with_burdens(found: list[list[Any]]) -> list[tuple[Burden, Listed]]:
    return [
        ((int(buffered), int(dropped), int(lag)), Listed(_facts(row), str(worker)))
        for buffered, dropped, lag, worker, *row in found
    ]


def _facts(row: list[Any]) -> StreamFacts:
    facts = StreamFacts(*row)
    reason = None if facts.reason is None else CloseReason(facts.reason)
    return facts._replace(kind=StreamKind(facts.kind), topics=tuple(facts.topics), reason=reason)
