"""What a client has to do next, decided without doing it: requests, waits and tokens as values.

An operation is a generator. It yields a step; whoever runs it (a thread, or a task) does that, and sends the result
back in, or throws the error. So both clients share every decision, and tests need no socket.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, TypeVar

from hub.client.errors import ClientError, NotAHub, NotAuthenticated, refusal

MAX_PROBLEM_BYTES = 64 * 1024
MAX_RETRY_AFTER = 3_600
FEWEST_TRIES = 3
MAX_PATIENCE = 240.0
"""Seconds: the hub forgets the keys that make a repetition harmless after 300."""

FIRST_WAIT = 0.25
LONGEST_WAIT = 5.0

PROBLEM = "application/problem+json"
JSON = "application/json"
EVENTS = "text/event-stream"

T = TypeVar("T")


class Ask(NamedTuple):
    """Send a request; the result is its `Answer`.

    Attributes:
        path: with its query, after the address of the hub.
        body: JSON, or none.
        most: bytes that the answer may have.
    """

    method: str
    path: str
    token: str | None
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    most: int = MAX_PROBLEM_BYTES


class Open(NamedTuple):
    """Send a request whose answer is read piece by piece, with `Read`; the result is the `Answer` without its body.

    An answer that is not of *media_type* is read at once, up to 64 KiB.
    """

    ask: Ask
    media_type: str


class Read(NamedTuple):
    """Read what has arrived of the open answer; the result is its bytes, empty at its end."""


class Shut(NamedTuple):
    """Close the open answer, if there is one."""


class Sleep(NamedTuple):
    """Wait that many seconds."""

    seconds: float


class Token(NamedTuple):
    """Get the token to send; the result is None if there is none.

    Attributes:
        instead: the token that is no longer valid: ask for another one.
    """

    instead: str | None = None


class Answer(NamedTuple):
    """What answered a request.

    Attributes:
        url: where it was asked, for errors.
        headers: with names in lower case.
        body: None if it was longer than it may be.
    """

    url: str
    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def check(self, *expected: int, media_type: str) -> None:
        """Check that it has one of the *expected* statuses and is of *media_type*.

        Raises:
            Refused: the hub said why not.
            NotAHub: no hub sends such an answer.
        """
        if self.status in expected and self.media_type == media_type:
            return
        problem = self.json() if self.media_type == PROBLEM and self.status not in expected else None
        if not isinstance(problem, dict) or not isinstance(problem.get("detail"), str):
            raise self.not_a_hub()
        if self.status == 404 and problem.get("type") == "about:blank":  # a hub, but not of this path
            raise self.not_a_hub()
        raise refusal(self.status, problem, self._retry_after())

    def facts(self, *expected: int) -> Any:
        """Return the JSON in it. Raises as `check`."""
        self.check(*expected, media_type=JSON)
        return self.json()

    def json(self) -> Any:
        """Return the JSON in it; None if it has none."""
        try:
            return None if self.body is None else json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def not_a_hub(self) -> NotAHub:
        """Return the error that says so."""
        place = self.headers.get("location", "")
        if 300 <= self.status < 400 and re.fullmatch(r"[!-~]{1,300}", place):
            what = f"a redirect to {re.split('[?#]', place)[0]}"
        else:
            what = self.media_type or "no media type"
        kind = f"{self.status} {self.phrase}".strip() + f" ({what})"
        return NotAHub(self.url, self.status, kind, retry_after=self._retry_after())

    def _retry_after(self) -> float | None:
        said = self.headers.get("retry-after", "")
        return float(min(int(said), MAX_RETRY_AFTER)) if re.fullmatch("[0-9]{1,9}", said) else None


Step = Ask | Open | Read | Shut | Sleep | Token
Steps = Generator[Step, Any, T]


class Chance(NamedTuple):
    """Where time and random numbers come from."""

    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


def full_jitter(chance: Chance, failures: int, first: float, longest: float) -> float:
    """Return how many seconds to wait after *failures* failures in a row: any time up to a bound that doubles.

    Clients that failed at the same moment, as all do when a hub restarts, so come back spread over the whole time. If
    only a part of it were random, they would come in waves.
    """
    return chance.uniform(0.0, min(longest, first * 2.0 ** min(failures, 30)))


class Tries:
    """The tries of one request: at least three, and more until *patience* seconds have passed.

    A time that the hub asks for (`Retry-After`) is waited in full, unless it ends after that. No try begins later than
    240 seconds after the first, however long those before took: the hub may have forgotten the key.
    """

    def __init__(self, patience: float, chance: Chance) -> None:
        self._patience, self._chance = patience, chance
        begun = chance.clock()
        self._end, self._last = begun + patience, begun + MAX_PATIENCE
        self._failures = 0

    def pause(self, error: ClientError) -> float | None:
        """Return the seconds after which to try again after *error*; None: do not."""
        if error.lasting:
            return None
        jitter = full_jitter(self._chance, self._failures, FIRST_WAIT, LONGEST_WAIT)
        pause = jitter + (error.retry_after or 0.0)
        self._failures += 1
        then = self._chance.clock() + pause
        if then > self._last:
            return None
        late = then > self._end
        if late and (self._failures >= FEWEST_TRIES or (error.retry_after or 0.0) > self._patience):
            return None
        return pause


def persistent(
    once: Callable[[str | None], Generator[Step, Any, T]], patience: float, chance: Chance, *, repeats: bool = True
) -> Steps[T]:
    """Return the result of the steps of *once*, which gets the token; try again after errors that may pass.

    A token that the hub refuses is renewed once. Without *repeats* nothing else is tried again.
    """
    tries = Tries(patience, chance)
    token = yield Token()
    renewed = False
    while True:
        try:
            return (yield from once(token))
        except NotAuthenticated as error:
            other = None if renewed else (yield Token(token))
            if other is None or other == token:
                raise
            renewed, token = True, other
            del error
        except ClientError as error:
            pause = tries.pause(error) if repeats else None
            if pause is None:
                raise
            yield Sleep(pause)
