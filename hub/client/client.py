"""`HubClient`: the client for programs without an event loop; from any number of threads."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

import httpx2 as httpx

from hub.client.errors import ClientClosed
from hub.client.history import Leafing
from hub.client.listening import Following, Opened, Pause, Shown, Told
from hub.client.publishing import batches, draft_fields, one, publish_all, publish_one
from hub.client.received import Item
from hub.client.steps import MAX_PATIENCE, Answer, Ask, Chance, Open, Read, Shut, Sleep, Step, Steps, Token
from hub.client.transport import checked_token, checked_url, headers_of, lower, options, unreachable
from hub.errors import InvalidInput
from hub.eventstream import JsonDefault, Message
from hub.notification import Position
from hub.topics import topic_of

if TYPE_CHECKING:
    from hub.client.async_client import AsyncHubClient
    from hub.client.socket import HubSocket

MAX_TIMEOUT = 86_400.0
ARCHIVE = "application/x-ndjson"

T = TypeVar("T")


class HubClient:
    """A client of the hub at *url*, for any number of threads.

    It may be made before a fork, as by Celery's and gunicorn's prefork workers: a child opens connections of its own.

    Args:
        url: where the hub is mounted, such as `http://127.0.0.1:8080` or `https://example.org/live`.
        token: what says who asks: a token, or a function that returns one (or None). The function is called when the
            first request is sent, and whenever the hub no longer takes the token; what it raises reaches the caller.
        timeout: seconds that one try may take to connect, and then between two pieces of the answer.
        patience: seconds for which a request is tried again (at least three times) after a 429, a 503 or an error of
            the network; at most 240.
        tls: whose certificates are trusted; None: those that the system trusts.
        json_default: called with each object in data that is neither JSON nor known to pydantic.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str | None] | None = None,
        timeout: float = 10.0,
        patience: float = 10.0,
        tls: ssl.SSLContext | None = None,
        json_default: JsonDefault | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._get_token = token if callable(token) else None
        self._token = None if callable(token) else checked_token(token)
        self._timeout, self._patience = checked_timeout(timeout), checked_patience(patience)
        self._json_default = json_default
        self._tls = tls
        self._chance = Chance()
        self._listening: weakref.WeakSet[Listening] = weakref.WeakSet()
        self._websockets: weakref.WeakSet[HubSocket] = weakref.WeakSet()
        self._closed = threading.Event()
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        self._lock, self._token_lock = threading.Lock(), threading.Lock()
        self._sockets = Sockets()
        self._http: httpx.Client | None = None

    def _leave_to_parent(self) -> None:
        """Let go, in a child process, of the connections and streams of its parent, and of locks of other threads."""
        self._closed = _renewed(self._closed)
        for each in list(self._listening):
            each._leave_to_parent()
        for each_socket in list(self._websockets):
            each_socket.leave_to_parent()
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and streams. What uses them in another thread raises `ClientClosed`, or ends."""
        self._closed.set()
        for each in list(self._listening):
            each.close()
        for each_socket in list(self._websockets):
            each_socket.close()
        self._sockets.shut()
        with self._lock:
            if self._http is not None:
                self._http.close()
                self._http = None

    # ---- publishing ----

    def publish(
        self,
        data: object,
        *,
        topic: str | None = None,
        topics: Iterable[str] | None = None,
        type: str | None = None,
        retry: int | None = None,
        private: bool = False,
        tags: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Position:
        """Publish *data* and return its position; `str` of that is the id that browsers get.

        The fields are those of the hub's HTTP interface. When this returns, the hub keeps the notification. A retry
        never publishes it twice: without *key*, each call has a random one.

        Raises:
            InvalidInput: *data* is not JSON.
            Refused: the hub says no: `NotValid`, `NotAuthenticated`, `NotAllowed`, `Busy`.
            Unreachable, NotAHub: no hub answered; whether the notification was accepted is not known.
            ClientClosed: the client was closed.
        """
        fields = draft_fields(
            data, topic=topic, topics=topics, type=type, retry=retry, private=private, tags=tags, key=key
        )
        return self._run(publish_one(one(fields, self._json_default), self._patience, self._chance))

    def publish_many(self, drafts: Iterable[Mapping[str, object]]) -> list[Position]:
        """Publish *drafts* (mappings such as `{"topic": …, "data": …}`) in their order and return their positions.

        They go in batches of up to 1,000 or 1 MiB; each batch is accepted as a whole or not at all, and none twice.
        *drafts* may be endless as far as memory goes: it is read batch by batch.

        Raises:
            ClientError: as for `publish`.
            InvalidDraft: one is no mapping, or not JSON; `[7].data` is the field of the eighth.

        `accepted` of both has the positions of the batches before. A `field` that the hub names counts from there.
        """
        return self._run(publish_all(batches(drafts, self._json_default), self._patience, self._chance))

    def send_to_user(self, user_id: str | int | UUID, data: object, **options: Any) -> Position:
        """Publish *data* to the topic of one user, `user/{user_id}`; *options* as for `publish`."""
        return self.publish(data, topic=topic_of("user", user_id), **options)

    def send_to_room(self, room_id: str | int | UUID, data: object, **options: Any) -> Position:
        """Publish *data* to the topic of one room, `room/{room_id}`; *options* as for `publish`."""
        return self.publish(data, topic=topic_of("room", room_id), **options)

    # ---- listening ----

    def listen(
        self,
        *topics: str,
        last_event_id: str | None = None,
        silence: float = 60.0,
        watch: Callable[[Message | Pause], None] | None = None,
    ) -> Listening:
        """Return an iterator over what is published to *topics* and patterns (default: `notifications`), for ever.

        It opens the stream again when that is lost, and goes on where it was: nothing is missing, nothing comes twice,
        and what the hub no longer has is a `Gap` in its place.

            with hub.listen("orders") as stream:      # open from here on
                for item in stream:
                    match item:
                        case Received(): print(item.data)
                        case Gap() | Dropped(): load_everything_anew()

        Args:
            topics: what to listen to.
            last_event_id: begin after this id; None: with what is published from now on. `earliest` and `latest`, too.
            silence: seconds without a byte after which the connection counts as lost; more than the hub's
                `HUB_HEARTBEAT`.
            watch: called with each message of the hub itself (`hub.open`, …) and with a `Pause` before each wait.
        """
        self._check_open()
        following = Following(topics, checked_id(last_event_id), self._patience, self._chance)
        listening = Listening(self, following, silence, watch)
        self._listening.add(listening)
        return listening

    # ---- history ----

    def websocket(self, *, watch: Callable[[Pause], None] | None = None) -> HubSocket:
        """Return a WebSocket, by which to publish and to listen over one connection.

            with hub.websocket() as socket:
                socket.publish("hello", topic="room/lobby")
                for item in socket.listen("room/lobby"):
                    ...

        It has a thread of its own.

        Args:
            watch: called, in that thread, when it is lost, with the seconds until it is opened again, and why; the
                socket can't be used there.
        """
        from hub.client.socket import HubSocket  # noqa: PLC0415 - who only publishes does not load it

        self._check_open()
        socket = HubSocket(self, watch)
        self._websockets.add(socket)
        return socket

    def for_loop(self) -> AsyncHubClient:
        """Return a client for coroutines, with the address, the token and the patience of this one."""
        import asyncio  # noqa: PLC0415 - as above

        from hub.client.async_client import AsyncHubClient  # noqa: PLC0415 - as above

        self._check_open()
        make = self._get_token
        token = self._token if make is None else lambda: asyncio.to_thread(make)
        return AsyncHubClient(
            self.url,
            token=token,
            timeout=self._timeout,
            patience=self._patience,
            tls=self._tls,
            json_default=self._json_default,
        )

    def history(self, *topics: str, after: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield what the hub keeps of *topics*, up to now, in pages as its HTTP interface has them.

        Each is a mapping with `notifications`, a list of mappings, and with `recovered`, which is False if something
        is missing there.

        Args:
            topics: topics and patterns; default: `notifications`.
            after: begin after this id; None: with the oldest.
            limit: how many notifications there may be altogether.
        """
        leafing = Leafing(topics, checked_id(after), limit)
        while not leafing.ended:
            yield self._run(leafing.page(self._patience, self._chance))

    def export(self) -> Iterator[bytes]:
        """Yield the archive of everything that the hub keeps, in pieces; it needs the right `admin`.

        It is not tried again: what breaks off raises `Unreachable`.
        """
        path, token = "/notifications/history", self.token(None)
        ask = Ask("GET", path, token, headers={"Accept": ARCHIVE})
        try:
            with self._connections().stream("GET", self.url + path, headers=headers_of(ask)) as response:
                answer = answer_of(self.url, response, b"")
                if answer.media_type != ARCHIVE:
                    answer = answer._replace(body=whole(response, ask.most, self._timeout))
                answer.check(200, media_type=ARCHIVE)
                yield from response.iter_raw()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(self.url, error) from None

    # ---- doing it ----

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosed

    def _run(self, steps: Steps[T]) -> T:
        """Do *steps* and return their result."""
        with contextlib.closing(steps):
            result: object = None
            error: Exception | None = None
            while True:
                try:
                    step = steps.send(result) if error is None else steps.throw(error)
                except StopIteration as end:
                    value: T = end.value
                    return value
                self._check_open()
                result = error = None
                try:
                    result = self._do(step)
                except Exception as failure:
                    self._check_open()  # what another thread has closed meanwhile fails in any way
                    error = failure

    def _do(self, step: Step) -> object:
        match step:
            case Ask():
                return self._ask(step)
            case Token():
                return self.token(step.instead)
            case Sleep():
                self._closed.wait(step.seconds)
                return None
        raise AssertionError(step)

    def _ask(self, ask: Ask) -> Answer:
        http = self._connections()
        request = (ask.method, self.url + ask.path)
        traced = {"trace": self._sockets.trace}
        try:
            with http.stream(*request, content=ask.body, headers=headers_of(ask), extensions=traced) as response:
                return answer_of(self.url, response, whole(response, ask.most, self._timeout))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(self.url, error) from None

    def _connections(self) -> httpx.Client:
        with self._lock:
            self._check_open()
            if self._http is None:
                self._http = self.new_http(self._timeout)
            return self._http

    def new_http(self, silence: float) -> httpx.Client:
        """Return connections of their own, whose reads take up to *silence* seconds."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return httpx.Client(**options(httpx.Timeout(self._timeout, read=silence), self._tls))

    def token(self, instead: str | None) -> str | None:
        """Return the token to send; *instead* of this one another, if there is a function that makes them."""
        if self._get_token is None:
            return None if instead is not None else self._token
        with self._token_lock:  # one thread asks, and the others get the same
            if self._token is None or self._token == instead:
                self._token = checked_token(self._get_token())
            return self._token


class Listening:
    """The stream of `HubClient.listen`: an iterator, for one thread; `close` may be called from others.

    As a context manager it waits until the stream is open, and closes it at the end.
    """

    def __init__(
        self, client: HubClient, following: Following, silence: float, watch: Callable[[Message | Pause], None] | None
    ) -> None:
        self._client, self._following, self._silence, self._watch = client, following, silence, watch
        self._course = following.course()
        self._result: object = None
        self._error: Exception | None = None
        self._closed = threading.Event()
        self._begin()

    def _begin(self) -> None:
        self._sockets = Sockets()
        self._http: httpx.Client | None = None
        self._response: httpx.Response | None = None
        self._parts: Iterator[bytes] = iter(())

    def _leave_to_parent(self) -> None:
        """End the iteration in a child process, and leave the connection to its parent."""
        self._closed = _renewed(self._closed)
        self._closed.set()
        self._begin()

    @property
    def cursor(self) -> str:
        """The id up to which everything has been given out; a new stream goes on there. Empty: it has not begun."""
        return self._following.cursor

    def __enter__(self) -> Self:
        try:
            while not isinstance(self._next(), Opened):
                pass
        except StopIteration:
            raise ClientClosed from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while True:
            step = self._next()
            if isinstance(step, Shown):
                return step.item

    def close(self) -> None:
        """End the iteration, also one that waits in another thread, and close the connection."""
        self._closed.set()
        self._sockets.shut()

    def _next(self) -> Opened | Shown:
        """Do what is to be done until the stream is opened, or something arrives."""
        while True:
            if self._closed.is_set():
                self._end()
                raise StopIteration
            error, self._error = self._error, None
            result, self._result = self._result, None
            try:
                step = self._course.throw(error) if error is not None else self._course.send(result)
            except BaseException:
                self._end()
                raise
            match step:
                case Opened() | Shown():
                    return step
                case Told():
                    if self._watch is not None:
                        self._watch(step.what)
                case _:
                    try:
                        self._result = self._do(step)
                    except Exception as failure:
                        self._error = failure

    def _do(self, step: Step) -> object:
        match step:
            case Open():
                return self._open(step)
            case Read():
                return self._read()
            case Shut():
                self._shut()
            case Sleep():
                self._closed.wait(step.seconds)
            case Token():
                return self._client.token(step.instead)
            case _:
                raise AssertionError(step)
        return None

    def _open(self, step: Open) -> Answer:
        url, ask = self._client.url, step.ask
        if self._http is None:
            self._http = self._client.new_http(self._silence)
        try:
            traced = {"trace": self._sockets.trace}
            request = self._http.build_request(
                ask.method, url + ask.path, content=ask.body, headers=headers_of(ask), extensions=traced
            )
            self._response = self._http.send(request, stream=True)
            answer = answer_of(url, self._response, b"")
            if answer.media_type == step.media_type:
                self._parts = self._response.iter_raw()
                return answer
            return answer._replace(body=whole(self._response, ask.most, self._silence))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(url, error) from None

    def _read(self) -> bytes:
        try:
            return next(self._parts, b"")
        except (httpx.HTTPError, OSError) as error:
            raise unreachable(self._client.url, error) from None

    def _shut(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _end(self) -> None:
        self._closed.set()
        self._course.close()
        self._shut()
        if self._http is not None:
            self._http.close()
            self._http = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end()


class Sockets:
    """The sockets of an HTTP client, for a thread that ends what others wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._shut = False

    def trace(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note the socket of a new connection; called by httpcore at each step of a request."""
        if name in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            with self._lock:
                self._streams.add(facts["return_value"])
                late = self._shut
            if late:
                _shut(facts["return_value"])

    def shut(self) -> None:
        """Shut all of them down, now and later, so that threads that wait for them go on."""
        with self._lock:
            self._shut = True
            streams = list(self._streams)
        for each in streams:
            _shut(each)


def _shut(stream: Any) -> None:
    found = stream.get_extra_info("socket")
    if isinstance(found, socket.socket):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(found, socket.SHUT_RDWR)  # below TLS, which is not to be touched from two threads


def _renewed(event: threading.Event) -> threading.Event:
    """Return an event in the state of *event*, whose lock a thread may hold that a child process does not have."""
    renewed = threading.Event()
    if event.is_set():
        renewed.set()
    return renewed


def whole(response: httpx.Response, most: int, seconds: float) -> bytes | None:
    """Return the body of *response*; None if it is longer than *most*. It may take *seconds* after the headers."""
    body, end = bytearray(), time.monotonic() + seconds
    for part in response.iter_raw():
        body += part
        if len(body) > most:
            return None
        if time.monotonic() > end:
            raise TimeoutError
    return bytes(body)


def answer_of(url: str, response: httpx.Response, body: bytes | None) -> Answer:
    """Return *response* as the steps know it."""
    return Answer(url, response.status_code, response.reason_phrase, lower(response.headers), body)


def checked_timeout(timeout: float) -> float:
    """Return *timeout* if a request may take so long.

    Raises:
        InvalidInput: it may not.
    """
    if not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidInput("timeout", f"is not a number of seconds above 0, up to {MAX_TIMEOUT:,g}")
    return float(timeout)


def checked_patience(patience: float) -> float:
    """Return *patience* if a request may be repeated for so long.

    Raises:
        InvalidInput: it may not.
    """
    if not 0 <= patience <= MAX_PATIENCE:
        raise InvalidInput("patience", f"is not a number of seconds from 0 to {MAX_PATIENCE:g}")
    return float(patience)


def checked_id(last_event_id: str | None) -> str:
    """Return *last_event_id* as text.

    Raises:
        InvalidInput: it can't be an id.
    """
    if last_event_id is None:
        return ""
    if not isinstance(last_event_id, str) or not last_event_id.isascii() or not last_event_id.isprintable():
        raise InvalidInput("last_event_id", "is not an id")
    return last_event_id


_clients: weakref.WeakSet[HubClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
