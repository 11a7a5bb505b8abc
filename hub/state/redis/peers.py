"""The processes of a hub find one another in Redis: leases, what each holds, and an inbox for each."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hub import errors
from hub.errors import HubError, StateUnavailable
from hub.log.redis.script import Script
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason
from hub.redis_url import RedisURL
from hub.state.peers import ANSWER_SECONDS, CLAIM_SECONDS, Handler, Heard
from hub.state.peers import News as PeerNews
from hub.state.redis.calls import Calls
from hub.state.redis.news import Missed, News

logger = logging.getLogger("hub.peers")

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
GATHER_SECONDS = 0.02
CLOSE_SECONDS = 1.0
PART = 500  # things that are told in one call
LOAD_SECONDS = 5.0
PAUSES = (0.1, 0.2, 0.5, 1.0)
SCRIPT = Script("peers.lua", "hub.state.redis")


class RedisPeers:
    """The other processes of the hub with the keys *prefix*.

    Args:
        url: where Redis is.
        prefix: the hash tag of the keys.
        lease: seconds after which a process that says nothing is gone.
    """

    def __init__(self, url: RedisURL, prefix: str, *, lease: float = LEASE_SECONDS) -> None:
        self.id = ""
        self._link, self._lease = RedisLink(url, prefix), lease
        begin = f"{{{prefix}}}:peers:"
        self._keys = [begin + field for field in ("meta", "news", "leases", "held:", "inbox:", "claim:")]
        self._news_key, self._held_key, self._inbox_key = self._keys[1], self._keys[3], ""
        self._calls = Calls(self._link, SCRIPT, self._keys)
        self._news = News(self._link, "what other processes do", load=self._load, take=self._take, check=self._same)
        self._epoch, self._seen = "", 0
        self._inbox_seen = b"0-0"
        self._mine: dict[str, Any] = {}
        self._untold: dict[str, Any] = {}  # None: it is held no more
        self._registered = False
        self._its_lease: tuple[str, bytes] | None = None  # the epoch, and the name of the lease
        self._renewed_at = -math.inf  # in seconds of time.monotonic
        self._wake = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._held: dict[str, dict[str, Any]] = {}  # by process, what it holds
        self._renewed: dict[str, set[str]] = {}  # of each process that says everything anew, what it has said so far
        self._followers: dict[str, Heard] = {}
        self._handlers: dict[str, Handler] = {}
        self._gone: list[Callable[[str], None]] = []
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- the beginning and the end ----

    async def open(self) -> None:
        self.id = secrets.token_hex(6)  # not before: many may be forked from a process that has made this
        self._inbox_key = self._keys[4] + self.id
        try:
            await self._news.open()
        except BROKEN as error:
            raise StateUnavailable(f"{self._link}: {reason(error)}") from None
        self._calls.open()
        await self._register()
        self._telling = asyncio.get_running_loop().create_task(self._tell_all())

    async def aclose(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            leaving = asyncio.ensure_future(self._call("leave"))
            await asyncio.wait([leaving], timeout=CLOSE_SECONDS)
            leaving.cancel()
            await asyncio.wait([leaving])
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._calls.aclose()
        await self._news.aclose()

    async def _call(self, what: str, *arguments: Any) -> list[bytes]:
        call = self._calls.send(what, "", _candidate(), self.id, *arguments)
        answer: list[bytes] = await self._calls.answered(call)
        return answer

    # ---- what the others hold ----

    @property
    def others(self) -> int:
        return len(self._held)

    @property
    def first(self) -> bool:
        return all(self.id < peer for peer in self._held)

    def follow(self, kind: str, heard: Heard) -> None:
        self._followers[kind] = heard

    def holder(self, kind: str, key: str) -> str | None:
        name = f"{kind}:{key}"
        return next((peer for peer, held in self._held.items() if name in held), None)

    async def _begin(self, connection: RedisConnection, what: str) -> tuple[str, int, list[str]]:
        (answer,) = await SCRIPT.run(connection, self._keys, [what, "", _candidate(), self.id])
        return answer[0].decode(), int(answer[1]), [each.decode() for each in answer[2]] if what == "begin" else []

    async def _same(self, connection: RedisConnection) -> bool:
        epoch, seen, _ = await self._begin(connection, "news")
        return epoch == self._epoch and seen >= self._seen

    async def _load(self, connection: RedisConnection) -> Mapping[str, bytes]:
        """Read everything anew; what has changed meanwhile is said again by the news that follow."""
        first, (self._epoch, self._seen, peers) = not self._epoch, await self._begin(connection, "begin")
        found: dict[str, dict[str, Any]] = {}
        for peer in peers:
            if peer != self.id:
                found[peer] = await self._holdings(connection, peer)
        for peer in set(self._held) - set(found):
            self._forget(peer, died=True)
        self._renewed.clear()
        for peer, holdings in found.items():
            known = self._held.setdefault(peer, {})
            for name in set(known) - set(holdings):
                self._change(peer, name, None)
            for name, value in holdings.items():
                self._change(peer, name, value)
        if not first and self.id not in peers:
            self._registered = False
            self._wake.set()
        return {self._news_key: b"%d-0" % self._seen, self._inbox_key: self._inbox_seen}

    async def _holdings(self, connection: RedisConnection, peer: str) -> dict[str, Any]:
        holdings: dict[str, Any] = {}
        cursor = b"0"
        while True:
            key = self._held_key + peer
            cursor, found = await connection.call("HSCAN", key, cursor, "COUNT", PART, seconds=LOAD_SECONDS)
            for place in range(0, len(found), 2):
                holdings[found[place].decode()] = json.loads(found[place + 1])
            if cursor == b"0":
                return holdings

    def _take(self, stream: str, id: bytes, fields: dict[bytes, bytes]) -> None:
        if stream == self._inbox_key:
            self._inbox_seen = id
            self._receive(json.loads(fields[b"f"]))
            return
        number = int(id.partition(b"-")[0])
        if number != self._seen + 1:
            raise Missed
        self._seen = number
        kind, peer = fields[b"k"], fields[b"p"].decode()
        if peer == self.id:
            if kind == b"died":
                self._lapse()
        elif kind in {b"left", b"died"}:
            self._forget(peer, died=kind == b"died")
        else:
            held = self._held.setdefault(peer, {})
            if kind == b"registers":
                self._renewed[peer] = set()
            elif kind == b"registered":
                said = self._renewed.pop(peer, None)
                for name in [] if said is None else set(held) - said:
                    self._change(peer, name, None)
            else:
                for name, value in json.loads(fields[b"f"]):
                    self._change(peer, name, value)
                    if peer in self._renewed:
                        self._renewed[peer].add(name)

    def _forget(self, peer: str, *, died: bool) -> None:
        for name in list(self._held.get(peer, ())):
            self._change(peer, name, None, died=died)
        self._held.pop(peer, None)
        self._renewed.pop(peer, None)
        for gone in self._gone:
            gone(peer)

    def _lapse(self) -> None:
        """Note that this process may have lost its lease: it asks for it, and says everything anew."""
        self._registered = False
        self._renewed_at = -math.inf
        self._wake.set()

    @property
    def sure(self) -> bool:
        return time.monotonic() - self._renewed_at < self._lease

    async def alive(self, peer: str) -> bool:
        return peer == self.id or (await self._call("alive", peer))[1] == b"1"

    async def claim(self, name: str) -> bool:
        return (await self._call("claim", name, int(CLAIM_SECONDS * 1000)))[1] == b"1"

    async def release(self, name: str) -> None:
        await self._call("release", name)

    def on_gone(self, gone: Callable[[str], None]) -> None:
        self._gone.append(gone)

    def _change(self, peer: str, name: str, value: Any, *, died: bool = False) -> None:
        held = self._held[peer]
        before = held.get(name)
        if value is None:
            held.pop(name, None)
        else:
            held[name] = value
        kind, _, key = name.partition(":")
        heard = self._followers.get(kind)
        if heard is not None and before != value:
            try:
                heard(PeerNews(peer, key, before, value, died))
            except Exception:
                logger.exception("what another process holds (%s) failed to be heard", kind)

    # ---- what this process holds ----

    def hold(self, kind: str, key: str, value: Any) -> None:
        name = f"{kind}:{key}"
        if self._mine.get(name) == value:
            return
        if value is None:
            del self._mine[name]
        else:
            self._mine[name] = value
        self._untold[name] = value  # written when it is told: what changes often is written once for many changes
        self._wake.set()

    async def _register(self) -> None:
        """Say everything that this process holds.

        Raises:
            StateUnavailable: it was not heard.
        """
        self._untold.clear()
        epoch, lease = await self._renew("register")
        before, self._its_lease = self._its_lease, (epoch.decode(), lease)
        if before is not None and before != self._its_lease and before[0] == self._its_lease[0]:
            # It was gone for the others until now. In another epoch, Redis has lost everything.
            logger.warning("this process has lost its lease: it was stopped, or away from Redis, for too long")
            for gone in self._gone:
                gone(self.id)
        everything = list(self._mine.items())
        for first in range(0, len(everything), PART):
            await self._say(everything[first : first + PART])
        answer = await self._renew("registered")
        self._registered = answer[1] != b"lapsed"

    async def _say(self, things: Sequence[tuple[str, Any]]) -> bool:
        """Say *things*; return whether this process has its lease still."""
        gone = [name for name, value in things if value is None]
        held = [text for name, value in things if value is not None for text in (name, _json(value))]
        return self._has_lease(await self._renew("hold", _json(things), len(gone), *gone, *held))

    async def _renew(self, what: str, *arguments: Any) -> list[bytes]:
        """Return the answer to a call that renews the lease."""
        asked = time.monotonic()
        answer = await self._call(what, self._lease, *arguments)
        if answer[1] != b"lapsed":
            self._renewed_at = asked
        return answer

    def _has_lease(self, answer: Sequence[bytes]) -> bool:
        if answer[1] != b"lapsed":
            return True
        if answer[0].decode() == self._epoch:  # else Redis has lost everything
            self._lapse()
        return False

    async def _tell_all(self) -> None:
        pauses = iter(PAUSES)
        renew = min(RENEW_SECONDS, self._lease / 3)
        while True:
            self._wake.clear()
            if self._registered and not self._untold:
                waking = asyncio.ensure_future(self._wake.wait())
                try:
                    await asyncio.wait([waking], timeout=renew)
                finally:
                    waking.cancel()
                await asyncio.sleep(GATHER_SECONDS)
            try:
                await self._tell_some()
                pauses = iter(PAUSES)
            except StateUnavailable as error:
                logger.debug("the other processes are not told: %s", error)
                self._registered = False  # it is not known what they have heard
                await asyncio.sleep(next(pauses, PAUSES[-1]))

    async def _tell_some(self) -> None:
        if not self._registered:
            await self._register()
            return
        things = list(self._untold.items())[:PART]
        for name, _ in things:
            del self._untold[name]
        if things:
            self._registered = await self._say(things)
        else:
            self._registered = self._has_lease(await self._renew("renew"))

    # ---- questions ----

    def answer(self, question: str, handler: Handler) -> None:
        self._handlers[question] = handler

    async def ask(self, peer: str, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Any:
        id = secrets.token_hex(8)
        answer = self._asked[id] = asyncio.get_running_loop().create_future()
        try:
            message = json.dumps({"id": id, "from": self.id, "question": question, "facts": facts})
            sent = await self._call("send", peer, message)
            if sent[1] != b"1":
                raise StateUnavailable("the process has ended")
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise StateUnavailable("another process of the hub does not answer") from None
        finally:
            del self._asked[id]

    async def ask_all(self, question: str, facts: Any = None, *, seconds: float = ANSWER_SECONDS) -> Mapping[str, Any]:
        peers = list(self._held)
        asked = (self.ask(peer, question, facts, seconds=seconds) for peer in peers)
        said = await asyncio.gather(*asked, return_exceptions=True)
        for each in said:
            if isinstance(each, BaseException) and not isinstance(each, HubError):
                raise each
        return {peer: each for peer, each in zip(peers, said, strict=True) if not isinstance(each, BaseException)}

    def _receive(self, message: dict[str, Any]) -> None:
        if "question" in message:
            task = asyncio.get_running_loop().create_task(self._reply(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        asked = self._asked.get(message["id"])
        if asked is not None and not asked.done():
            if "error" in message:
                asked.set_exception(_raised(*message["error"]))
            else:
                asked.set_result(message["answer"])

    async def _reply(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": message["id"]}
        handler = self._handlers.get(message["question"])
        try:
            if handler is None:
                raise StateUnavailable("another process of the hub knows no such question")  # noqa: TRY301
            reply["answer"] = await handler(message["facts"])
        except HubError as error:
            reply["error"] = [type(error).__name__, list(error.args)]
        except Exception:
            logger.exception("a question of another process (%s) failed", message["question"])
            reply["error"] = ["StateUnavailable", ["another process of the hub failed"]]
        try:
            await self._call("send", message["from"], json.dumps(reply, default=str))
        except StateUnavailable as error:
            logger.debug("another process was not answered: %s", error)


def _candidate() -> str:
    """Return a name for the history, if it has none: another one each time, or one that was lost would go on."""
    return secrets.token_hex(8)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _raised(name: str, arguments: Sequence[Any]) -> HubError:
    """Return the error that another process has raised."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, HubError):
        try:
            return found(*arguments)
        except TypeError:
            pass
    return StateUnavailable(f"another process of the hub failed: {name}")
