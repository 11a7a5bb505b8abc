"""The processes of one hub: what each of them holds, and what they ask one another.

Each process says what it holds now (users on topics, generations that run in it). All others know that, and notice when
a process is gone: it has a lease, which it has to renew. One that was stopped for longer than its lease says everything
anew when it goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

ANSWER_SECONDS = 2.0
CLAIM_SECONDS = 10.0


class News(NamedTuple):
    """That another process holds something from now on, or something else, or no longer.

    Attributes:
        peer: names the process.
        key: what it is about.
        before: what the process held under that key; None: nothing.
        now: what it holds there now, JSON; None: nothing.
        died: it is so because the process has not renewed its lease.
    """

    peer: str
    key: str
    before: Any
    now: Any
    died: bool = False


Heard = Callable[[News], None]
Handler = Callable[[Any], Awaitable[Any]]
"""Returns the answer, JSON, to a question of another process; what it raises as a `HubError` is raised there."""


class Peers(Protocol):
    """The other processes of the same hub. All calls belong to the event loop's thread."""

    @property
    def id(self) -> str:
        """Names this process among them."""
        ...

    @property
    def others(self) -> int:
        """How many other processes there are."""
        ...

    @property
    def first(self) -> bool:
        """Whether this process is the one of them all that does what one has to do."""
        ...

    async def open(self) -> None:
        """Begin, on the running loop.

        Raises:
            StateUnavailable: the other processes can't be reached; says why.
        """
        ...

    def follow(self, kind: str, heard: Heard) -> None:
        """Call *heard* with each thing of *kind* that another process holds from now on, or no longer."""
        ...

    def hold(self, kind: str, key: str, value: Any) -> None:
        """Tell the others that this process holds *value*, JSON, under *key*; None: no longer."""
        ...

    def holder(self, kind: str, key: str) -> str | None:
        """Return which other process holds something under *key*; None: none does."""
        ...

    @property
    def sure(self) -> bool:
        """Whether this process has its lease for certain: none of the others can take it for gone."""
        ...

    async def alive(self, peer: str) -> bool:
        """Return whether *peer* is a process that has its lease.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def claim(self, name: str) -> bool:
        """Return whether this process does *name* now: of all that ask at once, one does, until `release`.

        A claim that is not released ends after 10 seconds.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def release(self, name: str) -> None:
        """End a claim that this process has.

        Raises:
            StateUnavailable: it is not known whether that was heard.
        """
        ...

    def on_gone(self, gone: Callable[[str], None]) -> None:
        """Call *gone* with each process that is gone; with this one's own id, if it has lost its lease."""
        ...

    def answer(self, question: str, handler: Handler) -> None:
        """Have *handler* answer what other processes ask with this *question*."""
        ...

    async def ask(self, peer: str, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Any:
        """Return the answer of one process.

        Raises:
            StateUnavailable: there is none within so many *seconds*.
            HubError: what its handler raised.
        """
        ...

    async def ask_all(self, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Mapping[str, Any]:
        """Return by process the answers of all others that come within so many *seconds*."""
        ...

    async def aclose(self) -> None:
        """Tell the others, if that is possible at once, that this process holds nothing any more."""
        ...


class Alone:
    """The only process of its hub."""

    id = "here"
    others = 0
    first = True
    sure = True

    async def open(self) -> None:
        pass

    def follow(self, kind: str, heard: Heard) -> None:
        pass

    def hold(self, kind: str, key: str, value: Any) -> None:
        pass

    def holder(self, kind: str, key: str) -> str | None:
        return None

    async def alive(self, peer: str) -> bool:
        return False  # whatever another one was, it is no more

    async def claim(self, name: str) -> bool:
        return True

    async def release(self, name: str) -> None:
        pass

    def on_gone(self, gone: Callable[[str], None]) -> None:
        pass

    def answer(self, question: str, handler: Handler) -> None:
        pass

    async def ask(self, peer: str, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Any:
        raise LookupError(peer)

    async def ask_all(self, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Mapping[str, Any]:
        return {}

    async def aclose(self) -> None:
        pass
