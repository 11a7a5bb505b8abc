"""`AsyncHubClient`: the client for programs on an asyncio event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

import httpx2 as httpx

from hub.client.client import answer_of, checked_id, checked_patience, checked_timeout
from hub.client.errors import ClientClosed
from hub.client.history import Leafing
from hub.client.listening import Following, Opened, Pause, Shown, Told
from hub.client.publishing import batches, draft_fields, one, publish_all, publish_one
from hub.client.received import Item
from hub.client.steps import Answer, Ask, Chance, Open, Read, Shut, Sleep, Step, Steps, Token
from hub.client.transport import checked_token, checked_url, headers_of, options, unreachable
from hub.eventstream import JsonDefault, Message
from hub.notification import Position
from hub.topics import topic_of

if TYPE_CHECKING:
    from hub.client.async_socket import AsyncHubSocket

T = TypeVar("T")

MaybeToken = str | None
MOST = 100
"""Connections for requests that are under way at once; others wait, up to the timeout."""


class _Place:
    """What belongs to one event loop: the connections, and the lock under which a token is asked for."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.lock = http, asyncio.Lock()


class AsyncHubClient:
    """A client of the hub at *url*, as `HubClient`, for coroutines.

    As a context manager it keeps its connections open between requests. Without that, each request has one of its own
    and nothing is left open when its event loop ends: one object serves several loops, at once or one after the other,
    such as those of `async_to_sync`.

    Args:
        url, token, timeout, patience, tls, json_default: as for `HubClient`; *token* may be a coroutine function, too.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], MaybeToken] | Callable[[], Awaitable[MaybeToken]] | None = None,
        timeout: float = 10.0,
        patience: float = 10.0,
        tls: ssl.SSLContext | None = None,
        json_default: JsonDefault | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._get_token = token if callable(token) else None
        self._token = None if callable(token) else checked_token(token)
        self.timeout, self.patience = checked_timeout(timeout), checked_patience(patience)
        self.json_default = json_default
        self._tls = tls
        self.chance = Chance()
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Place] = weakref.WeakKeyDictionary()
        self._process = os.getpid()
        self._home: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._listening: weakref.WeakSet[AsyncListening] = weakref.WeakSet()
        self._websockets: weakref.WeakSet[AsyncHubSocket] = weakref.WeakSet()
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        self._home = weakref.ref(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections and streams of the running event loop; the client can't be used any more."""
        self._closed = True
        loop = asyncio.get_running_loop()
        for each in list(self._listening):
            if each.loop in {None, loop}:
                await each.aclose()
        for socket in list(self._websockets):
            if socket.loop in {None, loop}:
                await socket.aclose()
        place = self._places.pop(loop, None)
        if place is not None:
            await place.http.aclose()

    # ---- publishing ----

    async def publish(
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
        """Publish *data* and return its position, as `HubClient.publish`.

        Cancelling leaves it unknown whether the notification was accepted; repeating the call with the same *key* is
        safe.
        """
        fields = draft_fields(
            data, topic=topic, topics=topics, type=type, retry=retry, private=private, tags=tags, key=key
        )
        return await self._run(publish_one(one(fields, self.json_default), self.patience, self.chance))

    async def publish_many(self, drafts: Iterable[Mapping[str, object]]) -> list[Position]:
        """Publish *drafts* in their order and return their positions, as `HubClient.publish_many`."""
        return await self._run(publish_all(batches(drafts, self.json_default), self.patience, self.chance))

    async def send_to_user(self, user_id: str | int | UUID, data: object, **options: Any) -> Position:
        """Publish *data* to the topic of one user, `user/{user_id}`; *options* as for `publish`."""
        return await self.publish(data, topic=topic_of("user", user_id), **options)

    async def send_to_room(self, room_id: str | int | UUID, data: object, **options: Any) -> Position:
        """Publish *data* to the topic of one room, `room/{room_id}`; *options* as for `publish`."""
        return await self.publish(data, topic=topic_of("room", room_id), **options)

    # ---- listening ----

    def listen(
        self,
        *topics: str,
        last_event_id: str | None = None,
        silence: float = 60.0,
        watch: Callable[[Message | Pause], None] | None = None,
    ) -> AsyncListening:
        """Return an asynchronous iterator over what is published to *topics* and patterns, as `HubClient.listen`.

        async with hub.listen("orders") as stream:
            async for item in stream:
                ...
        """
        self.check_open()
        following = Following(topics, checked_id(last_event_id), self.patience, self.chance)
        listening = AsyncListening(self, following, silence, watch)
        self._listening.add(listening)
        return listening

    def websocket(self, *, watch: Callable[[Pause], None] | None = None) -> AsyncHubSocket:
        """Return a WebSocket, by which to publish and to listen over one connection.

            async with hub.websocket() as socket:
                await socket.publish("hello", topic="room/lobby")
                async for item in socket.listen("room/lobby"):
                    ...

        Args:
            watch: called when it is lost, with the seconds until it is opened again, and why.
        """
        from hub.client.async_socket import AsyncHubSocket  # noqa: PLC0415 - who only publishes does not load it

        self.check_open()
        socket = AsyncHubSocket(self, watch)
        self._websockets.add(socket)
        return socket

    # ---- history ----

    async def history(
        self, *topics: str, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield what the hub keeps of *topics* in pages, as `HubClient.history`."""
        leafing = Leafing(topics, checked_id(after), limit)
        while not leafing.ended:
            yield await self._run(leafing.page(self.patience, self.chance))

    # ---- doing it ----

    def check_open(self) -> None:
        """Check that it was not closed."""
        if self._closed:
            raise ClientClosed

    async def _run(self, steps: Steps[T]) -> T:
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
                self.check_open()
                result = error = None
                try:
                    result = await self._do(step)
                except Exception as failure:
                    error = failure

    async def _do(self, step: Step) -> object:
        match step:
            case Ask():
                return await self._ask(step)
            case Token():
                return await self.token(step.instead)
            case Sleep():
                await asyncio.sleep(step.seconds)
                return None
        raise AssertionError(step)

    async def _ask(self, ask: Ask) -> Answer:
        http = self._place().http
        request = (ask.method, self.url + ask.path)
        try:
            async with (
                asyncio.timeout(self.timeout),
                http.stream(*request, content=ask.body, headers=headers_of(ask)) as response,
            ):
                return answer_of(self.url, response, await whole(response, ask.most))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(self.url, error) from None
        except RuntimeError:
            self.check_open()  # another task has closed it meanwhile
            raise

    def _place(self) -> _Place:
        """Return what belongs to the running event loop."""
        self.check_open()
        if self._process != os.getpid():  # a child has no business with the connections of its parent
            self._process, self._places = os.getpid(), weakref.WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:
            stays = self._home is not None and self._home() is loop
            place = self._places[loop] = _Place(self.new_http(self.timeout, keep=stays))
        return place

    def new_http(self, silence: float, *, keep: bool = False) -> httpx.AsyncClient:
        """Return connections of their own, whose reads take up to *silence* seconds; *keep* those not in use."""
        limits = httpx.Limits(max_connections=MOST, max_keepalive_connections=MOST if keep else 0)
        return httpx.AsyncClient(**options(httpx.Timeout(self.timeout, read=silence), self.tls()), limits=limits)

    def tls(self) -> ssl.SSLContext:
        """Return how TLS is spoken."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def token(self, instead: str | None) -> str | None:
        """Return the token to send; *instead* of this one another, if there is a function that makes them."""
        if self._get_token is None:
            return None if instead is not None else self._token
        async with self._place().lock:  # one task asks, and the others get the same
            if self._token is None or self._token == instead:
                made = self._get_token()
                self._token = checked_token(await made if inspect.isawaitable(made) else made)
            return self._token


class AsyncListening:
    """The stream of `AsyncHubClient.listen`: an asynchronous iterator, for one task; `aclose` may come from others.

    As a context manager it waits until the stream is open, and closes it at the end. Leave it so, or call `aclose`: a
    loop that is left with `break` does not close it. Cancelling a wait, as `asyncio.timeout` does, ends it; another one
    goes on from `cursor`.
    """

    def __init__(
        self,
        client: AsyncHubClient,
        following: Following,
        silence: float,
        watch: Callable[[Message | Pause], None] | None,
    ) -> None:
        self._client, self._following, self._silence, self._watch = client, following, silence, watch
        self._course = following.course()
        self._result: object = None
        self._error: Exception | None = None
        self._closed = False
        self._waiting: asyncio.Task[object] | None = None
        self._http: httpx.AsyncClient | None = None
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def cursor(self) -> str:
        """The id up to which everything has been given out; a new stream goes on there. Empty: it has not begun."""
        return self._following.cursor

    async def __aenter__(self) -> Self:
        try:
            while not isinstance(await self._next(), Opened):
                pass
        except StopAsyncIteration:
            raise ClientClosed from None
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while True:
            step = await self._next()
            if isinstance(step, Shown):
                return step.item

    async def aclose(self) -> None:
        """End the iteration, also one that waits in another task, and close the connection."""
        self._closed = True
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait([waiting])
        await self._end()

    async def _next(self) -> Opened | Shown:
        """Do what is to be done until the stream is opened, or something arrives."""
        self.loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise StopAsyncIteration
            error, self._error = self._error, None
            result, self._result = self._result, None
            try:
                step = self._course.throw(error) if error is not None else self._course.send(result)
            except BaseException:
                await self._end()
                raise
            match step:
                case Opened() | Shown():
                    return step
                case Told():
                    if self._watch is not None:
                        self._watch(step.what)
                case _:
                    await self._perform(step)

    async def _perform(self, step: Step) -> None:
        """Do *step* in a task of its own, which `aclose` may cancel; keep the result, or the error."""
        task = self._waiting = asyncio.create_task(self._do(step))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            await self._end()
            raise
        finally:
            self._waiting = None
        if task.cancelled():
            return
        failure = task.exception()
        if failure is None:
            self._result = task.result()
        elif isinstance(failure, Exception):
            self._error = failure
        else:
            raise failure

    async def _do(self, step: Step) -> object:
        match step:
            case Open():
                return await self._open(step)
            case Read():
                return await self._read()
            case Shut():
                await self._shut()
            case Sleep():
                await asyncio.sleep(step.seconds)
            case Token():
                return await self._client.token(step.instead)
            case _:
                raise AssertionError(step)
        return None

    async def _open(self, step: Open) -> Answer:
        url, ask = self._client.url, step.ask
        if self._http is None:
            self._http = self._client.new_http(self._silence)
        try:
            async with asyncio.timeout(self._silence):
                request = self._http.build_request(
                    ask.method, url + ask.path, content=ask.body, headers=headers_of(ask)
                )
                self._response = await self._http.send(request, stream=True)
                answer = answer_of(url, self._response, b"")
                if answer.media_type == step.media_type:
                    self._parts = self._response.aiter_raw()
                    return answer
                return answer._replace(body=await whole(self._response, ask.most))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(url, error) from None

    async def _read(self) -> bytes:
        assert self._parts is not None
        try:
            return await anext(self._parts, b"")
        except (httpx.HTTPError, OSError) as error:
            raise unreachable(self._client.url, error) from None

    async def _shut(self) -> None:
        response, self._response, self._parts = self._response, None, None
        if response is not None:
            await response.aclose()

    async def _end(self) -> None:
        self._closed = True
        self._course.close()
        await self._shut()
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


async def whole(response: httpx.Response, most: int) -> bytes | None:
    """Return the body of *response*; None if it is longer than *most*."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most:
            return None
    return bytes(body)
