"""How a stream is followed: where it goes on, when it is opened again, and when that would be in vain."""

from __future__ import annotations

import json
import string
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from hub.client.errors import ClientError, NotAHub, NotAuthenticated, Refused, Unreachable, ending
from hub.client.received import Item, facts_of, item_of
from hub.client.steps import EVENTS, JSON, Ask, Chance, Open, Read, Shut, Sleep, Step, Token, Tries, full_jitter
from hub.eventstream import Decoder, Message

PATH = "/notifications/subscribe"
ENVELOPE = "topics"
FIRST_RETRY = 3.0
LEAST_RETRY = 0.05
MOST_RETRY = 86_400.0  # what a notification may say
LONGEST_WAIT = 30.0
MAX_QUERY = 2_000
MAX_BLOCK_BYTES = 8 * 1024 * 1024


class Opened(NamedTuple):
    """The stream has begun: everything after *id* follows."""

    id: str


class Shown(NamedTuple):
    """Give *item* to whoever listens."""

    item: Item


class Pause(NamedTuple):
    """The stream is opened again after *seconds*; *error* is why it ended, or None: the hub has ended it."""

    seconds: float
    error: ClientError | None


class Told(NamedTuple):
    """Tell whoever watches the stream of a message of the hub itself, or of a pause."""

    what: Message | Pause


Course = Generator[Step | Opened | Shown | Told, Any, None]


class Following:
    """The course of one stream over all its connections.

    Attributes:
        cursor: the id up to which everything was given out; empty: nothing has begun.
    """

    def __init__(self, topics: Sequence[str], last_event_id: str, patience: float, chance: Chance) -> None:
        self.cursor = last_event_id
        self._topics = tuple(topics)
        self._patience, self._chance = patience, chance
        self._retry = FIRST_RETRY
        self._failures = 0
        self._began = False  # whether the last connection did
        self._tries: Tries | None = None  # until the first has begun

    def course(self) -> Course:
        """Yield what to do, and what has arrived, for ever.

        Raises:
            ClientError: it would be in vain to open the stream again; or no hub answered, for too long.
        """
        self._tries = Tries(self._patience, self._chance)
        token = yield Token()
        renewed = False  # whether the token in use took the place of one that was refused, and none has been taken yet
        while True:
            self._began = False
            failure: ClientError | None = None
            try:
                yield from self._connection(token)
            except ClientError as error:
                failure = error
            yield Shut()
            self._failures = 0 if self._began else self._failures + 1
            renewed = renewed and not self._began
            pause = 0.0
            if isinstance(failure, NotAuthenticated):
                other = None if renewed else (yield Token(token))
                at_once = failure.status is not None
                if other is None or (at_once and other == token):
                    raise failure
                token, renewed = other, at_once
                if at_once:
                    continue
                pause = self._retry  # the hub still takes the old one until it expires
            else:
                pause = self._pause(failure)
            pause = max(pause, LEAST_RETRY)
            yield Told(Pause(pause, failure))
            yield Sleep(pause)

    def _pause(self, failure: ClientError | None) -> float:
        """Return the seconds after which the stream is opened again. Raises *failure* if it is not."""
        if failure is None:
            return self._retry
        if failure.lasting:
            raise failure
        if self._tries is not None and not isinstance(failure, Refused):
            pause = self._tries.pause(failure)
            if pause is None:
                raise failure
            return pause
        if self._began:
            return self._retry  # each stream got another time from the hub
        jitter = full_jitter(self._chance, self._failures, max(self._retry, 0.1), LONGEST_WAIT)
        # All get the same `Retry-After`: they must not come back at the same moment, nor one at once for ever.
        return (failure.retry_after or 0.0) + jitter

    def _ask(self, token: str | None) -> Ask:
        query = urlencode([*(("topic", topic) for topic in self._topics), ("envelope", ENVELOPE)])
        headers = {"Accept": EVENTS}
        if self.cursor:  # no hub writes other characters, but whatever answered before may have
            headers["Last-Event-ID"] = quote(self.cursor, safe=string.punctuation, errors="replace")
        if len(query) <= MAX_QUERY:
            return Ask("GET", f"{PATH}?{query}", token, None, headers)
        body = json.dumps({"topics": self._topics}).encode()
        return Ask("POST", f"{PATH}?envelope={ENVELOPE}", token, body, {**headers, "Content-Type": JSON})

    def _connection(self, token: str | None) -> Course:
        """Read one connection to its end.

        Raises:
            Refused: the hub ended the stream for good, or does not begin it.
        """
        answer = yield Open(self._ask(token), EVENTS)
        answer.check(200, media_type=EVENTS)
        decoder = Decoder(self.cursor)
        close: Message | None = None
        unread = 0
        try:
            while part := (yield Read()):
                unread += len(part)
                for message in decoder.feed(part):
                    unread = 0
                    self.cursor = decoder.last_event_id
                    close = message if message.type == "hub.close" else None
                    yield from self._take(message)
                if unread > MAX_BLOCK_BYTES:
                    raise NotAHub(answer.url, 501, f"a block of more than {MAX_BLOCK_BYTES:,} bytes")
        finally:
            self.cursor = decoder.last_event_id
            self._retry = self._retry if decoder.retry is None else min(decoder.retry / 1000, MOST_RETRY)
        if close is None and not self._began:
            raise Unreachable(answer.url, "the stream ended before it began")
        if close is not None:
            facts = facts_of(close)
            ended = ending(str(facts.get("reason", "")), str(facts.get("topic") or ""))
            if ended is not None:
                raise ended

    def _take(self, message: Message) -> Course:
        if message.type == "hub.open":
            self._began, self._tries = True, None
            yield Opened(message.id)
        if message.type.startswith("hub."):
            yield Told(message)
        item = item_of(message)
        if item is not None:
            yield Shown(item)
