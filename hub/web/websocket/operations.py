"""What a client can ask for over a WebSocket, each with its answer; by the same rights and limits as over HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from hub.access.identity import Identity
from hub.connections.changes import TopicsChanged
from hub.connections.client_stream import CloseReason
from hub.connections.connection import PresenceView
from hub.connections.holders import Holder
from hub.encoding import retry_between
from hub.errors import (
    AuthUnavailable,
    Forbidden,
    HubError,
    InvalidInput,
    NotThere,
    ShuttingDown,
    TooManyRefusals,
    Unauthorized,
)
from hub.hub import Hub
from hub.names import hint
from hub.notification import Draft
from hub.topics import check_topic, check_wanted, topic_of
from hub.web.access import Access
from hub.web.body import check_fields, decoded
from hub.web.conversation import Conversation
from hub.web.denials import PUBLISH, SUBSCRIBE, note_denial_of
from hub.web.limits import Refusal, check_publish, check_refusals_of, count_refusal_of
from hub.web.presence import Users, present
from hub.web.problems import facts_of
from hub.web.query import MOST_ON_A_PAGE, ON_A_PAGE
from hub.web.subscribe import presence_view
from hub.web.websocket.socket import LastWords, WebSocket
from hub.wires import Format

logger = logging.getLogger("hub.web")

MOST_REF = 256
_AUTH = '{"op": "auth", "token": …}'
REFUSED_SECONDS = (10, 60)
_REFUSALS = (Unauthorized, Forbidden, AuthUnavailable, TooManyRefusals)
_ROUTES = {"publish": "publish", "join": "rooms", "leave": "rooms", "presence": "presence"}
"""The route that does the same over HTTP."""
_FIELDS = {"add": "topics", "remove": "topics", "after": "lastEventId"}
"""What fields of `PATCH` are called in a message."""
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_ENDS = {each.value: each for each in CloseReason}

Facts = dict[str, Any]


def code_of(error: HubError) -> str:
    """Return the word for *error*: its `code`, or the name of its kind, as the `type` of the problem has it."""
    kind = Unauthorized if isinstance(error, Unauthorized) else error.__class__
    return getattr(error, "code", "") or _WORD.sub("_", kind.__name__).lower()


def refused(error: HubError) -> Facts:
    """Return the answer to what was refused with *error*."""
    retry = getattr(error, "retry_after", None)
    more = {} if retry is None else {"retryAfter": retry}
    return {
        "op": "error", "code": code_of(error), "status": error.status, "detail": str(error), **facts_of(error), **more,
    }  # fmt: skip


class Operations:
    """Does what clients ask for over their WebSockets.

    Args:
        hub: the hub of the application.
        access: its identities and rights.
        routes: the names of the routes that are mounted: what is not there over HTTP can't be asked for here.

    Attributes:
        message_seconds: as for a body over HTTP.
    """

    def __init__(self, hub: Hub, access: Access, routes: Collection[str]) -> None:
        self._hub, self._access, self._routes = hub, access, routes
        self.message_seconds = hub.settings.body_timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[LastWords] = set()
        self._known: dict[str, tuple[tuple[str, ...], Callable[[Conversation, Facts], Awaitable[Facts]]]] = {
            "subscribe": (("topics", "lastEventId"), self._subscribe),
            "unsubscribe": (("topics",), self._unsubscribe),
            "publish": ((), self._publish),  # the fields of a draft, which checks them
            "join": (("room", "publish"), self._join),
            "leave": (("room",), self._leave),
            "presence": (("topic", "after", "limit"), self._presence),
            "ping": ((), self._ping),
        }

    def start(self, socket: WebSocket) -> None:
        """Have the messages that wait at *socket* answered, in a task."""
        task = asyncio.get_running_loop().create_task(socket.work())
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, socket))

    def _done(self, socket: WebSocket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed while it was answered, and is aborted", socket.id, exc_info=error)
            socket.abort()

    def last_words(self, words: bytes) -> LastWords:
        """Return what takes the socket over of a client that is told *words*, and no more."""
        leaving = LastWords(words, self._leaving.discard)
        self._leaving.add(leaving)
        return leaving

    async def aclose(self) -> None:
        """Cancel what is under way, once all sockets have ended."""
        for leaving in list(self._leaving):
            leaving.abort()
        if self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # ---- one message ----

    async def answer(self, socket: WebSocket, message: bytes) -> None:
        """Do what *message* asks for, and say so to *socket*, with its `ref`."""
        ref: Facts = {}
        try:
            asked = _read(message, socket.messages.format)
            ref = _ref(asked)
            _check_op(asked.get("op"))
        except InvalidInput as error:
            said = refused(error)
        else:
            said = await self.respond(socket, asked)
        socket.reply({"op": said.pop("op"), **ref, **said})

    async def respond(self, socket: Conversation, asked: Facts) -> Facts:
        """Do what is *asked* for over *socket*, with an `op` that is known; return the answer. It does not raise."""
        try:
            said = await (self._do(socket, asked) if socket.known else self._introduce(socket, asked))
        except HubError as error:
            if error.status >= 500 and error.status != 503:
                logger.exception("a message over %s failed", socket.id)
            if isinstance(error, _REFUSALS):
                count_refusal_of(self._hub, self._who(socket), error)
            return refused(error)
        except Exception:
            logger.exception("a message over %s failed", socket.id)
            detail = "the hub failed to answer; its log says why"
            return {"op": "error", "code": "failed", "status": 500, "detail": detail}
        return {"op": "ok", **said}

    def _who(self, socket: Conversation) -> str:
        """Return whose doings those of *socket* count among, as `publisher` does."""
        user = socket.holder.user
        return self._hub.addresses.counted(socket.address) if user is None else f"user {user}"

    async def _do(self, socket: Conversation, asked: Facts) -> Facts:
        op = asked.pop("op")
        asked.pop("ref", None)
        if op == "auth":
            raise InvalidInput("op", self._why_no_auth())
        if op in _ROUTES and _ROUTES[op] not in self._routes:
            raise NotThere("operation", f"{op} is not served here: this hub has no such route over HTTP either")
        fields, do = self._known[op]
        if fields or op == "ping":
            check_fields(asked, fields)
        if len(self._hub.refusing):
            check_refusals_of(self._hub, self._who(socket))
        self._access.check(socket.holder.identity)
        return await do(socket, asked)

    # ---- who speaks ----

    async def _introduce(self, socket: Conversation, asked: Facts) -> Facts:
        """Take the first message of a client of which nobody knows who it is: `auth`, or that of anybody."""
        identity = None
        try:
            if asked["op"] == "auth":
                identity = await self._authenticate(socket, asked)
            else:
                self._check_anybody()
            await self.identify(socket, identity)
        except (Unauthorized, Forbidden, AuthUnavailable, TooManyRefusals) as error:
            self._end(socket, error)
            raise
        if asked["op"] != "auth":
            return await self._do(socket, asked)
        return {"user": None if identity is None else identity.user}

    def _check_anybody(self) -> None:
        """Raise `Unauthorized` if a client has to say who it is, and how it does over a socket."""
        try:
            self._access.policy.check_may_speak(None)
        except Unauthorized as error:
            raise Unauthorized(error.code, f"it is not known who you are: send {_AUTH} first") from None

    def _why_no_auth(self) -> str:
        if not self._access.asks:
            return "is auth, but nobody is asked here: the hub has neither a login (authenticate) nor keys for tokens"
        return "is auth, but it is known already who speaks: open another socket to be somebody else"

    async def _authenticate(self, socket: Conversation, asked: Facts) -> Identity:
        check_fields({name: each for name, each in asked.items() if name not in {"op", "ref"}}, ("token",))
        token = asked.get("token")
        if not isinstance(token, str):
            raise InvalidInput("token", "is not a string")
        if len(self._hub.refusing):
            check_refusals_of(self._hub, self._who(socket))
        return await self._access.token_identity(token)

    async def identify(self, socket: Conversation, identity: Identity | None, topics: Sequence[str] = ()) -> None:
        """Have *socket* begin, in the name of *identity*, with *topics* and the rooms that it has asked for.

        Raises:
            Unauthorized, Forbidden, AuthUnavailable: *identity* may not have it, or that can't be told now.
        """
        hub, access = self._hub, self._access
        reading = await access.reading(identity, topics, rooms=socket.asked.rooms, opens=True)
        if socket.closed_because is not None:
            return
        access.check(identity)
        address = socket.holder.address
        holder = Holder(None, address)
        if identity is not None:
            holder = Holder(identity.user, address, identity.expires, identity)
        if not reading.stands:
            reading = access.again(reading, ())
        socket.settle(reading.topics, reading.visibility)
        ending = hub.connections.identify(socket, holder)
        if ending is not None:
            socket.end(*ending)
            return
        socket.begin(presence_view(access, identity) if socket.asked.presence else PresenceView.NOTHING)
        if reading.held is not None:
            hub.rooms.catch_up(socket, reading.held, reading.listed)

    def _end(self, socket: Conversation, error: Refusal) -> None:
        """Say why *socket* ends whose client may not speak, behind the answer to its message."""
        reason = _ENDS.get(code_of(error), CloseReason.UNAUTHORIZED)
        within = (2, 10) if isinstance(error, AuthUnavailable) else REFUSED_SECONDS
        asyncio.get_running_loop().call_soon(socket.end, reason, retry_between(*within))

    # ---- what can be asked for ----

    async def _subscribe(self, socket: Conversation, asked: Facts) -> Facts:
        topics = asked.get("topics", [])
        if not isinstance(topics, list):
            raise InvalidInput("topics", "is not a list of topics and patterns")
        after = asked.get("lastEventId")
        if after is not None and not isinstance(after, str):
            raise InvalidInput("lastEventId", "is not a string")
        wanted = check_wanted(topics, "topics")
        try:
            self._access.policy.check_may_read(socket.holder.identity)
            changed = await self._change(socket, add=wanted, after=after)
        except (Unauthorized, Forbidden) as error:
            self._note(socket, SUBSCRIBE, error, wanted)
            raise
        return {"topics": list(changed.topics), "from": str(changed.position)}

    async def _unsubscribe(self, socket: Conversation, asked: Facts) -> Facts:
        topics = asked.get("topics")
        if not isinstance(topics, list) or not topics:
            raise InvalidInput("topics", "is not a list of at least one topic or pattern")
        changed = await self._change(socket, remove=topics)
        return {"topics": list(changed.topics), "from": str(changed.position)}

    async def _change(self, socket: Conversation, **change: Any) -> TopicsChanged:
        """Change the topics of *socket*; an error names the field of the message, not that of `PATCH`."""
        try:
            return await self._hub.change_topics(socket.id, **change)
        except InvalidInput as error:
            error.field = _FIELDS.get(error.field, error.field)
            raise

    async def _publish(self, socket: Conversation, asked: Facts) -> Facts:
        hub, identity = self._hub, socket.holder.identity
        if hub.draining:
            raise ShuttingDown
        try:
            self._access.policy.check_may_publish(identity)
            draft = Draft.from_json(asked)
            check_publish(hub, self._who(socket), 1)
            (receipt,) = hub.notifications.publish(await self._access.publish_as(identity, (draft,)))
        except (Unauthorized, Forbidden) as error:
            self._note(socket, PUBLISH, error)
            raise
        position = await receipt
        return {"id": str(position), "topics": list(receipt.topics), **({"repeated": True} if receipt.repeated else {})}

    async def _join(self, socket: Conversation, asked: Facts) -> Facts:
        user, room = self._member(socket, asked)
        publish = asked.get("publish", False)
        if not isinstance(publish, bool):
            raise InvalidInput("publish", "is neither true nor false")
        await self._access.check_join(socket.holder.identity, room, publish=publish)
        since = await self._hub.rooms.join(user, room, publish=publish)
        return {"room": room, "from": str(since)}

    async def _leave(self, socket: Conversation, asked: Facts) -> Facts:
        user, room = self._member(socket, asked)
        return {"room": room, "left": await self._hub.rooms.leave(user, room)}

    def _member(self, socket: Conversation, asked: Facts) -> tuple[str, str]:
        """Return the user of *socket*, who joins or leaves the room that is *asked* for, and that room."""
        identity, room = socket.holder.identity, asked.get("room")
        self._access.policy.known(identity)
        known = self._access.check_member(identity, "" if identity is None else identity.user)
        if not isinstance(room, str):
            raise InvalidInput("room", "is not a string")
        topic_of("room", room, "room")
        return known.user, room

    async def _presence(self, socket: Conversation, asked: Facts) -> Facts:
        after, limit = asked.get("after", ""), asked.get("limit", ON_A_PAGE)
        if not isinstance(after, str):
            raise InvalidInput("after", "is not a string")
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_ON_A_PAGE:
            raise InvalidInput("limit", f"is not a whole number from 1 to {MOST_ON_A_PAGE:,}")
        topic = check_topic(asked.get("topic", ""))
        return await present(self._hub, self._access, socket.holder.identity, topic, Users(after, limit))

    async def _ping(self, socket: Conversation, asked: Facts) -> Facts:
        return {}

    def _note(
        self, socket: Conversation, name: str, error: Unauthorized | Forbidden, topics: tuple[str, ...] = ()
    ) -> None:
        note_denial_of(self._hub, lambda: Holder(socket.holder.user, socket.address), name, error, topics)


def _read(message: bytes, format: Format) -> Facts:
    """Return the object in *message*.

    Raises:
        InvalidInput: it is none.
    """
    asked = decoded(message, "message") if format is Format.JSON else _unpacked(message)
    if not isinstance(asked, dict):
        raise InvalidInput("message", 'is not an object such as {"op": "ping"}')
    if not all(isinstance(name, str) for name in asked):  # msgpack has names of bytes
        raise InvalidInput("message", "has a member whose name is not a string")
    return asked


OPS = ("auth", "subscribe", "unsubscribe", "publish", "join", "leave", "presence", "ping")
"""What a message can ask for."""


def _check_op(op: object) -> None:
    if op is None:
        raise InvalidInput("op", f"is required: one of {', '.join(OPS)}")
    if op not in OPS:
        meant = hint(op, OPS) if isinstance(op, str) and len(op) <= MOST_REF else ""
        raise InvalidInput("op", f"is not known; {meant}there are {', '.join(OPS)}")


def _unpacked(message: bytes) -> Any:
    import msgpack  # noqa: PLC0415 - an extra

    try:
        return msgpack.unpackb(message, ext_hook=_refuse_ext)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise InvalidInput("message", f"is not msgpack: {str(error)[:200]}") from None


def _refuse_ext(code: int, data: bytes) -> Any:
    raise ValueError(f"an extension type ({code})")


def _ref(asked: Mapping[str, Any]) -> Facts:
    """Return the `ref` of a message, as its answer repeats it."""
    if "ref" not in asked:
        return {}
    ref = asked["ref"]
    whole = isinstance(ref, int) and not isinstance(ref, bool) and abs(ref) < 1 << 53
    if not (whole or (isinstance(ref, str) and len(ref) <= MOST_REF)):
        raise InvalidInput("ref", f"is neither a string of up to {MOST_REF} characters nor a whole number")
    with suppress(UnicodeEncodeError):
        str(ref).encode()
        return {"ref": ref}
    raise InvalidInput("ref", "is not valid UTF-8 text: it has a lone surrogate")
