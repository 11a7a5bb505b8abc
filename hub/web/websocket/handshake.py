"""`/notifications/ws`: from a request to a WebSocket (RFC 6455, section 4.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from functools import lru_cache

from aiohttp import web
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from hub.connections.client_stream import CloseReason
from hub.connections.connection import PresenceView, Subscription
from hub.encoding import End, retry_between
from hub.errors import AuthUnavailable, Forbidden, InvalidInput, NotAWebSocket, TooManyRefusals, Unauthorized
from hub.hub import Hub
from hub.web.access import Access, Reading
from hub.web.conversation import Asked
from hub.web.endpoint import check_site
from hub.web.limits import Refusal, count_refusal, holder_of
from hub.web.query import Parameters
from hub.web.stream import HandedOver, no_room
from hub.web.subscribe import flag, presence_view
from hub.web.websocket.operations import Operations, code_of
from hub.web.websocket.socket import WebSocket
from hub.wires import Format, Messages, formats

OPERATIONS: web.AppKey[Operations] = web.AppKey("operations", Operations)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TICKET = 'is for /notifications/subscribe: send the token in the first message, {"op": "auth", "token": …}'
_IN_MESSAGE = 'is asked for by a message over the open socket, {"op": "subscribe", …}'
_PARAMETERS = Parameters("rooms", "lastEventId", "presence", elsewhere={"ticket": _TICKET, "topic": _IN_MESSAGE})
# The same ones for all sockets that say the same: thousands of them hold these for as long as they are open.
_asked = lru_cache(maxsize=4)(Asked)
_messages = lru_cache(maxsize=8)(Messages)
_REFUSALS = (Unauthorized, Forbidden, AuthUnavailable, TooManyRefusals)


class Upgrade(HandedOver):
    """The answer that switches to the WebSocket protocol."""

    def __init__(self, request: web.BaseRequest, format: Format | None, extensions: str) -> None:
        super().__init__(status=101)
        key = request.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()  # noqa: S324 - the RFC says so
        self.headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept})
        if format is not None:
            self.headers["Sec-WebSocket-Protocol"] = format
        if extensions:
            self.headers["Sec-WebSocket-Extensions"] = extensions


async def websocket(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a WebSocket without topics, or say over one why there is none."""
    query = _PARAMETERS.read(request)
    asked = _asked(flag(query, "rooms"), flag(query, "presence"))
    _check(request)
    check_site(hub, request)  # other than an answer, a page of any site could read it
    format = _format(request)
    extensions, deflate = _extensions(request) if hub.settings.websocket_deflate else ("", False)
    messages = _messages(format or Format.JSON, deflate)
    response = Upgrade(request, format, extensions)
    access, operations = Access.of(request), request.config_dict[OPERATIONS]
    try:
        identity = await access.identity(request)
        known = identity is not None or not access.asks
        reading = await access.reading(identity, (), rooms=asked.rooms, opens=True) if known else None
    except _REFUSALS as error:
        if not _is_browser(hub, request, error):
            raise
        count_refusal(hub, request, error)
        end = End(code_of(error), retry_between(10, 60))
        await response.hand_over(request, operations.last_words(messages.end(end)))
        return response
    holder = holder_of(hub, request, identity)
    away = no_room(hub, request, holder)
    if away is not None:
        await response.hand_over(request, operations.last_words(messages.end(away)))
        return response
    cursor = query.get("lastEventId") if asked.rooms else None  # what it subscribes to later has one of its own
    subscription = Subscription((), cursor, messages, rooms=asked.rooms)
    if reading is not None:
        presence = presence_view(access, identity) if asked.presence else PresenceView.NOTHING
        subscription = subscription._replace(topics=reading.topics, visibility=reading.visibility, presence=presence)
    socket = WebSocket(subscription, hub.wiring, operations, holder=holder, known=reading is not None, asked=asked)
    access.check(identity)
    await _begin(hub, request, response, socket, reading)
    return response


async def _begin(hub: Hub, request: web.Request, response: Upgrade, socket: WebSocket, reading: Reading | None) -> None:
    """Give *socket* the connection; what happens to the rights of its holder meanwhile counts."""
    access = Access.of(request)

    def settle() -> None:
        if reading is not None:
            access.settle(socket, reading)

    await response.hand_over(request, socket, settle)
    if hub.connections.get(socket.id) is not socket:
        return
    if reading is not None and reading.held is not None:
        hub.rooms.catch_up(socket, reading.held, reading.listed)
    try:
        access.check(socket.holder.identity)  # what was revoked before the socket was counted did not end it
    except Unauthorized:
        socket.end(CloseReason.REVOKED, retry_between(10, 60))


def _is_browser(hub: Hub, request: web.Request, error: Refusal) -> bool:
    """Return whether *request* may come from a page, whose WebSocket can't read a status or a problem."""
    readable = hub.settings.refuse == "auto" or isinstance(error, TooManyRefusals)
    return readable and "Origin" in request.headers and "Authorization" not in request.headers


def _check(request: web.Request) -> None:
    """Check that *request* asks for a WebSocket as RFC 6455 says.

    Raises:
        NotAWebSocket, InvalidInput: it does not.
    """
    upgrades = "websocket" in _tokens(request, "Upgrade") and "upgrade" in _tokens(request, "Connection")
    if not upgrades or request.version < (1, 1) or request.headers.get("Sec-WebSocket-Version") != "13":
        raise NotAWebSocket
    if not _is_key(request.headers.getall("Sec-WebSocket-Key", [])):
        raise InvalidInput("Sec-WebSocket-Key", "is not one header with 16 bytes in base64")
    if request.can_read_body:
        raise InvalidInput("body", "is not expected with the request of a WebSocket")


def _tokens(request: web.BaseRequest, name: str) -> list[str]:
    return [each.strip().lower() for each in ",".join(request.headers.getall(name, [])).split(",")]


def _is_key(keys: Iterable[str]) -> bool:
    (key, *more) = [*keys, ""]
    try:
        return more == [""] and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _format(request: web.BaseRequest) -> Format | None:
    """Return the first format that the client of *request* offers and the hub speaks; None: it offers nothing.

    Raises:
        InvalidInput: it offers others only.
    """
    offered = [each.strip() for each in ",".join(request.headers.getall("Sec-WebSocket-Protocol", [])).split(",")]
    if offered == [""]:
        return None
    spoken = formats()
    for each in offered:
        if each in spoken:
            return Format(each)
    if Format.MSGPACK.value in offered:
        raise InvalidInput(
            "Sec-WebSocket-Protocol",
            f"offers {Format.MSGPACK.value}, which needs the extra msgpack at the hub; it speaks {', '.join(spoken)}",
        )
    raise InvalidInput("Sec-WebSocket-Protocol", f"offers none of {', '.join(spoken)}")


def _extensions(request: web.BaseRequest) -> tuple[str, bool]:
    """Return what is answered to the extensions that *request* offers, and whether messages may be compressed.

    Neither side keeps a context, so that one compressed frame is for all; and the hub's window is the usual one.
    """
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    try:
        offers = parse_extension(",".join(request.headers.getall("Sec-WebSocket-Extensions", [])) or "none")
    except InvalidHeader:
        raise InvalidInput("Sec-WebSocket-Extensions", "breaks the grammar of extensions") from None
    for name, parameters in offers:
        if name != factory.name:
            continue
        try:
            answered, extension = factory.process_request_params(parameters, [])
        except NegotiationError:
            continue
        if extension.local_max_window_bits == extension.remote_max_window_bits == 15:
            return build_extension([(name, list(answered))]), True
    return "", False
