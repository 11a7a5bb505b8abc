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
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

from hub.errors import GenerationEnded, TooLarge

logger = logging.getLogger("hub.generation")

LOOK_AHEAD_CHARACTERS = 256 * 1024
LATENESS = 4.0
"""How much longer a part gathers, in terms of how late the last one was: less lets the loop fall behind for good."""
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
    """Who watches. It never waits and never raises."""

    def news(self) -> None:
        """Hear that there is more to send, or that the generation has ended."""
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


Keep = Callable[["TokenStream", "str | Ending"], None]


class TokenStream:
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
        touched: when something was appended last, in seconds of `time.monotonic`, as the registry notes it.
        stop_producer: called when it is over, however that came about; perhaps twice.
    """

    __slots__ = (
        "_closing",
        "_half",
        "_joined",
        "_joined_parts",
        "_keep",
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
        self.touched = 0.0
        self.stop_producer: Callable[[], object] = lambda: None
        self._keep = keep
        self._window, self._most = window, most
        self._longer = 0.0  # seconds beyond the window, while the loop has more to do than it can
        self._parts: list[str] = []
        self._joined, self._joined_parts = "", 0  # the text as of when somebody asked for all of it
        self._pending: list[str] = []
        self._half = ""  # of a character whose other half comes with the next piece
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        self._unkept = 0  # characters on their way to where they are kept
        self._room: asyncio.Event | None = None  # made when somebody has to wait for it
        self._closing = False
        self._viewers: dict[Viewer, None] = {}
        self._shared: dict[object, bytes] = {}
        self._on_end: list[Callable[[TokenStream], None]] = []

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
        self._close(Ending(Phase.DONE, {"finishReason": reason, "usage": dict(usage) if usage else None}))

    def fail(self, reason: str, message: str) -> None:
        """End it badly: *reason* is a word for programs, *message* a sentence that gives nothing away."""
        self._close(Ending(Phase.FAILED, {"reason": reason, "message": message}))

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
        """Make a part of what has gathered; if the time for that has long come, let the next gather for longer."""
        assert self._timer is not None
        late = asyncio.get_running_loop().time() - self._timer.when()
        self._longer = min(LATENESS * late, LONGEST_SECONDS)
        self._flush()

    def _flush(self) -> None:
        """Make a part of what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            text = self._pending[0] if len(self._pending) == 1 else "".join(self._pending)
            self._pending.clear()
            self._unkept += len(text)
            self.given += 1
            self._keep(self, text)

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
                viewer.news()
        if self.ending is not None:
            for call in self._on_end:
                try:
                    call(self)
                except Exception:
                    logger.exception("somebody failed to hear that generation %s has ended", self.id[:6])
            self._on_end.clear()

    def lose(self, reason: str, message: str) -> None:
        """End it badly without keeping that: what keeps it is gone."""
        self._pending.clear()
        self.stop_producer()
        self.kept(Ending(Phase.FAILED, {"reason": reason, "message": message}))

    def on_end(self, call: Callable[[TokenStream], None]) -> None:
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
        return len(self._parts)

    def text(self, after: int = 0) -> str:
        """Return the text behind part *after*, as far as it is kept."""
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
