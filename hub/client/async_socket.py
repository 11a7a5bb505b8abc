"""`AsyncHubSocket`: one WebSocket to the hub, for programs that publish and listen, on an asyncio event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self
from urllib.parse import urlsplit

from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_to
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.version import version

from hub.client.client import checked_id
from hub.client.errors import (
    NOT_OPEN,
    ClientClosed,
    ClientError,
    NotAHub,
    NotAuthenticated,
    NotValid,
    Unreachable,
    ending,
    refusal,
)
from hub.client.listening import FIRST_RETRY, LEAST_RETRY, LONGEST_WAIT, MOST_RETRY, Pause
from hub.client.publishing import draft_fields, one
from hub.client.received import Dropped, Gap, Item, Received
from hub.client.steps import Answer, Tries, full_jitter
from hub.client.transport import USER_AGENT, unreachable
from hub.errors import InvalidInput
from hub.eventstream import compact_json
from hub.notification import Position

if TYPE_CHECKING:
    from hub.client.async_client import AsyncHubClient

PATH = "/notifications/ws"
PROTOCOL = "hub.v1.json"
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_SENT_BYTES = 1024 * 1024  # with more, the hub closes the socket
TOO_BIG = 1009
MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS = 1_000, 8 * 1024 * 1024
PING_SECONDS = 20.0

# Split as text, not as JSON, so that numbers keep every digit.
_STRING = r'"(?:[^"\\]|\\.)*"'
_NOTIFICATION = re.compile(
    rf'\{{"op":"notification","(id|earlier)":({_STRING}),"topics":(\[(?:{_STRING},?)*\])'
    rf'(?:,"type":({_STRING}))?(?:,"retry":\d+)?,"data":(.*)\}}',
    re.DOTALL,
)


class _Connect(connect_to):
    """A connection that follows no redirect: it could lead anywhere, with the token."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return *exc*, which is raised."""
        return exc


class _Waiting(NamedTuple):
    """What has arrived; with no item, the cursor has only moved to *id*."""

    id: str
    item: Item | None
    size: int = 0


class AsyncHubSocket:
    """A WebSocket of an `AsyncHubClient`, by which it publishes and listens; see `AsyncHubClient.websocket`.

    A context manager: it waits until the socket is open, and closes it at the end. A socket that is lost is opened
    again, as a stream is, and goes on where it was.

    Attributes:
        loop: the event loop on which it was opened; None: it was not.
    """

    def __init__(self, client: AsyncHubClient, watch: Callable[[Pause], None] | None) -> None:
        self._client, self._watch = client, watch
        self.loop: asyncio.AbstractEventLoop | None = None
        self._socket: ClientConnection | None = None  # the open one, on which requests can be sent
        self._ready = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._refs = 0
        self._retry = FIRST_RETRY
        self._stream: AsyncSocketListening | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._began = False  # whether the last connection did
        self._error: Exception | None = None  # why it will not be opened again
        self._closed = False

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run())
        opening = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([opening, self._runner], return_when=asyncio.FIRST_COMPLETED)
            self._check()
        except BaseException:
            await self.aclose()
            raise
        finally:
            opening.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close it. What waits for it in another task ends, or raises `ClientClosed`."""
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._end(ClientClosed())

    # ---- what can be asked for ----

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
        """Publish *data* and return its position, as `AsyncHubClient.publish`; also while it is opened again."""
        fields = draft_fields(
            data, topic=topic, topics=topics, type=type, retry=retry, private=private, tags=tags, key=key
        )
        draft = one(fields, self._client.json_default).body.decode()
        answer = await self._ask("publish", draft)
        position = Position.parse(str(answer.get("id")))
        if position is None:
            raise NotAHub(self._client.url, 200, "an answer without an id")
        return position

    async def join(self, room: str, *, publish: bool = False) -> None:
        """Join *room*, and with *publish* send there, too; where the application allows it."""
        await self._ask("join", compact_json({"room": room, **({"publish": True} if publish else {})}, None))

    async def leave(self, room: str) -> bool:
        """Leave *room*; return whether there was a membership."""
        return bool((await self._ask("leave", compact_json({"room": room}, None))).get("left"))

    def listen(self, *topics: str, last_event_id: str | None = None) -> AsyncSocketListening:
        """Return an asynchronous iterator over what is published to *topics* and patterns, as `AsyncHubClient.listen`.

        A socket has one of them at a time.
        """
        if self._stream is not None:
            raise InvalidInput("topics", "are followed already over this socket, which has one iterator at a time")
        self._check()
        self._stream = AsyncSocketListening(self, topics or ("notifications",), checked_id(last_event_id))
        self.subscribe(self._stream)
        return self._stream

    async def _ask(self, op: str, fields: str) -> dict[str, Any]:
        """Return the answer to *op*; ask again after errors that may pass, for drafts have keys and rooms bear it."""
        tries = Tries(self._client.patience, self._client.chance)
        while True:
            try:
                return await self._ask_once(op, fields)
            except ClientError as error:
                pause = tries.pause(error)
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def _ask_once(self, op: str, fields: str) -> dict[str, Any]:
        """Return the answer to *op*, with *fields*, a JSON object, if it comes in time.

        Raises:
            ClientError: it is a refusal, or does not come.
        """
        try:
            async with asyncio.timeout(self._client.timeout):
                while self._socket is None:
                    self._check()
                    await self._ready.wait()
                return await self.asked(self._socket, op, fields)
        except TimeoutError:
            self._check()
            raise Unreachable(self._client.url, "it did not answer in time") from None

    async def asked(self, socket: ClientConnection, op: str, fields: str) -> dict[str, Any]:
        """Return the answer to *op* over *socket*."""
        self._refs += 1
        ref = self._refs
        rest = fields[1:] if fields == "{}" else "," + fields[1:]
        message = f'{{"op":"{op}","ref":{ref}{rest}'
        if len(message.encode()) > MAX_SENT_BYTES:
            raise NotValid(f"body: larger than {MAX_SENT_BYTES} bytes", status=413, field="body")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[ref] = answer
        try:
            await socket.send(message)
            return await answer
        except ConnectionClosed as error:
            raise Unreachable(self._client.url, str(error)) from None
        finally:
            del self._asked[ref]
            if answer.done() and not answer.cancelled():
                answer.exception()  # taken: nobody else asks for it if `send` raised, or the caller was cancelled

    def _check(self) -> None:
        self._client.check_open()
        if self._closed:
            raise ClientClosed
        if self._runner is None:
            raise ClientClosed(NOT_OPEN)
        if self._error is not None:
            raise self._error

    # ---- the socket, over all its connections ----

    async def _run(self) -> None:
        """Keep it open until it would be in vain."""
        try:
            await self._keep_open()
        except Exception as error:  # what the functions of the caller raise goes to the caller, too
            self._end(error)

    async def _keep_open(self) -> None:
        client, failures = self._client, 0
        tries: Tries | None = Tries(client.patience, client.chance)
        token = await client.token(None)
        renewed = False
        while True:
            failure: ClientError | None = None
            self._began = False
            try:
                async with self._opened(token) as socket:
                    failure = await self._serve(socket, token)
            except ClientError as error:
                failure = error
            if self._began:
                tries, failures, renewed = None, 0, False
            pause = self._retry
            if isinstance(failure, NotAuthenticated):
                other = None if renewed else await client.token(token)
                if other is None or (failure.status is not None and other == token):
                    raise failure
                token, renewed = other, failure.status is not None
                pause = LEAST_RETRY if failure.status is not None else self._retry
            elif failure is not None and failure.lasting:
                raise failure
            elif failure is not None and tries is not None:
                patient = tries.pause(failure)
                if patient is None:
                    raise failure
                pause = patient
            elif failure is not None and not self._began:
                failures += 1
                pause = (failure.retry_after or 0.0) + full_jitter(
                    client.chance, failures, max(self._retry, 0.1), LONGEST_WAIT
                )
            pause = max(pause, LEAST_RETRY)
            if self._watch is not None:
                self._watch(Pause(pause, failure))
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _opened(self, token: str | None) -> AsyncIterator[ClientConnection]:
        """Open a connection, and have it closed at the end."""
        client = self._client
        url = f"ws{client.url.removeprefix('http')}{PATH}"
        options: dict[str, Any] = {"ssl": client.tls()} if urlsplit(client.url).scheme == "https" else {}
        if int(version.partition(".")[0]) >= 15:
            options["proxy"] = None  # none of the environment's, which would get the token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            socket = await _Connect(
                url,
                subprotocols=[Subprotocol(PROTOCOL)],
                additional_headers=headers,
                user_agent_header=USER_AGENT,
                compression=None,
                open_timeout=client.timeout,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=1.0,
                max_size=MAX_MESSAGE_BYTES,
                **options,
            )
        except InvalidStatus as error:
            _refuse(client.url, error)
        except InvalidHandshake as error:
            raise NotAHub(client.url, 502, f"no WebSocket of a hub ({error})") from None
        except (OSError, TimeoutError, ConnectionClosed, EOFError) as error:
            raise unreachable(client.url, error) from None
        try:
            yield socket
        finally:
            self._socket = None
            self._ready.clear()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Unreachable(client.url, "the connection broke"))
            await socket.close()

    async def _serve(self, socket: ClientConnection, token: str | None) -> ClientError | None:
        """Take what comes over *socket* until it ends; return why it did, if it was no wish of the hub to come back."""
        url = self._client.url
        told, failure = False, None
        try:
            # Whatever lets a socket through, and then nothing over it, is no hub.
            async with asyncio.timeout(self._client.timeout) as beginning:
                if token is None:
                    with contextlib.suppress(ConnectionClosed):  # why it is closed is still to be read
                        await socket.send('{"op":"ping"}')  # the message of somebody unknown, where the hub asks
                async for message in socket:
                    facts = _facts_in(message)
                    match facts.get("op"):
                        case "hub.open":
                            beginning.reschedule(None)
                            self._open(socket, facts)
                        case "hub.close":
                            self._retry = _seconds(facts)
                            told, failure = True, ending(str(facts.get("reason", "")), str(facts.get("topic") or ""))
                        case "ok" | "error":
                            self._answered(facts)
                        case _ if self._stream is not None:
                            self._stream.take(facts, str(message))
        except ConnectionClosed as error:
            if error.rcvd is None and error.sent is not None and error.sent.code == TOO_BIG:
                return NotAHub(url, 501, f"a message of more than {MAX_MESSAGE_BYTES:,} bytes")
            return failure or (None if told else Unreachable(url, str(error)))
        except TimeoutError:
            return Unreachable(url, "it did not answer in time")
        return failure or (None if told or self._began else Unreachable(url, "the socket ended before it began"))

    def _open(self, socket: ClientConnection, facts: Mapping[str, Any]) -> None:
        """Have what waits for *socket* go on: the hub has said `hub.open`, with *facts*."""
        self._began = True
        self._retry = _seconds(facts)
        self._socket = socket
        self._ready.set()
        if self._stream is not None and not self._stream.overflown:
            self.subscribe(self._stream)

    def subscribe(self, stream: AsyncSocketListening) -> None:
        """Have the hub send what *stream* listens to, from where that is, if the socket is open."""
        if self._socket is None:
            return  # it will, when it is
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._subscribing = asyncio.create_task(self._subscribe(stream, self._socket))

    async def _subscribe(self, stream: AsyncSocketListening, socket: ClientConnection) -> None:
        topics = {"topics": stream.topics}
        while self._socket is socket:
            try:
                # A socket without topics begins anew with the first ones: what it has already would not come again.
                await self.asked(socket, "unsubscribe", compact_json(topics, None))
                more = {"lastEventId": stream.resume} if stream.resume else {}
                stream.expecting = True
                await self.asked(socket, "subscribe", compact_json({**topics, **more}, None))
            except Unreachable:
                return  # the next one does it
            except ClientError as error:
                if error.lasting:
                    self.forget(stream)
                    stream.fail(error)
                    return
                await asyncio.sleep(max(error.retry_after or 0.0, self._retry))
            else:
                return

    def forget(self, stream: AsyncSocketListening) -> None:
        """Let *stream* end: another one may take its place."""
        if self._stream is stream:
            self._stream = None

    async def unsubscribe(self, stream: AsyncSocketListening) -> None:
        """Have the hub send nothing more of *stream*."""
        self.forget(stream)
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._socket is not None:
            with contextlib.suppress(ClientError):
                await self.asked(self._socket, "unsubscribe", compact_json({"topics": stream.topics}, None))

    def _answered(self, facts: dict[str, Any]) -> None:
        answer = self._asked.get(facts.get("ref", 0))
        if answer is None or answer.done():
            return
        if facts["op"] == "ok":
            answer.set_result(facts)
        else:
            after, status = facts.get("retryAfter"), facts.get("status")
            pause = float(after) if isinstance(after, int | float) else None
            answer.set_exception(refusal(status if isinstance(status, int) else 500, facts, pause))

    def _end(self, error: Exception) -> None:
        """Tell whoever waits that the socket is gone for good."""
        self._error = self._error or error
        self._ready.set()
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._stream is not None:
            self._stream.fail(self._error)


class AsyncSocketListening:
    """The iterator of `AsyncHubSocket.listen`, for one task.

    As a context manager it waits until the hub sends what is listened to, and has it stop at the end. What arrives
    while nobody takes it waits, up to 1,000 items or 8 MiB; the rest is asked for again when those were taken.

    Attributes:
        topics: what it listens to.
        cursor: the id up to which everything has been given out; empty: it has not begun.
    """

    def __init__(self, socket: AsyncHubSocket, topics: Iterable[str], last_event_id: str) -> None:
        self._socket = socket
        self.topics = list(topics)
        self.cursor = self.resume = last_event_id  # the second one: up to which everything has arrived
        self.expecting = self.overflown = False
        self._begun = self._gap_told = False
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        while not self._begun and self._error is None:
            await self._news.wait()
            self._news.clear()
        if self._error is not None:
            raise self._error
        self._news.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the iteration; the socket goes on."""
        self.fail(ClientClosed())
        await self._socket.unsubscribe(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while True:
            while self._waiting:
                self.cursor, item, size = self._waiting.popleft()
                self._size -= size
                if not self._waiting and self.overflown:
                    self._socket.subscribe(self)
                if item is not None:
                    return item
            if isinstance(self._error, ClientClosed):
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()

    def fail(self, error: Exception) -> None:
        """End, with *error* behind what has arrived."""
        self._error = self._error or error
        self._news.set()

    def take(self, facts: Mapping[str, Any], text: str) -> None:
        """Take a message of the hub, which has *facts*, as *text*."""
        op = facts.get("op")
        if op == "hub.topics" and self.expecting and set(facts.get("topics", ())).issuperset(self.topics):
            self.expecting = self.overflown = False
            self._begun = True
            self.resume = str(facts.get("from", ""))
            self._gap_told = facts.get("recovered") is False
            self._put(_gap(self.resume, facts) if self._gap_told else None)
        elif self.expecting or self.overflown or not self._begun:
            return  # of before, or to be asked for again
        elif op == "notification":
            self._notified(text)
        elif op == "hub.heartbeat":
            self.resume = str(facts.get("id") or self.resume)
            self._put(None)
        elif op == "hub.dropped":
            number = facts.get("dropped")
            after, before = str(facts.get("after", "")), str(facts.get("before", ""))
            self._put(Dropped(number if isinstance(number, int) else 0, after, before))
        elif op == "hub.gap":
            if not self._gap_told:
                self._put(_gap(self.resume, facts))
            self._gap_told = False

    def _notified(self, text: str) -> None:
        found = _NOTIFICATION.fullmatch(text)
        if found is None:
            return
        name, id, topics, kind, data = found.groups()
        id, is_json = json.loads(id), not data.startswith('"')
        if name == "id":
            self.resume = id
        told = data if is_json else json.loads(data)
        type = "message" if kind is None else json.loads(kind)
        self._put(Received(id, type, tuple(json.loads(topics)), told, is_json), len(text))

    def _put(self, item: Item | None, size: int = 0) -> None:
        self._waiting.append(_Waiting(self.resume, item, size))
        self._size += size
        # Whatever comes now is left to be sent again: the answers to what this program asks for need the socket.
        self.overflown = len(self._waiting) >= MAX_WAITING_ITEMS or self._size >= MAX_WAITING_CHARACTERS
        self._news.set()


def _gap(id: str, facts: Mapping[str, Any]) -> Gap:
    return Gap(id, str(facts.get("reason", "")), str(facts.get("oldest", "")))


def _facts_in(message: str | bytes) -> dict[str, Any]:
    """Return the object in *message*; empty if there is none."""
    try:
        facts = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _seconds(facts: Mapping[str, Any]) -> float:
    """Return the seconds after which the hub wants to see its client again."""
    retry = facts.get("retry")
    return min(retry / 1000, MOST_RETRY) if isinstance(retry, int | float) else FIRST_RETRY


def _refuse(url: str, error: InvalidStatus) -> NoReturn:
    """Raise what the refusal of the handshake means."""
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    answer = Answer(url, response.status_code, response.reason_phrase, headers, bytes(response.body or b""))
    answer.check(101, media_type="")
    raise answer.not_a_hub()
