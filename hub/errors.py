"""Everything that can be refused, named after what the caller did.

HubError
├── InvalidInput                    400  a field breaks its rule
│   ├── InvalidTopic                     … the grammar of topics and patterns
│   ├── InvalidDraft                     … the rules of a draft
│   ├── InvalidEventName                 … the grammar of event names and their patterns
│   ├── InvalidArchive                   … the format of an archive; names the line
│   └── KeyReused                   422  an idempotency key that stands for another question
├── TooLarge                        413  more bytes than the bound
├── UnsupportedMediaType            415  a body that is something else by its own words
├── CrossSite                       403  a page of another site that changes something
├── UnsupportedEncoding             415  a compressed body
├── UnknownGeneration               404  an answer that never was, or is somebody else's
├── GenerationEnded                 409  adding to an answer that is complete
├── GenerationExpired               410  an answer that was kept for its time
├── TryLater                        503  nothing is wrong with the request
│   ├── LogUnavailable                   the log does not confirm, or too much waits for it
│   ├── TooManyGenerations          429  as many answers are being generated as may be
│   ├── TooManyStreams                   as many streams are open as may be
│   ├── EventBufferFull                  too many events wait to be dispatched
│   └── ShuttingDown                     this process is about to end
├── LogNotEmpty                          importing a history into a log that has one
├── BusNotOpen                           waiting for handlers that are not bound yet
├── HandlerCancelled                     an event handler that ended by cancellation
├── AlreadySetUp                         a second hub in one application
├── WrongThread                          a call that belongs on the event loop's thread
├── InvalidSettings                      the settings that stop the start, all of them
├── InvalidListener                      a listener that cannot be found or bound
└── UnsupportedAiohttp                   the installed aiohttp does not let a connection go
"""

from __future__ import annotations

from collections.abc import Sequence


class HubError(Exception):
    """Base of everything the hub raises on purpose; `status` is its HTTP answer."""

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
    """The caller sent a draft with a field that breaks its rule."""


class InvalidEventName(InvalidInput):
    """The caller named an event or a pattern that breaks the grammar of event names."""

    def __init__(self, name: object, why: str, field: str = "event") -> None:
        super().__init__(field, why)
        self.name = name

    def __str__(self) -> str:
        shown = repr(self.name)
        return f"{self.field}: {shown if len(shown) <= 80 else shown[:77] + '...'} {self.why}"


class InvalidArchive(InvalidInput):
    """The caller imports an archive that is cut short, or that has a line that breaks a rule."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}", why)
        self.line = line


class KeyReused(InvalidInput):
    """The caller asked something with an idempotency key that stands for another question."""

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


class CrossSite(HubError):
    """A page of another site, whose origin may not call, asked for something that changes the hub."""

    status = 403

    def __str__(self) -> str:
        return "a page of another site may not do this; its origin is not among the cors_origins"


class UnsupportedEncoding(HubError):
    """The caller sent a compressed body: a few bytes of it can stand for more than the bound."""

    status = 415

    def __init__(self, encoding: str) -> None:
        super().__init__(encoding)
        self.encoding = encoding

    def __str__(self) -> str:
        return f"Content-Encoding: {self.encoding[:80]!r} is not supported: send the body as it is"


class TryLater(HubError):
    """Nothing is wrong with the request: the same one may succeed after `retry_after` seconds."""

    status = 503
    retry_after = 1


class TooManyGenerations(TryLater):
    """As many answers are being generated as may be, of one user or altogether."""

    status = 429

    def __init__(self, whose: str, bound: int) -> None:
        super().__init__(whose, bound)
        self.whose, self.bound = whose, bound

    def __str__(self) -> str:
        return f"{self.bound:,} answers are being generated already, {self.whose}"


class TooManyStreams(TryLater):
    """As many streams are open as may be."""

    retry_after = 10

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self.bound = bound

    def __str__(self) -> str:
        return f"{self.bound:,} streams are open already"


class LogUnavailable(TryLater):
    """The log does not confirm, or too much already waits for it; a retry with the same key is safe."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the log is not available: {self.why}"


class EventBufferFull(TryLater):
    """As many events as the bus may hold wait for it to open, or for its loop to take them over."""

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


class LogNotEmpty(HubError):
    """The caller imports a history into a log that has one of its own."""

    def __str__(self) -> str:
        return "the log is not empty: an import takes a file that is new, or a log that never held anything"


class UnknownGeneration(HubError):
    """The caller named an answer that never was, or is somebody else's: nobody learns which."""

    status = 404

    def __str__(self) -> str:
        return "there is no such answer"


class GenerationEnded(HubError):
    """The caller would add to an answer that is complete, or will never be."""

    status = 409

    def __str__(self) -> str:
        return "the answer has ended already"


class GenerationExpired(HubError):
    """The caller named an answer that was kept for its time."""

    status = 410

    def __str__(self) -> str:
        return "the answer is no longer kept"


class BusNotOpen(HubError):
    """The caller would wait for handlers before the bus is open."""

    def __str__(self) -> str:
        return "publish() before the event bus is open would wait for ever; emit() keeps the event until then"


class HandlerCancelled(HubError):
    """An event handler was cancelled, or let the cancellation of something it waited for end it."""

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
    """The caller used, from another thread, what belongs to the event loop's thread."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(call, instead)
        self.call, self.instead = call, instead

    def __str__(self) -> str:
        return f"{self.call} was called outside the event loop's thread; use {self.instead} there"


class InvalidSettings(HubError):
    """The settings stop the start; `problems` names every wrong one."""

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
    """The installed aiohttp does not let go of a connection the way the hub needs."""

    def __init__(self, version: str, why: str) -> None:
        super().__init__(version, why)
        self.version, self.why = version, why

    def __str__(self) -> str:
        return f"aiohttp {self.version} cannot hand a connection over to the hub: {self.why}"
