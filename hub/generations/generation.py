"""One generation: a text that grows in numbered parts, and its viewers.

A producer appends text; what arrives within a few milliseconds becomes one part, which is first kept and then
delivered. The only state of a viewer is a cursor, the number of the last part it was sent: a viewer that falls behind
gets everything it missed in one piece, and one that stalls does not slow down the others.

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
"""Maximum length of a part: it fits into a record of the log, however its characters have to be escaped."""
MODEL_LENGTH = 256
"""Maximum length of a model's name that a client sends, in characters."""
FACT_BYTES = 4 * 1024
"""Maximum size as JSON of one fact that a provider gives about the end, such as the usage; a larger one is left out."""
FACT_DEPTH = 32
"""Maximum depth of lists and objects in such a fact."""
SHARED = 16
"""Number of encoded answers that are kept for other viewers with the same cursor."""
LATENESS = 4.0
"""Factor on the lateness of the last two parts: the next part gathers for so much longer than the window.

With a smaller factor the loop would fall behind for good.
"""
LONGEST_SECONDS = 0.5
"""Upper bound of that additional time: with more, the text would no longer appear to flow."""


class Phase(enum.StrEnum):
    """The state of a generation."""

    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Ending(NamedTuple):
    """How a generation ended.

    Attributes:
        phase: any but streaming.
        facts: what viewers are told: `finishReason` and `usage` if it is done, `reason` and `message` if it failed.
    """

    phase: Phase
    facts: Mapping[str, Any]


class Viewer(Protocol):
    """A viewer of a generation. Its methods never wait; one that raises is aborted, and no other viewer notices."""

    def news(self) -> None:
        """Take note that there is more to send, or that the generation has ended."""
        ...

    def abort(self) -> None:
        """Close the connection at once; nothing more is written."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The facts of a generation that are known when it begins.

    Attributes:
        id: its identifier, which cannot be guessed.
        owner: the user who may watch and stop it; None: everybody who knows the id.
        model: the name of the model, if one was given.
        created: when it began, in seconds since 1970.
        asked: a digest of the question, to notice an idempotency key that is used for another question.
        process: the process of the hub that produces it.
    """

    id: str
    owner: str | None
    model: str | None
    created: float
    asked: str = ""
    process: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary of JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Head:
        """Return the head that `as_json` returned *fields* for."""
        return cls(**fields)


_OVERHEAD = 650  # bytes of a generation beside its texts: its objects, and its entries in the registry


Keep = Callable[["Generation", "str | Ending"], None]


class Generation:
    """One generation.

    Args:
        head: the facts known at its beginning.
        keep: called with each part, and with the ending, in order; it stores them and then calls `kept` with the same
            argument. By default `kept` is called at once.
        window: seconds for which text gathers before it becomes a part, and up to half a second more while the loop is
            behind; 0: each append is a part.
        most: maximum size of the answer in bytes.

    Attributes:
        head: the facts known at its beginning.
        ending: how it ended; None while it streams.
        ended_at: when it ended, in seconds since 1970; set by the registry, 0 before.
        given: number of parts passed to *keep* so far.
        key: the topic of its idempotency key, if it began with one; set by the registry.
        touched: when the last part or ending was passed to *keep*, in seconds of `time.monotonic`; set by the registry.
        stop_producer: called when it ends for any reason; it may be called twice.
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
        self._longer = 0.0  # seconds that parts gather beyond the window while the loop is overloaded
        self._parts: list[str] = []
        self._joined, self._joined_parts = "", 0  # the whole text when it was last asked for, and its number of parts
        self._pending: list[str] = []
        self._half = ""  # a high surrogate whose low surrogate comes with the next piece
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        self._cost = 0
        self._unkept = 0  # characters passed to *keep* and not confirmed by `kept` yet
        self._room: asyncio.Event | None = None  # created by the first `room()` that has to wait
        self._closing = False
        self._viewers: dict[Viewer, None] = {}
        self._ends: array[int] | None = None  # after the end: where each part ends in the whole text
        self._shared: dict[object, bytes] = {}
        self._on_end: list[Callable[[Generation], None]] = []

    # ---- in ----

    @property
    def id(self) -> str:
        """Its identifier."""
        return self.head.id

    @property
    def size(self) -> int:
        """Number of bytes appended so far, kept or not."""
        return self._size

    @property
    def cost(self) -> int:
        """Memory in bytes, everything counted, that it takes after its end; 0 before."""
        return self._cost + sum(map(sys.getsizeof, self._shared.values()))

    @property
    def phase(self) -> Phase:
        """The state it is in."""
        return self.ending.phase if self.ending is not None else Phase.STREAMING

    def append(self, text: str) -> None:
        """Append *text*; it is delivered once it is kept.

        Raises:
            GenerationEnded: the generation has ended.
            TooLarge: the answer would exceed its bound; nothing was appended.
        """
        if self._closing:
            raise GenerationEnded(self.id)
        half = self._half
        if half or not text.isascii():
            text, half = _split_surrogate(half + text)
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
        """Whether more than 256 Ki characters wait to be kept."""
        return self._unkept > LOOK_AHEAD_CHARACTERS and self.ending is None

    async def room(self) -> None:
        """Wait until it is not `full`."""
        while self.full:
            self._room = self._room or asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def finish(self, reason: str = "stop", usage: Mapping[str, Any] | None = None) -> None:
        """End it as done. Here, in `fail` and in `cancel`: after the end, a call has no effect."""
        facts = {"finishReason": _storable(reason, "stop"), "usage": _storable(dict(usage) if usage else None, None)}
        self._close(Ending(Phase.DONE, facts))

    def fail(self, reason: str, message: str) -> None:
        """End it as failed: *reason* is a word for programs, *message* a sentence for people, without internals."""
        facts = {"reason": _storable(reason, "failed"), "message": _storable(message, "the answer failed")}
        self._close(Ending(Phase.FAILED, facts))

    def cancel(self) -> None:
        """End it as cancelled, and stop its producer."""
        self._close(Ending(Phase.CANCELLED, {}))

    def _close(self, ending: Ending) -> None:
        if self._closing:
            return
        if self._half:
            self._pending.append("\ufffd")  # the low surrogate never came; these 3 bytes may exceed the bound
        self._flush()
        if self.ending is not None:  # the last part could not be kept
            return
        self._closing = True
        self.stop_producer()
        self._keep(self, ending)

    def _flush_in_time(self) -> None:
        """Make a part of the gathered text; if two parts in a row were late, gather the next ones for longer."""
        assert self._timer is not None
        late = asyncio.get_running_loop().time() - self._timer.when()
        # Late once may be a single stall, and needs no delay; late twice means that the loop is overloaded.
        self._longer = min(LATENESS * min(late, self._late), LONGEST_SECONDS)
        self._late = late
        self._flush()

    def _flush(self) -> None:
        """Make a part of the gathered text and pass it to *keep*."""
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

    # ---- kept: from here on nothing is lost ----

    def kept(self, what: str | Ending) -> None:
        """Deliver *what*, a part or the ending that is now kept; *keep* calls this in the order of its own calls."""
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
            if viewer in self._viewers:  # another viewer's `news` may have made it leave
                self._notify(viewer)
        if self.ending is not None:
            self._compact()
            for call in self._on_end:
                try:
                    call(self)
                except Exception:
                    logger.exception("somebody failed to hear that generation %s has ended", self.id[:6])
            self._on_end.clear()
            self.stop_producer = _nothing  # releases the producer and everything it refers to

    def _notify(self, viewer: Viewer) -> None:
        try:
            viewer.news()
        except Exception:
            logger.exception("a viewer of generation %s failed, and is cut", self.id[:6])
            self.leave(viewer)
            viewer.abort()

    def _compact(self) -> None:
        """Join the text of an ended generation into one string, and compute its cost."""
        text = self.text()
        self._ends = array("I", accumulate(map(len, self._parts)))
        self._joined, self._parts = text, []
        self._shared.clear()
        head, facts = self.head, self.ending.facts if self.ending is not None else {}
        given = (head.id, head.owner, head.model, head.asked, self.key, text, self._ends)
        self._cost = _OVERHEAD + sum(map(sys.getsizeof, given)) + _memory(facts)[0]

    @classmethod
    def over(cls, head: Head, parts: Sequence[str], ending: Ending, ended_at: float) -> Generation:
        """Return an ended generation, made from what was kept of it."""
        stream = cls(head)
        stream._parts = list(parts)
        stream._size = sum(len(part.encode()) for part in parts)
        stream._closing, stream.ending, stream.ended_at = True, ending, ended_at
        stream._compact()
        return stream

    @classmethod
    def followed(cls, head: Head, parts: Sequence[str]) -> Generation:
        """Return a generation that streams in another process, made from what was kept of it so far.

        What follows is given to `kept`; it is ended only by that, and by `lose`.
        """
        stream = cls(head)
        stream._parts = list(parts)
        stream._size = sum(len(part.encode()) for part in parts)
        return stream

    def lose(self, reason: str, message: str) -> None:
        """End it as failed without passing the ending to *keep*, which is out of order."""
        self._pending.clear()
        self.stop_producer()
        self.kept(Ending(Phase.FAILED, {"reason": reason, "message": message}))

    def on_end(self, call: Callable[[Generation], None]) -> None:
        """Call *call* with this generation when it has ended."""
        self._on_end.append(call)

    async def ended(self) -> None:
        """Wait until it has ended and the ending is kept."""
        if self.ending is None:
            over = asyncio.Event()
            self.on_end(lambda stream: over.set())
            await over.wait()

    # ---- out ----

    @property
    def newest(self) -> int:
        """Number of the newest part; 0 before the first."""
        return len(self._parts) if self._ends is None else len(self._ends)

    def text(self, after: int = 0) -> str:
        """Return the kept text that follows part *after*."""
        if self._ends is not None:
            return self._joined[self._ends[after - 1] :] if after else self._joined
        if after:
            return self._parts[after] if after == len(self._parts) - 1 else "".join(self._parts[after:])
        if self._joined_parts < len(self._parts):
            self._joined += "".join(self._parts[self._joined_parts :])
            self._joined_parts = len(self._parts)
        return self._joined

    def shared(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return the bytes cached for *key*, or make and cache them; each new part or ending clears the cache.

        Viewers with the same dialect and cursor thus share the same bytes.
        """
        made = self._shared.get(key)
        if made is None:
            if len(self._shared) >= (SHARED if self._ends is None else 1):  # after the end, one copy is enough
                self._shared.clear()
            made = self._shared[key] = make()
        return made

    def watch(self, viewer: Viewer) -> None:
        """Call `viewer.news` for each new part and for the ending, until `leave`."""
        self._viewers[viewer] = None

    def leave(self, viewer: Viewer) -> None:
        """Stop calling *viewer*; one that does not watch is no error."""
        self._viewers.pop(viewer, None)

    @property
    def viewers(self) -> int:
        """Number of viewers."""
        return len(self._viewers)


def _nothing() -> None:
    """Do nothing: the producer has been stopped already."""


def _storable(fact: Any, instead: Any) -> Any:
    """Return *fact* as JSON would bring it back, or *instead* if it is no JSON or exceeds its bounds.

    Otherwise a fact that can't be encoded would keep the ending from being stored and sent. The result is a copy, so
    nothing that *fact* refers to stays in memory.
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
    """Return how many bytes *value*, made of JSON types only, takes in memory, and how deep it is nested."""
    size = deepest = 0
    seen: set[int] = set()  # the JSON reader uses one object for a name that occurs several times
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


def _split_surrogate(text: str) -> tuple[str, str]:
    """Return *text* in a form that UTF-8 can encode, and the high surrogate at its end, if there is one.

    Programs that cut text by UTF-16 units, as JavaScript does, split characters into surrogates: pairs are joined
    again, lone surrogates replaced.
    """
    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.removesuffix(half).encode("utf-16", "surrogatepass").decode("utf-16", "replace"), half
    return text, half
