"""The errors of the hub, named after what the caller did.

HubError
├── InvalidInput                    400  a field breaks its rule
│   ├── InvalidTopic                     … the grammar of topics and patterns
│   ├── InvalidDraft                     … the rules of a draft
│   ├── InvalidEventName                 … the grammar of event names and their patterns
│   ├── InvalidArchive                   … the format of an archive; names the line
│   └── KeyReused                   422  an idempotency key that was used for another question
├── TooLarge                        413  more bytes than the bound
├── UnsupportedMediaType            415  a body of another media type than expected
├── Unauthorized                    401  nobody known asks, or with a token that is not valid
├── Forbidden                       403  a right that the caller does not have; names the topic
├── CrossSite                       403  a change that a page of another site asks for
├── WrongHost                       421  a host name to which the hub does not answer
├── TooSlow                         408  a request whose body comes too slowly
├── UnsupportedEncoding             415  a compressed body
├── NotAWebSocket                   426  a path for WebSockets asked for anything else
├── NotThere                        404  something that is not there, or not any more
├── UnknownGeneration               404  an answer that does not exist, or belongs to somebody else
├── NotASubscription                409  changing the topics of a stream that has none
├── GenerationEnded                 409  appending to an answer that has ended
├── GenerationExpired               410  an answer that is no longer kept
├── TryLater                        503  nothing is wrong with the request
│   ├── AuthUnavailable                  who asks can't be told now
│   ├── LogUnavailable                   the log does not confirm, or too much waits for it
│   ├── StateUnavailable                 what is kept beside the log (revocations) is not confirmed
│   ├── TooManyGenerations          429  the maximum number of answers is being generated
│   ├── TooOften                    429  more a second than may be
│   │   ├── TooManyPublishes             … notifications
│   │   ├── TooManyRefusals              … requests that were refused: the next ones are not looked at
│   │   └── TooManyTickets               … tickets
│   ├── TooManyStreams                   the maximum number of streams is open
│   ├── EventBufferFull                  too many events wait to be dispatched
│   └── ShuttingDown                     this process is about to end
├── TooManyMemberships              409  a user, or all users together, belong to as many rooms as may be
├── LogNotEmpty                          importing a history into a log that has one
├── BusNotOpen                           waiting for handlers that are not bound yet
├── HandlerCancelled                     an event handler that ended by cancellation
├── AlreadySetUp                         a second hub in one application
├── WrongThread                          a call that must be made on the event loop's thread
├── InvalidSettings                      settings that prevent the start; names all of them
├── InvalidListener                      a listener that cannot be found or bound
└── UnsupportedAiohttp                   the installed aiohttp cannot hand a connection over
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hub.notification import Position

Outcome = Literal["not_kept", "unknown"]
"""What is known of a publish that was not confirmed."""


class HubError(Exception):
    """The base class of all errors that the hub raises on purpose; `status` is the HTTP status of the answer."""

    status = 500


class InvalidInput(HubError):
    """The caller sent a field that breaks its rule."""

    status = 400

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)
        self.field, self.why = field, why

    def __str__(self) -> str:
        return f"{self.field}: {self.why}"


class InvalidTopic(InvalidInput):
    """The caller named a topic or a pattern that breaks the topic grammar."""

    def __init__(self, topic: object, why: str, field: str = "topic") -> None:
        super().__init__(field, why)
        self.topic = topic

    def __str__(self) -> str:
        shown = repr(self.topic)
        return f"{self.field}: {shown if len(shown) <= 80 else shown[:77] + '...'} {self.why}"


class InvalidDraft(InvalidInput):
    """The caller sent a draft with a field that breaks its rule.

    Attributes:
        accepted: from `publish_many` of the Python client: the positions of the batches before.
    """

    accepted: tuple[Position, ...] = ()


class InvalidEventName(InvalidInput):
    """The caller named an event or a pattern that breaks the grammar of event names."""

    def __init__(self, name: object, why: str, field: str = "event") -> None:
        super().__init__(field, why)
        self.name = name

    def __str__(self) -> str:
        shown = repr(self.name)
        return f"{self.field}: {shown if len(shown) <= 80 else shown[:77] + '...'} {self.why}"


class InvalidArchive(InvalidInput):
    """The caller tried to import an archive that is truncated, or that has a line that breaks a rule."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}", why)
        self.line = line


class KeyReused(InvalidInput):
    """The caller sent an idempotency key that was used for another question."""

    status = 422

    def __init__(self) -> None:
        super().__init__("Idempotency-Key", "was used with another question")


class TooLarge(HubError):
    """The caller sent more bytes than the bound allows."""

    status = 413

    def __init__(self, field: str, bound: int) -> None:
        super().__init__(field, bound)
        self.field, self.bound = field, bound

    def __str__(self) -> str:
        return f"{self.field}: larger than {self.bound:,} bytes"


class UnsupportedMediaType(HubError):
    """The caller sent a body that its own `Content-Type` does not call JSON."""

    status = 415

    def __init__(self, media_type: str) -> None:
        super().__init__(media_type)
        self.media_type = media_type

    def __str__(self) -> str:
        return f"Content-Type: {self.media_type[:80]!r} is not application/json"


class NotAWebSocket(HubError):
    """The caller asked for a WebSocket without saying so as RFC 6455 does, or for another version than 13."""

    status = 426

    def __str__(self) -> str:
        return "send Connection: Upgrade, Upgrade: websocket and Sec-WebSocket-Version: 13"


class Unauthorized(HubError):
    """Nobody known asks, or with a token that is not valid; `code` is a word for programs, `why` a sentence."""

    status = 401

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why

    def __str__(self) -> str:
        return self.why


class Forbidden(HubError):
    """The caller lacks a right; `topic` is the first topic or pattern that no grant covers, empty if it is none."""

    status = 403
    code = "forbidden"

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(topic, why)
        self.topic, self.why = topic, why

    def __str__(self) -> str:
        return f"{self.topic}: {self.why}" if self.topic else self.why


class CrossSite(HubError):
    """A page of another site, whose origin is not allowed, sent a request in the name of a user."""

    status = 403

    def __init__(self, why: str = "add its origin to HUB_CORS_ORIGINS if it may") -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"a page of another site may not do this; {self.why}"


class WrongHost(HubError):
    """The caller asked for a host name to which the hub does not answer."""

    status = 421

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return f"Host: {self.host[:80]!r} is no name of this hub: it answers to loopback names and the allowed_hosts"


class TooSlow(HubError):
    """The caller took longer to send the body of its request than it may."""

    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the body was not complete within {self.seconds:g} seconds"


class UnsupportedEncoding(HubError):
    """The caller sent a compressed body; it is refused because a few bytes can expand beyond the bound."""

    status = 415

    def __init__(self, encoding: str) -> None:
        super().__init__(encoding)
        self.encoding = encoding

    def __str__(self) -> str:
        return f"Content-Encoding: {self.encoding[:80]!r} is not supported: send the body as it is"


class TryLater(HubError):
    """The hub can't fulfil a valid request now; the same request may succeed after `retry_after` seconds."""

    status = 503
    retry_after = 1


class TooManyGenerations(TryLater):
    """The maximum number of answers is being generated, of one user or altogether; `limit` is the setting."""

    status = 429

    def __init__(self, whose: str, bound: int, limit: str) -> None:
        super().__init__(whose, bound, limit)
        self.whose, self.bound, self.limit = whose, bound, limit

    def __str__(self) -> str:
        return f"{self.bound:,} answers are being generated already, {self.whose}"


class TooOften(TryLater):
    """The caller, or all callers together, did something more often a second than they may.

    `limit` is the setting that says how often, `retry_after` the seconds until the next one may come.
    """

    status = 429
    what = "requests"

    def __init__(self, limit: str, per_second: float, wait: float) -> None:
        super().__init__(limit, per_second, wait)
        self.limit, self.per_second = limit, per_second
        self.retry_after = max(1, math.ceil(wait))

    def __str__(self) -> str:
        return f"more than {self.per_second:g} {self.what} a second ({self.limit}): wait {self.retry_after} s"


class TooManyPublishes(TooOften):
    """The caller, or all callers together, published more notifications a second than may be."""

    what = "notifications"


class TooManyRefusals(TooOften):
    """So many requests of the caller's address, or user, were refused that the next ones are not looked at."""

    code = "capacity"
    what = "refused requests"


class TooManyTickets(TooOften):
    """The caller asked for more tickets a second than may be given to one user."""

    what = "tickets"


class TooManyStreams(TryLater):
    """The maximum number of streams is open, or they are opened too fast; `limit` is the setting that says so."""

    retry_after = 10

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"there are as many streams as there may be ({self.limit})"


class AuthUnavailable(TryLater):
    """Who asks can't be told now: what would say so fails or does not answer."""

    code = "auth_unavailable"

    def __str__(self) -> str:
        return "who you are can't be checked now: try again later"


class LogUnavailable(TryLater):
    """The log does not confirm, or too much already waits for it; a retry with the same key is safe.

    `outcome` says of a publish whether it was not kept, or whether that is unknown; None where that was not asked for.
    """

    def __init__(self, why: str, outcome: Outcome | None = None) -> None:
        super().__init__(why)
        self.why, self.outcome = why, outcome

    def __str__(self) -> str:
        return f"the log is not available: {self.why}"


class StateUnavailable(TryLater):
    """What is kept beside the log (revocations, tickets) is not confirmed; the same request again is safe."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the state is not available: {self.why}"


class EventBufferFull(TryLater):
    """The maximum number of events waits for the bus to open, or for its loop to dispatch them."""

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self.bound = bound

    def __str__(self) -> str:
        return f"{self.bound:,} events already wait for the event bus to dispatch them"


class ShuttingDown(TryLater):
    """This process is ending and accepts nothing new."""

    retry_after = 2

    def __str__(self) -> str:
        return "the hub is shutting down"


class TooManyMemberships(HubError):
    """There are as many memberships in rooms as there may be, of `user`, or of all users together (None)."""

    status = 409

    def __init__(self, user: str | None, bound: int) -> None:
        super().__init__(user, bound)
        self.user, self.bound = user, bound

    def __str__(self) -> str:
        whose = "all users together have" if self.user is None else "the user has"
        return f"{whose} {self.bound:,} memberships in rooms, and may have no more"


class LogNotEmpty(HubError):
    """The caller tried to import a history into a log that already has one."""

    def __str__(self) -> str:
        return "the log is not empty: an import takes a file that is new, or a log that never held anything"


class NotThere(HubError):
    """The caller named something that is not there, or not any more; `what` says what kind of thing, `why` may tell."""

    status = 404

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(what, why)
        self.what, self.why = what, why

    def __str__(self) -> str:
        return self.why or f"there is no such {self.what}"


class NotASubscription(HubError):
    """The caller tried to change the topics of a stream that has none; `kind` says what it is."""

    status = 409

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return f"only subscriptions have topics: this stream is a {self.kind}"


class UnknownGeneration(HubError):
    """The caller named an answer that does not exist or belongs to somebody else; the error does not say which."""

    status = 404

    def __str__(self) -> str:
        return "there is no such answer"


class GenerationEnded(HubError):
    """The caller tried to append to an answer that has ended: it is complete, failed or cancelled."""

    status = 409

    def __str__(self) -> str:
        return "the answer has ended already"


class GenerationExpired(HubError):
    """The caller named an answer that is no longer kept."""

    status = 410

    def __str__(self) -> str:
        return "the answer is no longer kept"


class BusNotOpen(HubError):
    """The caller tried to wait for handlers before the bus is open."""

    def __str__(self) -> str:
        return "publish() before the event bus is open would wait for ever; emit() keeps the event until then"


class HandlerCancelled(HubError):
    """An event handler was cancelled, or did not catch the cancellation of something it awaited."""

    def __init__(self, handler: str, event: str) -> None:
        super().__init__(handler, event)
        self.handler, self.event = handler, event

    def __str__(self) -> str:
        return f"handler {self.handler} was cancelled while handling {self.event}"


class AlreadySetUp(HubError):
    """The caller set up a second hub in one application: the notification service is a singleton."""

    def __str__(self) -> str:
        return "this application already has a hub: setup_hub is called once per application"


class WrongThread(HubError):
    """The caller used an object of the event loop's thread from another thread."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(call, instead)
        self.call, self.instead = call, instead

    def __str__(self) -> str:
        return f"{self.call} was called outside the event loop's thread; use {self.instead} there"


class InvalidSettings(HubError):
    """The settings prevent the start; `problems` has a sentence for each wrong one."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(["the settings are wrong:", *(f"  {problem}" for problem in self.problems)])


class InvalidListener(HubError):
    """A listener module or class cannot be used."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"listener {self.name}: {self.why}"


class UnsupportedAiohttp(HubError):
    """The installed aiohttp does not release a connection in the way that the hub needs."""

    def __init__(self, version: str, why: str) -> None:
        super().__init__(version, why)
        self.version, self.why = version, why

    def __str__(self) -> str:
        return f"aiohttp {self.version} cannot hand a connection over to the hub: {self.why}"
