"""`HubSocket`: one WebSocket to the hub, for programs with threads.

It is an `AsyncHubSocket` on an event loop in a thread of its own, so both decide alike. What is called waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hub.client.async_socket import AsyncHubSocket, AsyncSocketListening
from hub.client.errors import NOT_OPEN, ClientClosed
from hub.client.listening import Pause
from hub.client.received import Item
from hub.notification import Position

if TYPE_CHECKING:
    from hub.client.client import HubClient

T = TypeVar("T")


class HubSocket:
    """A WebSocket of a `HubClient`, by which it publishes and listens; see `HubClient.websocket`.

    A context manager: it waits until the socket is open, and closes it at the end. Several threads may use it at once.
    """

    def __init__(self, client: HubClient, watch: Callable[[Pause], None] | None) -> None:
        self._client, self._watch = client, watch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._socket: AsyncHubSocket | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub websocket", daemon=True)
        self._thread.start()
        try:
            self._socket = self.wait(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. What waits for it in another thread ends, or raises `ClientClosed`."""
        with self._lock:
            socket, self._socket = self._socket, None
        if socket is not None:
            try:
                self.wait(socket.aclose())
            finally:
                self._stop()

    def leave_to_parent(self) -> None:
        """Be closed in a child process: neither the thread nor the connection is there."""
        self._lock = threading.Lock()
        self._loop = self._thread = self._socket = None

    def publish(self, data: object, **options: Any) -> Position:
        """Publish *data* and return its position; *options* as for `HubClient.publish`."""
        return self.wait(self._opened().publish(data, **options))

    def join(self, room: str, *, publish: bool = False) -> None:
        """Join *room*, and with *publish* send there, too; where the application allows it."""
        self.wait(self._opened().join(room, publish=publish))

    def leave(self, room: str) -> bool:
        """Leave *room*; return whether there was a membership."""
        return self.wait(self._opened().leave(room))

    def listen(self, *topics: str, last_event_id: str | None = None) -> SocketListening:
        """Return an iterator over what is published to *topics* and patterns, as `HubClient.listen`.

        A socket has one of them at a time.
        """
        socket = self._opened()

        async def listen() -> AsyncSocketListening:
            return socket.listen(*topics, last_event_id=last_event_id)

        return SocketListening(self, self.wait(listen()))

    def _opened(self) -> AsyncHubSocket:
        socket = self._socket
        if socket is None:
            raise ClientClosed if self._thread is not None else ClientClosed(NOT_OPEN)
        return socket

    async def _open(self) -> AsyncHubSocket:
        """Open a socket on this thread's loop, with what the client has."""
        socket = self._client.for_loop().websocket(watch=self._watch)
        await socket.__aenter__()
        return socket

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        """Return the result of *what*, done in the thread of the socket."""
        if threading.current_thread() is self._thread:
            what.close()
            raise RuntimeError("the socket can't be used where it calls its watch: it would wait for itself")
        with self._lock:  # what `_stop` finds is cancelled there; nothing comes after that, and waits for ever
            if self._loop is None:
                what.close()
                raise ClientClosed
            future: Future[T] = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed from None
        except BaseException:
            future.cancel()  # such as KeyboardInterrupt
            raise

    def _stop(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        thread = self._thread
        if loop is None or thread is None:
            return

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class SocketListening:
    """The iterator of `HubSocket.listen`, for one thread; `close` may come from others.

    As a context manager it waits until the hub sends what is listened to, and has it stop at the end.
    """

    def __init__(self, socket: HubSocket, stream: AsyncSocketListening) -> None:
        self._socket, self._stream = socket, stream

    @property
    def cursor(self) -> str:
        """The id up to which everything has been given out; empty: it has not begun."""
        return self._stream.cursor

    def __enter__(self) -> Self:
        self._socket.wait(self._stream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration; the socket goes on."""
        self._socket.wait(self._stream.aclose())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        try:
            return self._socket.wait(_next(self._stream))
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None


async def _next(stream: AsyncSocketListening) -> Item:
    """Return the next item. Raises `ClientClosed` at the end: a task must not raise `StopAsyncIteration`."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        raise ClientClosed from None
