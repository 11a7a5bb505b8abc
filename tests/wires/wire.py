"""One reader over any wire: it says what it hears as messages, and remembers the cursor as a client does."""

from __future__ import annotations

import abc
import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urlencode

from wsproto.frame_protocol import Opcode

from tests.spec_decoder import Event
from tests.web.client import PATIENCE, Client, StreamEnded
from tests.web.server import Site
from tests.wires.frames import Frames, close, pong, said

Message = dict[str, Any]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Reader(abc.ABC):
    """A reader of *topics* that stands at *cursor*; it begins with `open`.

    Attributes:
        cursor: what it comes back with.
        client: its connection.
        left: bytes after which it is cut; over all its polls; None: it is not.
    """

    name: ClassVar[str]

    def __init__(
        self, site: Site, *topics: str, cursor: str = "", headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.site, self.topics, self.cursor = site, topics, cursor
        self.headers, self.options = dict(headers or {}), options
        self.query: dict[str, str] = {}
        self.left: int | None = None
        self.client: Client
        self._waiting: deque[Message] = deque()

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect, and ask for the topics; what the hub says first can be read then."""

    @abc.abstractmethod
    async def _more(self) -> None:
        """Read something, and put what it completes with what waits."""

    async def message(self) -> Message:
        """Return the next message but heartbeats; the cursor moves.

        Raises:
            StreamEnded: there is none any more.
        """
        while True:
            async with asyncio.timeout(PATIENCE):
                while not self._waiting:
                    await self._more()
            message = self._waiting.popleft()
            self._move(message)
            if message["op"] not in {"hub.heartbeat", "ok"}:
                return message

    def _move(self, message: Message) -> None:
        if "id" in message and message["op"] in {"hub.open", "notification", "hub.heartbeat"}:
            self.cursor = message["id"]

    async def next(self, op: str = "notification") -> Message:
        """Return the next message, and assert that it is an *op*."""
        message = await self.message()
        assert message["op"] == op, message
        return message

    async def data(self, number: int) -> list[Any]:
        """Return the data of the next *number* notifications."""
        return [(await self.next())["data"] for _ in range(number)]

    async def ended(self) -> list[Message]:
        """Return the messages until the connection ends."""
        messages = []
        try:
            while True:
                messages.append(await self.message())
        except StreamEnded:
            return messages

    async def aclose(self) -> None:
        """Disconnect, without a word."""
        await self.client.aclose()

    async def _request(self, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> int:
        await self._ask_for(path, query, headers)
        return await self.client.head()

    async def _ask_for(self, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> None:
        self.client = await self.site.client(**self.options)
        self.client.left = self.left
        pairs = [*query, *self.query.items()]
        asked = self.site.prefix + path + (f"?{urlencode(pairs)}" if pairs else "")
        await self.client.request("GET", asked, headers={**self.headers, **headers})

    @property
    def _asked(self) -> list[tuple[str, str]]:
        return [("topic", topic) for topic in self.topics]


class SSEReader(Reader):
    name = "sse"

    async def open(self) -> None:
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        query = [*self._asked, ("envelope", "all")]
        assert await self._request("/notifications/subscribe", query, headers) == 200

    async def _more(self) -> None:
        if not await self.client.more():
            raise StreamEnded("the answer is complete")
        arrived = self.client.arrived()
        self._waiting += map(self._read, arrived)
        if not arrived and self.client.decoder.last_event_id:  # a heartbeat
            self.cursor = self.client.decoder.last_event_id

    def _read(self, event: Event) -> Message:
        facts = event.json()
        if event.type == "hub.open":
            return {"op": event.type, "id": event.id, **facts}
        if event.type == "hub.close":
            return {"op": event.type, **facts, "retry": self.client.decoder.retry}
        if event.type.startswith("hub."):
            return {"op": event.type, **facts}
        # With an envelope a notification without an id of its own has it in there.
        return {"op": "notification", "earlier": facts.pop("id"), **facts} if "id" in facts else {
            "op": "notification", "id": event.id, **facts
        }  # fmt: skip


class LinesReader(Reader):
    name = "ndjson"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._line = b""

    async def open(self) -> None:
        headers = {"Accept": "application/x-ndjson", **({"Last-Event-ID": self.cursor} if self.cursor else {})}
        assert await self._request("/notifications/subscribe", self._asked, headers) == 200
        assert self.client.headers["Content-Type"] == "application/x-ndjson"

    async def _more(self) -> None:
        some = await self.client.more()
        if not some:
            raise StreamEnded("the answer is complete")
        *lines, self._line = (self._line + some).split(b"\n")
        self._waiting += map(json.loads, lines)


class SocketReader(Reader):
    """Says who it is, if it has a *token*, and subscribes.

    Attributes:
        code: the code of the hub's close frame; None: there was none.
    """

    name = "websocket"

    def __init__(self, *args: Any, token: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.token = token
        self.code: int | None = None
        self.pongs = True  # it answers pings
        self._frames = Frames()

    async def connect(self) -> None:
        """Connect, and ask for nothing."""
        assert await self._request("/notifications/ws", [], UPGRADE) == 101
        if self.token:
            await self.say({"op": "auth", "token": self.token})

    async def open(self) -> None:
        await self.connect()
        if self.topics:
            after = {"lastEventId": self.cursor} if self.cursor else {}
            await self.say({"op": "subscribe", "topics": list(self.topics), **after})

    def _move(self, message: Message) -> None:
        super()._move(message)
        if message["op"] == "hub.topics" and not self._had:
            self.cursor = message["from"]
        if message["op"] in {"hub.open", "hub.topics"}:
            self._had = bool(message["topics"])

    _had = False

    async def say(self, message: Any) -> None:
        await self._send(said(message))

    async def answer(self, message: Message) -> Message:
        """Send *message*, and return its answer; what comes before that waits."""
        self._asked_so_far += 1
        ref = message.get("ref", f"#{self._asked_so_far}")
        await self.say({**message, "ref": ref})
        before: list[Message] = []
        while True:
            async with asyncio.timeout(PATIENCE):
                while not self._waiting:
                    await self._more()
            found = self._waiting.popleft()
            # A `ref` that breaks its rule is not repeated.
            if found.get("ref", ref if found["op"] == "error" else None) == ref:
                self._waiting.extendleft(reversed(before))
                return found if "ref" in message else {name: each for name, each in found.items() if name != "ref"}
            before.append(found)

    _asked_so_far = 0

    async def _more(self) -> None:
        for frame in self._frames.feed(await self.client.at_most(1 << 18)):
            if frame.opcode is Opcode.TEXT:
                self._waiting.append(frame.json())
            elif frame.opcode is Opcode.PING and self.pongs:
                await self._send(pong(bytes(frame.payload)))
            elif frame.opcode is Opcode.CLOSE:
                self.code = int(frame.payload[0])
                await self._send(close(self.code))

    async def _send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # the hub has gone
            await self.client.send(data)


class PollReader(Reader):
    """Polls again and again. A gap and the end of a poll are told as the streams tell them."""

    name = "poll"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._begun = False

    async def open(self) -> None:
        self._begun = bool(self.cursor)
        await self._ask()
        if not self._begun:
            await self._take()

    async def _ask(self) -> None:
        limit = [] if "limit" in self.query else [("limit", "7")]
        query = [*self._asked, *limit, *([("lastEventId", self.cursor)] if self.cursor else [])]
        await self._ask_for("/notifications/poll", query, {})

    async def _take(self) -> None:
        status = await self.client.head()
        while await self.client.more():
            pass
        body = json.loads(bytes(self.client.received))
        self.left = self.client.left
        if status == 503:
            why = {"reason": "capacity", "limit": body["limit"]} if "limit" in body else {"reason": "draining"}
            self._waiting.append({"op": "hub.close", **why})
            return
        assert status == 200, body
        gap, end = body.get("gap"), body.get("close")
        if not self._begun:
            self._begun = True
            self._waiting.append({"op": "hub.open", "id": body["cursor"]})
        self._waiting += [{"op": "hub.gap", **gap}] if gap else []
        for each in body["notifications"]:
            told = dict(each)
            if told["type"] is None:  # a poll says that there is none; the streams leave it out
                del told["type"]
            self._waiting.append({"op": "notification", **told})
        self._waiting += [{"op": "hub.heartbeat", "id": body["cursor"]}] if body["cursor"] else []
        self._waiting += [{"op": "hub.close", **end}] if end else []
        self._ended = bool(end)
        self._asks = False

    _asks, _ended = True, False

    async def _more(self) -> None:
        if self._ended:
            raise StreamEnded("the poll has ended")
        if not self._asks:
            await self.client.aclose()
            await self._ask()
        self._asks = True
        await self._take()


READERS: tuple[type[Reader], ...] = (SSEReader, LinesReader, SocketReader, PollReader)
HELD_OPEN: tuple[type[Reader], ...] = (SSEReader, LinesReader, SocketReader)
