"""One generation: a text that grows, in numbered parts, and who watches it.

A producer appends; what comes within a few milliseconds becomes one part, which is kept and only then delivered. A
viewer has nothing but a cursor, the number of the last part it was sent: one that falls behind gets what it missed in
one piece, and one that stalls costs the others nothing.

    streaming ──finish──> done
        ├──────fail────> failed
        └─────cancel───> cancelled
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from hub.errors import GenerationEnded, TooLarge
from hub.eventstream import compact_json

logger = logging.getLogger("hub.generation")

LOOK_AHEAD_CHARACTERS = 256 * 1024
PART_CHARACTERS = 160 * 1024
"""A part has this many at most: however they have to be escaped, they fit into a record of the log."""
MODEL_LENGTH = 256
"""How many characters the name of a model may have, where a client says it."""
FACT_BYTES = 4 * 1024
"""What a provider says of an end, such as its usage: a fact with more bytes than this, as JSON, is left out."""
FACT_DEPTH = 32
"""How deep it may be nested."""
SHARED = 16
"""How many answers to viewers are kept for the next one who asks the same."""
LATENESS = 4.0
"""How much longer a part gathers, in terms of how late the last two were: less lets the loop fall behind for good."""
LONGEST_SECONDS = 0.5
"""How much longer at most: beyond that a text no longer flows."""


class Phase(enum.StrEnum):
    """Where a generation stands."""

    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Ending(NamedTuple):
    """How a generation ended.

    Attributes:
        phase: any but streaming.
        facts: what is told of it: `finishReason` and `usage` of what is done, `reason` and `message` of what failed.
    """

    phase: Phase
    facts: Mapping[str, Any]


class Viewer(Protocol):
    """Who watches. It never waits; one that raises is cut, and nobody else feels it."""

    def news(self) -> None:
        """Hear that there is more to send, or that the generation has ended."""
        ...

    def abort(self) -> None:
        """Be cut."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a generation from its beginning.

    Attributes:
        id: its name, which nobody can guess.
        owner: who may watch and stop it; None: whoever knows the id.
        model: what answers, if that was said.
        created: in seconds since 1970.
        asked: a digest of the question, so that a key that comes with another one is noticed.
    """

    id: str
    owner: str | None
    model: str | None
    created: float
    asked: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it in a form that JSON can carry."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Head:
        """Return what `as_json` was made of."""
        return cls(**fields)


_OVERHEAD = 650  # what a generation costs beside what it was given: its objects, and its places in the registry


Keep = Callable[["Generation", "str | Ending"], None]


class Generation:
    """One generation.

    Args:
        head: what is known of it already.
        keep: takes each part, and the ending, in order; when it is safe, it calls `kept` with the same. By default
            that is at once.
        window: how many seconds text gathers before it becomes a part, and up to half a second more while the loop is
            behind; 0: each append is one.
        most: bytes the answer may have.

    Attributes:
        head: what is known of it from its beginning.
        ending: how it ended; None while it streams.
        ended_at: when, in seconds since 1970, as the registry notes it; 0 before.
        given: how many parts were given to be kept so far.
        key: what leads to it where it began with an idempotency key, as the registry notes it.
        touched: when something was appended last, in seconds of `time.monotonic`, as the registry notes it.
        stop_producer: called when it is over, however that came about; perhaps twice.
    """

    __slots__ = (
        "_closing",
        "_cost",
        "_ends",
        "_half",
        "_joined",
        "_joined_parts",
        "_keep",
        "_late",
        "_longer",
        "_most",
        "_on_end",
        "_parts",
        "_pending",
        "_room",
        "_shared",
        "_size",
        "_timer",
        "_unkept",
        "_viewers",
        "_window",
        "ended_at",
        "ending",
        "given",
        "head",
        "key",
        "stop_producer",
        "touched",
    )

    def __init__(
        self,
        head: Head,
        keep: Keep = lambda stream, what: stream.kept(what),
        *,
        window: float = 0.0,
        most: int = 1024 * 1024,
    ) -> None:
        self.head = head
        self.ending: Ending | None = None
        self.ended_at = 0.0
        self.given = 0
        self.key: str | None = None
        self.touched = 0.0
        self.stop_producer: Callable[[], object] = lambda: None
        self._keep = keep
        self._window, self._most = window, most
        self._late = 0.0  # seconds by which the last part was late
        self._longer = 0.0  # seconds beyond the window, while the loop has more to do than it can
        self._parts: list[str] = []
        self._joined, self._joined_parts = "", 0  # the text as of when somebody asked for all of it
        self._pending: list[str] = []
        self._half = ""  # of a character whose other half comes with the next piece
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        self._cost = 0
        self._unkept = 0  # characters on their way to where they are kept
        self._room: asyncio.Event | None = None  # made when somebody has to wait for it
        self._closing = False
        self._viewers: dict[Viewer, None] = {}
        self._ends: array[int] | None = None  # once it is over: where each part ends in the whole text
        self._shared: dict[object, bytes] = {}
        self._on_end: list[Callable[[Generation], None]] = []

    # ---- in ----

    @property
    def id(self) -> str:
        """Its name."""
        return self.head.id

    @property
    def size(self) -> int:
        """How many bytes were appended so far, kept or not."""
        return self._size

    @property
    def cost(self) -> int:
        """What keeping it costs once it is over, in bytes, everything counted; 0 before."""
        return self._cost + sum(map(sys.getsizeof, self._shared.values()))

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.ending.phase if self.ending is not None else Phase.STREAMING

    def append(self, text: str) -> None:
        """Add *text*; it is delivered once it is kept.

        Raises:
            GenerationEnded: it streams no longer.
            TooLarge: the answer would exceed its bound; nothing was added.
        """
        if self._closing:
            raise GenerationEnded(self.id)
        half = self._half
        if half or not text.isascii():
            text, half = _whole(half + text)
        size = len(text) if text.isascii() else len(text.encode())
        if self._size + size > self._most:
            raise TooLarge("answer", self._most)
        self._half = half
        if not text:
            return
        self._size += size
        self._pending.append(text)
        if not self._window:
            self._flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(loop.time() + self._window + self._longer, self._flush_in_time)

    @property
    def full(self) -> bool:
        """Whether more than 256 Ki characters were appended that are not kept yet."""
        return self._unkept > LOOK_AHEAD_CHARACTERS and self.ending is None

    async def room(self) -> None:
        """Wait while it is full."""
        while self.full:
            self._room = self._room or asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def finish(self, reason: str = "stop", usage: Mapping[str, Any] | None = None) -> None:
        """End it well. To end what has ended changes nothing, here and below."""
        facts = {"finishReason": _sayable(reason, "stop"), "usage": _sayable(dict(usage) if usage else None, None)}
        self._close(Ending(Phase.DONE, facts))

    def fail(self, reason: str, message: str) -> None:
        """End it badly: *reason* is a word for programs, *message* a sentence that gives nothing away."""
        facts = {"reason": _sayable(reason, "failed"), "message": _sayable(message, "the answer failed")}
        self._close(Ending(Phase.FAILED, facts))

    def cancel(self) -> None:
        """Stop it, and whoever produces it, at once."""
        self._close(Ending(Phase.CANCELLED, {}))

    def _close(self, ending: Ending) -> None:
        if self._closing:
            return
        if self._half:
            self._pending.append("\ufffd")  # the other half never came; three bytes beyond the bound hurt nobody
        self._flush()
        if self.ending is not None:  # the last part could not be kept
            return
        self._closing = True
        self.stop_producer()
        self._keep(self, ending)

    def _flush_in_time(self) -> None:
        """Make a part of what has gathered; if that is late again and again, let the next gather for longer."""
        assert self._timer is not None
        late = asyncio.get_running_loop().time() - self._timer.when()
        # Late once is a stall, after which nothing should wait; late twice is more than the loop can do.
        self._longer = min(LATENESS * min(late, self._late), LONGEST_SECONDS)
        self._late = late
        self._flush()

    def _flush(self) -> None:
        """Make a part of what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            text = self._pending[0] if len(self._pending) == 1 else "".join(self._pending)
            self._pending.clear()
            for place in range(0, len(text), PART_CHARACTERS):
                part = text[place : place + PART_CHARACTERS]
                self._unkept += len(part)
                self.given += 1
                self._keep(self, part)

    # ---- kept: from here on it is not lost ----

    def kept(self, what: str | Ending) -> None:
        """Deliver *what* is kept now; called in the order in which it was given to be kept."""
        if self.ending is not None:
            return
        if isinstance(what, str):
            self._unkept -= len(what)
            self._parts.append(what)
        else:
            self.ending = what
            self._closing = True
        if self._room is not None:
            self._room.set()
        self._shared.clear()
        for viewer in list(self._viewers):
            if viewer in self._viewers:  # it may leave because of what another one hears
                self._tell(viewer)
        if self.ending is not None:
            self._close_up()
            for call in self._on_end:
                try:
                    call(self)
                except Exception:
                    logger.exception("somebody failed to hear that generation %s has ended", self.id[:6])
            self._on_end.clear()
            self.stop_producer = _nothing  # with which go the producer, and what it still holds

    def _tell(self, viewer: Viewer) -> None:
        try:
            viewer.news()
        except Exception:
            logger.exception("a viewer of generation %s failed, and is cut", self.id[:6])
            self.leave(viewer)
            viewer.abort()

    def _close_up(self) -> None:
        """Keep the text of what is over in one piece."""
        text = self.text()
        self._ends = array("I", accumulate(map(len, self._parts)))
        self._joined, self._parts = text, []
        self._shared.clear()
        head, facts = self.head, self.ending.facts if self.ending is not None else {}
        given = (head.id, head.owner, head.model, head.asked, self.key, text, self._ends)
        self._cost = _OVERHEAD + sum(map(sys.getsizeof, given)) + _memory(facts)[0]

    @classmethod
    def over(cls, head: Head, parts: Sequence[str], ending: Ending, ended_at: float) -> Generation:
        """Return a generation that has ended, as it was kept."""
        stream = cls(head)
        stream._parts = list(parts)
        stream._size = sum(len(part.encode()) for part in parts)
        stream._closing, stream.ending, stream.ended_at = True, ending, ended_at
        stream._close_up()
        return stream

    def lose(self, reason: str, message: str) -> None:
        """End it badly without keeping that: what keeps it is gone."""
        self._pending.clear()
        self.stop_producer()
        self.kept(Ending(Phase.FAILED, {"reason": reason, "message": message}))

    def on_end(self, call: Callable[[Generation], None]) -> None:
        """Call *call* when it has ended."""
        self._on_end.append(call)

    async def ended(self) -> None:
        """Return when it has ended and that is kept."""
        if self.ending is None:
            over = asyncio.Event()
            self.on_end(lambda stream: over.set())
            await over.wait()

    # ---- out ----

    @property
    def newest(self) -> int:
        """The number of the newest part; 0 before the first."""
        return len(self._parts) if self._ends is None else len(self._ends)

    def text(self, after: int = 0) -> str:
        """Return the text behind part *after*, as far as it is kept."""
        if self._ends is not None:
            return self._joined[self._ends[after - 1] :] if after else self._joined
        if after:
            return self._parts[after] if after == len(self._parts) - 1 else "".join(self._parts[after:])
        if self._joined_parts < len(self._parts):
            self._joined += "".join(self._parts[self._joined_parts :])
            self._joined_parts = len(self._parts)
        return self._joined

    def shared(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return what *make* made for *key* since the last news: viewers that ask the same get the same bytes."""
        made = self._shared.get(key)
        if made is None:
            if len(self._shared) >= (SHARED if self._ends is None else 1):  # of what is over a copy is enough
                self._shared.clear()
            made = self._shared[key] = make()
        return made

    def watch(self, viewer: Viewer) -> None:
        """Tell *viewer* whenever there is news."""
        self._viewers[viewer] = None

    def leave(self, viewer: Viewer) -> None:
        """Tell *viewer* nothing more."""
        self._viewers.pop(viewer, None)

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)


def _nothing() -> None:
    """Stop nobody: there is nobody any more."""


def _sayable(fact: Any, instead: Any) -> Any:
    """Return *fact* as JSON would bring it back, or *instead* where that can't be told, or is too much to be kept.

    An end that nobody can be told is none. The copy is the hub's own: whatever it was made of may go.
    """
    try:
        return _copied(fact)
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning("of the end of an answer a fact is left out: %s", str(error)[:200])
        return instead


def _copied(fact: Any) -> Any:
    text = compact_json(fact)
    if len(text.encode()) > FACT_BYTES:
        raise ValueError(f"it has more than {FACT_BYTES:,} bytes as JSON")
    fact = json.loads(text)
    if _memory(fact)[1] > FACT_DEPTH:
        raise ValueError(f"it is nested more than {FACT_DEPTH} levels deep")
    return fact


def _memory(value: Any) -> tuple[int, int]:
    """Return how many bytes *value*, as JSON brings it, takes in memory, and how deep it is nested."""
    size = deepest = 0
    seen: set[int] = set()  # a name that comes again is the same object
    todo = [(value, 1)]
    while todo:
        each, depth = todo.pop()
        if id(each) in seen or each is None or isinstance(each, bool):
            continue
        seen.add(id(each))
        size += sys.getsizeof(each)
        if isinstance(each, dict):
            todo += [(part, depth + 1) for pair in each.items() for part in pair]
        elif isinstance(each, list):
            todo += [(part, depth + 1) for part in each]
        else:
            continue
        deepest = max(deepest, depth)
    return size, deepest


def _whole(text: str) -> tuple[str, str]:
    """Return *text* as UTF-8 can carry it, and the half of a character that may be at its end.

    Who cuts text by UTF-16 units, as JavaScript does, cuts characters in two: halves are joined, lone ones replaced.
    """
    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.removesuffix(half).encode("utf-16", "surrogatepass").decode("utf-16", "replace"), half
    return text, half
