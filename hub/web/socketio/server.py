"""`/socket.io/`: sessions of Socket.IO, over long-polls and WebSockets.

python-engineio speaks Engine.IO, which carries the packets; python-socketio reads them. What a client holds is a
stream of the hub like any other: it is counted, limited, swept and drained, and a slow reader meets its limit.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from aiohttp import web
from engineio import AsyncServer
from engineio.async_drivers.aiohttp import WebSocket as Driver
from engineio.exceptions import UnknownPacketError
from engineio.packet import CLOSE, MESSAGE, PONG
from engineio.packet import Packet as EnginePacket
from socketio.packet import CONNECT, DISCONNECT, EVENT, Packet

from hub.access.identity import Identity
from hub.connections.client_stream import UNREAD_BYTES, CloseReason
from hub.errors import AuthUnavailable, Forbidden, HubError, InvalidInput, TooManyRefusals, Unauthorized
from hub.hub import Hub
from hub.names import hint
from hub.topics import topic_of
from hub.web.access import Access
from hub.web.body import MAX_BODY_BYTES, decoded, read_body
from hub.web.conversation import Asked
from hub.web.endpoint import Handler, check_site
from hub.web.limits import check_refusals_of, check_room, count_refusal_of, holder_of
from hub.web.problems import problem
from hub.web.query import Parameters
from hub.web.socketio.outbox import Outbox
from hub.web.socketio.packets import END, answer, event, not_connected
from hub.web.socketio.stream import SocketIOStream
from hub.web.websocket.operations import OPS, Operations, code_of, refused

logger = logging.getLogger("hub.web")

PATH = "/socket.io/"
CLOSE_SECONDS = 2.0
EVENTS = tuple(op for op in OPS if op != "auth")
"""What a client can send."""

_SHORT = {"subscribe": "topics", "unsubscribe": "topics", "join": "room", "leave": "room", "presence": "topic"}
_AUTH = ("token", "presence")
_ELSEWHERE = {"j": "is JSONP, which is not offered", "token": "goes into `auth`, never into an address"}
FEW = 16
"""Packets that the client in Python takes from one poll, unless it is told otherwise; with more it disconnects."""
_TAKES_FEW = re.compile("Python/|python-")
_POSTED = {CLOSE, PONG, MESSAGE}  # an upgrade is asked for over the WebSocket
_PARAMETERS = Parameters("EIO", "transport", "sid", "t", "b64", elsewhere=_ELSEWHERE)
# It would log the mistakes of clients, with stack traces, and each packet, with tokens. What the hub itself does wrong
# is caught before.
_SILENT = logging.getLogger("hub.web.engineio")
_SILENT.setLevel(logging.CRITICAL + 1)
_SILENT.propagate = False

Facts = dict[str, Any]


class _JSON:
    """JSON as the hub reads it everywhere: no `NaN`."""

    @staticmethod
    def loads(text: str) -> Any:
        return decoded(text.encode(errors="surrogatepass"), "message")


class _Packet(Packet):  # type: ignore[misc]  # the library has no types
    json = _JSON


class Session:
    """One Engine.IO session: its stream, and the requests that serve it now.

    Attributes:
        sid: the secret that its requests show.
        request: the one that it began with, until the client has connected.
    """

    def __init__(self, sid: str, request: web.Request, stream: SocketIOStream, outbox: Outbox) -> None:
        self.sid, self.stream, self.outbox = sid, stream, outbox
        self.request: web.Request | None = request
        self.requests: dict[int, web.Request] = {}  # by their ids: aiohttp lets nobody hash them
        self.ways: set[str] = set()  # that are in use


class _Engine(AsyncServer):  # type: ignore[misc]  # the library has no types
    """python-engineio with bounded queues; the hub ends its sessions, and its tasks."""

    def __init__(self, owner: SocketIO, **options: Any) -> None:
        super().__init__(**options)
        self._owner = owner
        self._async: dict[str, Any] = {**self._async, "websocket": owner.websocket}
        self.tasks: dict[Any, asyncio.Task[Any]] = {}

    def create_queue(self, *args: Any, **options: Any) -> Outbox:
        return Outbox()

    def start_background_task(self, target: Callable[..., Any], *args: Any, **options: Any) -> asyncio.Task[Any]:
        """Run *target*: of each socket there is one at a time, that which sends the next ping."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(target(*args, **options))
        owner = getattr(target, "__self__", task)
        self.tasks[owner] = task
        task.add_done_callback(lambda done: self.tasks.pop(owner) if self.tasks.get(owner) is done else None)
        return task


class SocketIO:
    """Serves clients of Socket.IO.

    Args:
        hub: the hub of the application.
        access: its identities and rights.
        operations: does what clients ask for.
    """

    KEY: ClassVar[web.AppKey[SocketIO]]

    def __init__(self, hub: Hub, access: Access, operations: Operations) -> None:
        self._hub, self._access, self._operations = hub, access, operations
        self._sessions: dict[str, Session] = {}
        self._began: dict[int, Session] = {}  # by the id of their first requests, while these are answered
        settings = hub.settings
        self._engine = _Engine(
            self,
            async_mode="aiohttp",
            async_handlers=False,  # one event after the other, and nothing more is read meanwhile
            monitor_clients=False,  # the sweep does that
            cors_allowed_origins=[],  # checked before, as for all routes
            http_compression=False,
            max_http_buffer_size=MAX_BODY_BYTES,
            ping_interval=settings.heartbeat,
            ping_timeout=settings.peer_timeout,
            logger=_SILENT,
        )
        self._engine.on("connect", self._opened)
        self._engine.on("message", self._message)
        self._engine.on("disconnect", self._closed)

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Return its handlers, by path and method."""
        return {PATH: {"GET": self._handle, "POST": self._handle}}

    async def aclose(self) -> None:
        """End what is under way, once all streams have ended."""
        for session in list(self._sessions.values()):
            session.stream.abort(CloseReason.SHUTDOWN)
        tasks = list(self._engine.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ---- requests ----

    async def _handle(self, hub: Hub, request: web.Request) -> web.StreamResponse:
        check_site(hub, request)
        query = _PARAMETERS.read(request)
        sid = query.get("sid")
        if sid is None:
            check_room(hub, request, holder_of(hub, request))
            return await self._served(request, None)
        session = self._sessions.get(sid)
        if session is None:
            raise InvalidInput("sid", "is that of no session, or of one that has ended")
        way = "post" if request.method == "POST" else "websocket" if "Upgrade" in request.headers else "polling"
        if way in session.ways:
            raise InvalidInput("sid", f"is that of a session with another {way} request under way")
        session.ways.add(way)
        session.requests[id(request)] = request
        try:
            return await (self._posted if request.method == "POST" else self._served)(request, session)
        finally:
            session.ways.discard(way)
            session.requests.pop(id(request), None)

    async def _posted(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Take the packets that *request* brings, one after the other.

        python-engineio would take 16 of them, and drop more without a word: a client in JavaScript sends in one request
        whatever was emitted since the last one.
        """
        stream = session.stream
        body = await read_body(request, MAX_BODY_BYTES if stream.known else UNREAD_BYTES)
        if stream.socket.upgraded or not stream.socket.connected:
            raise InvalidInput("sid", "is that of a session over a WebSocket")
        broken = True
        try:
            await _take(stream, body.decode().split(END.decode()))
            broken = False
        except Exception as error:
            logger.debug("a request of Socket.IO failed: %r", error)
        finally:
            self._served_once(session, request, broken=broken)
        return _broken() if broken else web.Response(text="ok")

    async def _served(self, request: web.Request, session: Session | None) -> web.StreamResponse:
        """Return what python-engineio answers to *request*, of *session*, or of one that it begins."""
        served: web.StreamResponse | None = None
        broken = False
        try:
            served = await self._engine.handle_request(request)
        except HubError:
            raise
        except Exception as error:  # a packet that is none; the library leaves that to its caller
            logger.debug("a request of Socket.IO failed: %r", error)
            broken = True
        finally:
            began = self._began.pop(id(request), None)
            session = session or began
            if session is not None:
                self._served_once(session, request, broken=broken or served is None)
        return _broken() if served is None else served

    def _served_once(self, session: Session, request: web.Request, *, broken: bool) -> None:
        session.requests.pop(id(request), None)
        if broken:
            session.stream.abort(CloseReason.PROTOCOL)
        # A WebSocket that has ended is the end of its session; one that was only tried is not.
        if session.outbox.over or ("Upgrade" in request.headers and session.stream.socket.upgraded):
            self._finish(session)

    def websocket(self, handler: Any, engine: Any) -> _WebSocket:
        """Return what carries the WebSocket of a request; called by python-engineio."""
        return _WebSocket(handler, engine)

    # ---- sessions ----

    def _opened(self, sid: str, environ: Facts) -> bool:
        """Count a session that begins; its client has 5 seconds to connect."""
        request: web.Request = environ["aiohttp.request"]
        socket = self._engine.sockets[sid]
        outbox: Outbox = socket.queue
        outbox.address = request.remote or ""
        outbox.most = FEW if _TAKES_FEW.match(request.headers.get("User-Agent", "")) else 0
        stream = SocketIOStream(socket, self._hub.wiring, holder=holder_of(self._hub, request))
        outbox.stream = stream
        session = Session(sid, request, stream, outbox)
        outbox.cut = partial(self._cut, session)
        self._sessions[sid] = self._began[id(request)] = session
        session.requests[id(request)] = request
        stream.take_over(outbox, b"")  # type: ignore[arg-type]  # as much of a transport as a stream uses
        return True

    def _closed(self, sid: str, reason: str) -> None:
        """Note that python-engineio has ended the session *sid*: its client has left."""
        session = self._sessions.get(sid)
        if session is not None:
            session.stream.depart()
            asyncio.get_running_loop().call_soon(self._finish, session)

    def _cut(self, session: Session) -> None:
        """Close the connections of *session*, which was aborted."""
        for request in list(session.requests.values()):
            if request.transport is not None:
                request.transport.abort()
        asyncio.get_running_loop().call_soon(self._finish, session)

    def _finish(self, session: Session) -> None:
        """Forget *session*: everything was sent, or its connections are closed."""
        if self._sessions.pop(session.sid, None) is None:
            return
        socket = self._engine.sockets.pop(session.sid, session.stream.socket)
        socket.closed = True
        ping = self._engine.tasks.get(socket)
        if ping is not None:
            ping.cancel()
        session.outbox.abort()  # a poll that waits is answered
        for request in list(session.requests.values()):  # and no WebSocket stays: of those nobody would know any more
            if "Upgrade" in request.headers and request.transport is not None:
                request.transport.abort()
        session.stream.connection_lost(None)

    # ---- packets ----

    async def _message(self, sid: str, data: object) -> None:
        session = self._sessions.get(sid)
        if session is None or session.stream.closed_because is not None:
            return
        stream = session.stream
        packet = _read(data, limit=MAX_BODY_BYTES if stream.known else UNREAD_BYTES)
        if packet is None:
            stream.abort(CloseReason.PROTOCOL)
        elif packet.namespace not in {None, "/"}:
            if packet.packet_type == CONNECT:
                await stream.leisure()
                stream.reply(not_connected("there is one namespace, /", {}, f"{packet.namespace[:200]},"))
        elif packet.packet_type == CONNECT:
            await self._connect(session, packet.data)
        elif packet.packet_type == DISCONNECT:
            stream.depart()
        elif not stream.known:
            stream.abort(CloseReason.PROTOCOL)
        elif packet.packet_type == EVENT:
            await self._event(stream, packet.id, packet.data)

    async def _connect(self, session: Session, auth: object) -> None:
        stream, request = session.stream, session.request
        if request is None:
            return
        session.request = None
        try:
            fields = _checked(auth)
            identity = await self._identity(stream, request, fields)
            stream.ask(Asked(rooms=identity is not None, presence=fields.get("presence", False)))
            await self._begin(stream, identity)
        except HubError as error:
            if isinstance(error, Unauthorized | Forbidden | AuthUnavailable | TooManyRefusals):
                count_refusal_of(self._hub, self._hub.addresses.counted(stream.address), error)
            said = refused(error)
            del said["op"]
            stream.refuse(code_of(error), said, CloseReason.UNAUTHORIZED)
        except Exception:
            logger.exception("%s could not connect", stream.id)
            stream.refuse("failed", {"code": "failed", "status": 500}, CloseReason.FAILED)

    async def _identity(self, stream: SocketIOStream, request: web.Request, auth: Facts) -> Identity | None:
        """Return who connects: by the token in *auth*, else by the request that the session began with."""
        token = auth.get("token")
        if token is None:
            identity = await self._access.identity(request)
        else:
            check_refusals_of(self._hub, self._hub.addresses.counted(stream.address))
            identity = await self._access.token_identity(token)
        if identity is None and self._access.asks:
            self._access.policy.check_may_speak(None)
        return identity

    async def _begin(self, stream: SocketIOStream, identity: Identity | None) -> None:
        """Begin with the user's own topic, if that may be read, and the user's rooms."""
        own = () if identity is None else (topic_of("user", identity.user),)
        try:
            await self._operations.identify(stream, identity, own)
        except Forbidden:
            if not own or stream.known:
                raise
            await self._operations.identify(stream, identity)

    async def _event(self, stream: SocketIOStream, id: int | None, data: Any) -> None:
        """Do what an event asks for; the answer goes to its acknowledgement."""
        await stream.leisure()
        name = data[0]
        try:
            asked = _asked(name, data[1:])
        except InvalidInput as error:
            said = refused(error)
        else:
            said = await self._operations.respond(stream, asked)
        ok = said.pop("op") == "ok"
        if id is not None:
            stream.reply(answer(id, {"ok": ok, **said}))
        elif not ok:
            stream.reply(event("hub.error", {"event": str(name)[:100], **said}))
        await asyncio.sleep(0)  # others get their turn, however much one client asks for


SocketIO.KEY = web.AppKey("socketio", SocketIO)


class _WebSocket(Driver):  # type: ignore[misc]  # the library has no types
    """The WebSocket of one request, without compression."""

    async def __call__(self, environ: Mapping[str, Any]) -> web.StreamResponse:
        self._sock = web.WebSocketResponse(max_msg_size=MAX_BODY_BYTES, compress=False, timeout=CLOSE_SECONDS)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


async def _take(stream: SocketIOStream, packets: list[str]) -> None:
    """Take *packets* of Engine.IO until its client has left. Raises anything where they break the rules."""
    for text in packets:
        packet = EnginePacket(encoded_packet=text)
        if packet.packet_type not in _POSTED:
            raise UnknownPacketError
        await stream.socket.receive(packet)
        if stream.closed_because is not None:
            return
        await asyncio.sleep(0)  # others get their turn, however much is in one request


def _broken() -> web.Response:
    return problem(400, "what the client has sent breaks the rules of Engine.IO")


def _read(data: object, *, limit: int) -> Any:
    """Return the packet in *data*; None: it breaks the rules, or is binary, which is not read."""
    if not isinstance(data, str) or len(data) > limit:
        return None
    try:
        packet = _Packet(encoded_packet=data)
    except Exception:
        return None
    if packet.attachment_count or (packet.packet_type == EVENT and not _is_event(packet.data)):
        return None
    return packet


def _is_event(data: object) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], str)


def _checked(auth: object) -> Facts:
    """Return what a client says as it connects.

    Raises:
        InvalidInput: it is something else.
    """
    if auth is None:
        return {}
    if not isinstance(auth, dict):
        raise InvalidInput("auth", 'is not an object such as {"token": …}')
    if unknown := next((name for name in auth if name not in _AUTH), None):
        raise InvalidInput("auth", f"has an unknown field {ascii(unknown)[:80]}; there are {' and '.join(_AUTH)}")
    if not isinstance(auth.get("token"), str | None):
        raise InvalidInput("token", "is not a string")
    if not isinstance(auth.get("presence", False), bool):
        raise InvalidInput("presence", "is neither true nor false")
    return auth


def _asked(name: str, arguments: list[Any]) -> Facts:
    """Return what the event *name* asks for.

    Raises:
        InvalidInput: nothing that is known.
    """
    if name not in EVENTS:
        meant = hint(name, EVENTS) if len(name) <= 100 else ""
        raise InvalidInput("event", f"is not known; {meant}there are {', '.join(EVENTS)}")
    if len(arguments) > 1:
        raise InvalidInput("event", "has more than one argument: it takes one object with all fields")
    said = arguments[0] if arguments else {}
    if name in _SHORT and not isinstance(said, dict):
        short = _SHORT[name]
        said = {short: [said] if short == "topics" and not isinstance(said, list) else said}
    if not isinstance(said, dict):
        raise InvalidInput("event", "has an argument that is not an object")
    if "op" in said or "ref" in said:
        raise InvalidInput("op" if "op" in said else "ref", "is not a field of an event")
    return {**said, "op": name}
