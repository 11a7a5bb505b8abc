"""Calls of one script, on a connection that is made anew when it breaks.

What is called in one turn of the loop goes out together. Changes are numbered, and sent until there is an answer, in
their order: the script does a numbered one once. All others are given up with the connection that they went out on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from hub.errors import StateUnavailable
from hub.log.redis.script import Script
from hub.redis_link import BROKEN, RedisConnection, RedisLink, is_elsewhere, is_refusal, reason

logger = logging.getLogger("hub.state")

PATIENCE = 1.0
TOGETHER = 500
WAITING = 10_000
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
CLOSE_SECONDS = 2.0


class Call:
    """One call on its way.

    Attributes:
        arguments: of the script.
        lasting: it is sent until there is an answer.
        answer: what the script says.
        sent: how often it was sent.
    """

    __slots__ = ("answer", "arguments", "lasting", "sent")

    def __init__(self, arguments: Sequence[Any], *, lasting: bool) -> None:
        self.arguments, self.lasting, self.sent = arguments, lasting, 0
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(_looked_at)


class Calls:
    """Calls *script* with *keys*, through whatever connections that takes.

    Args:
        link: the way to Redis.
        script: what is called.
        keys: of all its calls.

    Attributes:
        writer: names this process in changes, from its opening on: many may be forked from one that has made this.
    """

    def __init__(self, link: RedisLink, script: Script, keys: Sequence[str]) -> None:
        self._link, self._script, self._keys = link, script, keys
        self.writer = ""
        self._turn = 0
        self._waiting: deque[Call] = deque()
        self._awake = asyncio.Event()
        self._connection: RedisConnection | None = None
        self._sending: asyncio.Task[None] | None = None
        self._opened = False

    def open(self) -> None:
        """Send from now on, on the running loop."""
        self.writer = secrets.token_hex(8)
        self._opened = True
        self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def aclose(self) -> None:
        """Send what waits, within 2 seconds; what is left is told that it is not confirmed."""
        self._opened = False
        if self._sending is not None:
            self._awake.set()
            await asyncio.wait([self._sending], timeout=CLOSE_SECONDS if self._connection is not None else 0)
            self._sending.cancel()
            await asyncio.wait([self._sending])
        for call in self._waiting:
            _fail(call, "it is closed")
        self._waiting.clear()
        if self._connection is not None:
            await self._connection.aclose()

    def change(self, what: str, now: str, candidate: str, *arguments: Any) -> Call:
        """Send a change, again and again until there is an answer."""
        self._turn += 1
        return self._call((what, now, candidate, self.writer, self._turn, *arguments), lasting=True)

    def send(self, *arguments: Any) -> Call:
        """Send a call that is given up with its connection, or when its caller has waited for a second."""
        return self._call(arguments, lasting=False)

    async def answered(self, call: Call) -> Any:
        """Return the answer to *call*.

        Raises:
            StateUnavailable: there is none within a second, or it is an error.
        """
        await asyncio.wait([call.answer], timeout=PATIENCE)
        if not call.answer.done():
            if not call.lasting:
                _fail(call, "Redis does not answer")
            raise StateUnavailable("Redis does not answer")
        return call.answer.result()

    def _call(self, arguments: Sequence[Any], *, lasting: bool) -> Call:
        call = Call(arguments, lasting=lasting)
        if not self._opened:
            _fail(call, "it is not open")
        elif len(self._waiting) >= WAITING:
            _fail(call, "too much waits for Redis")
        else:
            self._waiting.append(call)
            self._awake.set()
        return call

    # ---- sending ----

    async def _send_all(self) -> None:
        pauses = iter(PAUSES)
        while self._opened or self._waiting:
            if not self._waiting:
                self._awake.clear()
                await self._awake.wait()
                continue
            try:
                await self._send_some()
                pauses = iter(PAUSES)
            except BROKEN as error:
                why = reason(error)
                if self._connection is not None:
                    logger.warning("the state is not written: %s", why)
                    await self._connection.aclose()
                    self._connection = None
                self._give_up(why)
                with contextlib.suppress(TimeoutError):
                    await asyncio.sleep(next(pauses, PAUSES[-1]) * random.uniform(0.5, 1))
            except Exception:
                logger.exception("the state in Redis failed")
                self._give_up("it failed; the hub's own log says why")
                await asyncio.sleep(PAUSES[-1])

    def _give_up(self, why: str) -> None:
        """Give up what is not sent again."""
        for call in self._waiting:
            if not call.lasting:
                _fail(call, why)
        self._waiting = deque(call for call in self._waiting if call.lasting)

    async def _send_some(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = await self._link.connect()
            try:
                await connection.call("SCRIPT", "LOAD", self._script.text)
            except BaseException:
                await connection.aclose()
                raise
            self._connection = connection
        # Those whose caller has gone already have not happened.
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        batch = [call for call in list(self._waiting)[:TOGETHER] if not call.answer.done()]
        if not batch:
            return
        for call in batch:
            call.sent += 1
        commands = [("EVALSHA", self._script.digest, len(self._keys), *self._keys, *call.arguments) for call in batch]
        answers = await self._connection.calls(commands)
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, NoScriptError) or (isinstance(answer, Exception) and is_elsewhere(answer)):
                raise answer  # it and all behind it were not done, or are known by their numbers
            while self._waiting and self._waiting[0] is not call:
                self._waiting.popleft()
            self._waiting.popleft()
            if not isinstance(answer, Exception):
                if not call.answer.done():
                    call.answer.set_result(answer)
            elif is_refusal(answer):
                logger.error("the state in Redis: %s", answer)
                _fail(call, reason(answer))
            else:
                raise answer


def _fail(call: Call, why: str) -> None:
    if not call.answer.done():
        call.answer.set_exception(StateUnavailable(why))


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Have nobody warned of an error that nobody awaits: it was logged."""
    if not future.cancelled():
        future.exception()
