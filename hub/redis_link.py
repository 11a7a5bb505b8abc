"""Connections to the Redis that keeps the log and the state of a hub.

A `RedisLink` knows the address, and finds the server that has the hub's keys now: the one that was named, the one that
Sentinels call the master, or the node of a cluster that serves the hash tag. Whoever needs a connection asks for one,
keeps it for itself, and asks for another one when it is lost: there is no pool, so that what is sent on one connection
arrives in order, and what blocks holds up nobody else.

This and what imports it are loaded only where Redis is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from hub.redis_url import RedisURL

_Host = tuple[str, int]

CONNECT_SECONDS = 1.0
ASK_SECONDS = 1.0

BROKEN = (RedisError, OSError, EOFError)
"""What a call raises that got no answer, or one that is an error; `TimeoutError` is an `OSError`."""

# With these a server says that another one has the keys, or that it has not got them yet; nothing was done.
_ELSEWHERE = ("MOVED", "ASK", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "TRYAGAIN", "UNBLOCKED")


class NoServer(RedisError):
    """There is no server that has the keys now; says why."""


def is_elsewhere(error: BaseException) -> bool:
    """Tell whether *error* is the answer of a server that has not got the keys: another connection has to be made."""
    # redis-py has classes for some of these, which leave out the first word.
    name = type(error).__name__.upper().removesuffix("ERROR")
    return isinstance(error, RedisError) and (str(error).startswith(_ELSEWHERE) or name in {*_ELSEWHERE, "BUSYLOADING"})


def is_refusal(error: BaseException) -> bool:
    """Tell whether *error* is an answer: the server did not do what it was asked for."""
    return isinstance(error, ResponseError) or is_elsewhere(error)


def reason(error: BaseException) -> str:
    """Return why a call failed, as the end of a sentence."""
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "Redis does not answer"
    text = str(error).strip() or type(error).__name__
    return f"Redis: {text[:200]}"


class RedisConnection:
    """One connection. Its calls are made one after the other; whatever breaks one of them closes it.

    Attributes:
        closed: it was closed, or broke: ask for another one.
    """

    def __init__(self, raw: AbstractConnection) -> None:
        self._raw = raw
        self._lock = asyncio.Lock()
        self.closed = False

    async def call(self, *command: Any, seconds: float = ASK_SECONDS) -> Any:
        """Return the answer to *command*.

        Raises:
            ResponseError: the answer is an error; the connection stays open.
            RedisError, OSError: it got none within *seconds*; the connection is closed.
        """
        (answer,) = await self.calls([command], seconds=seconds)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Sequence[Any]], *, seconds: float = ASK_SECONDS) -> list[Any]:
        """Return the answers to *commands*, sent in one go; one that is an error is returned, not raised.

        Raises:
            RedisError, OSError: not all of them came within *seconds*; the connection is closed.
        """
        raw = self._raw
        answers: list[Any] = []
        async with self._lock:
            if self.closed:
                raise NoServer("the connection is closed")
            try:
                async with asyncio.timeout(seconds):
                    packed = b"".join([pack_command(tuple(command)) for command in commands])
                    await raw.send_packed_command(packed, check_health=False)
                    for _ in commands:
                        try:
                            # As long as this takes is limited above, for all of them.
                            answers.append(await raw.read_response(timeout=float("inf")))
                        except RedisError as error:
                            if not is_refusal(error):
                                raise
                            answers.append(error)
            except BaseException:
                await self.aclose()  # what still comes would be taken for the answer to something else
                raise
        return answers

    async def aclose(self) -> None:
        """Close the connection, without waiting for anybody."""
        self.closed = True
        with contextlib.suppress(*BROKEN):
            await self._raw.disconnect(nowait=True)


class RedisLink:
    """The way to the server that has the keys of a hub.

    Args:
        url: where it is, or who knows.
        prefix: the hash tag of the keys.
    """

    def __init__(self, url: RedisURL, prefix: str) -> None:
        self._url = url
        self._slot = key_slot(prefix.encode())
        self._asked = list(url.hosts)  # who know the server: the one that was right last is asked first

    def __str__(self) -> str:
        return str(self._url)

    async def connect(self) -> RedisConnection:
        """Return a new connection to the server that has the keys now, within a few seconds.

        Raises:
            RedisError, OSError: there is none.
        """
        if self._url.path:
            return await self._opened(UnixDomainSocketConnection(path=self._url.path, **self._options()))
        if self._url.kind == "server":
            return await self._at(*self._url.hosts[0])
        by_sentinel = self._url.kind == "sentinel"
        asked, server = await (self._found_by_sentinel() if by_sentinel else self._found_in_cluster())
        connection = await self._at(*server)
        self._asked.remove(asked)
        self._asked.insert(0, asked)
        return connection

    def _options(self, *, database: bool = True) -> dict[str, Any]:
        return {
            "db": self._url.database if database else 0,
            "username": self._url.username,
            "password": self._url.password,
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }

    def _tls(self) -> dict[str, Any]:
        options = self._url.options
        return {
            "ssl_ca_certs": options.get("ca"),
            "ssl_certfile": options.get("cert"),
            "ssl_keyfile": options.get("key"),
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }

    async def _at(self, host: str, port: int, **others: Any) -> RedisConnection:
        options = {"host": host, "port": port, "socket_keepalive": True, **self._options(), **others}
        return await self._opened(SSLConnection(**options, **self._tls()) if self._url.tls else Connection(**options))

    async def _opened(self, raw: AbstractConnection) -> RedisConnection:
        connection = RedisConnection(raw)
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                await raw.connect()  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        except BaseException:
            await connection.aclose()
            raise
        return connection

    def _in_turn(self) -> Iterator[_Host]:
        """Yield those who know the server, each of which is the last one to be asked again, unless it is right.

        That holds even if nobody waits until it has failed to answer: else none but a silent one would ever be asked.
        """
        for host in list(self._asked):
            self._asked.remove(host)
            self._asked.append(host)
            yield host

    async def _found_by_sentinel(self) -> tuple[_Host, _Host]:
        """Return a Sentinel, and the server that it calls the master."""
        options = self._url.options
        who = {"db": 0, "username": options.get("sentinel_username"), "password": options.get("sentinel_password")}
        why = "none of the Sentinels answers"
        for host in self._in_turn():
            name, port = host
            try:
                sentinel = await self._at(name, port, **who)
                try:
                    found = await sentinel.call("SENTINEL", "get-master-addr-by-name", self._url.service)
                finally:
                    await sentinel.aclose()
            except BROKEN:
                continue
            if found:
                return host, (found[0].decode(), int(found[1]))
            why = f"the Sentinels know no {self._url.service!r}"
        raise NoServer(why)

    async def _found_in_cluster(self) -> tuple[_Host, _Host]:
        """Return a node, and the one that serves the hash tag, as it says."""
        why = "none of the nodes answers"
        for host in self._in_turn():
            try:
                node = await self._at(*host)
                try:
                    slots = await node.call("CLUSTER", "SLOTS")
                finally:
                    await node.aclose()
            except BROKEN:
                continue
            for first, last, (name, its_port, *_), *_ in slots:
                if first <= self._slot <= last:
                    return host, ((name or host[0].encode()).decode(), int(its_port))
            why = f"no node of the cluster serves the slot {self._slot}"
        raise NoServer(why)
