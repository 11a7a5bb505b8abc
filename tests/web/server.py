"""A hub on a real port, and short methods for requests to it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict

from hub import Hub, Settings, setup_hub
from hub.connections.connection import Connection
from hub.demo import PROVIDER, setup_demo
from tests.web.client import Address, Client, until


@dataclass
class Answer:
    """A complete answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """The address of a hub, in this process or another one, and the clients connected to it.

    Attributes:
        clients: all clients that `client` has connected.
    """

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None, prefix: str = "") -> None:
        self.address, self.tls, self.prefix = address, tls, prefix
        self.clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        """Return a new client of this hub; *options* as for `Client.connect`."""
        client = await Client.connect(self.address, tls=self.tls, **options)
        self.clients.append(client)
        return client

    async def subscribe(
        self,
        *topics: str,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "1.1",
        query: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Client:
        """Return a new client with an open stream whose `hub.open` has been read."""
        client = await self.client(**options)
        path = self.subscribe_path(*topics, **(query or {}))
        cursor = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        await client.request("GET", path, headers={**cursor, **(headers or {})}, version=version)
        assert await client.head() == 200
        client.opened = await client.next("hub.open")
        return client

    def subscribe_path(self, *topics: str, **query: str) -> str:
        """Return the path and query that subscribe to *topics*."""
        pairs = [("topic", topic) for topic in topics] + list(query.items())
        return f"{self.prefix}/notifications/subscribe" + (f"?{urlencode(pairs)}" if pairs else "")

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        version: str = "1.1",
    ) -> Answer:
        """Send a request on a new connection and return the whole answer."""
        client = await self.client()
        await client.request(method, path, headers=headers, body=body, version=version)
        await client.head()
        # An answer to HEAD has a Content-Length but no body.
        answer = Answer(client.status, client.headers, b"" if method == "HEAD" else await client.body())
        await client.aclose()
        return answer

    async def post(self, path: str, body: object, **headers: str) -> Answer:
        """Send *body* as JSON in a POST and return the answer; `_` in the names of *headers* stands for `-`."""
        said = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        return await self.ask("POST", self.prefix + path, headers=said, body=json.dumps(body).encode())

    async def publish(self, draft: object) -> Answer:
        """Publish *draft*, or a list of drafts, over HTTP."""
        return await self.post("/notifications/publish", draft)

    async def aclose(self) -> None:
        """Disconnect all clients."""
        await asyncio.gather(*(client.aclose() for client in self.clients))


class Server(Site):
    """A hub in this process, with a server of its own, until `aclose`."""

    def __init__(self, app: web.Application, hub: Hub, runner: web.AppRunner, *, prefix: str) -> None:
        super().__init__("", prefix=prefix)
        self.app, self.hub, self.runner = app, hub, runner

    @classmethod
    async def start(
        cls,
        settings: Mapping[str, Any],
        *,
        app: web.Application | None = None,
        prefix: str = "",
        demo: bool = False,
        handler_cancellation: bool = False,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        setup: Mapping[str, Any] | None = None,
    ) -> Server:
        """Start a hub with *settings* on a free port.

        Args:
            settings: the settings; the others have their defaults, except `drain`, which is 0.
            app: the application in which the hub is set up; None: a new one.
            prefix: the path prefix of the hub's routes.
            demo: whether to add the demo's routes, and the provider for its chat.
            handler_cancellation: aiohttp's setting of that name.
            tls: the contexts of the server and of its clients; None: no TLS.
            setup: other arguments of `setup_hub`; by default all routes are mounted.
        """
        app = web.Application() if app is None else app
        hub = setup_hub(
            app,
            Settings(**{"drain": 0, "ai_provider": PROVIDER if demo else None, **settings}),
            prefix=prefix,
            **({"routes": "all"} | dict(setup or {})),
        )
        if demo:
            setup_demo(app)
        runner = web.AppRunner(app, handler_cancellation=handler_cancellation, shutdown_timeout=2, access_log=None)
        server = cls(app, hub, runner, prefix=prefix)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096, ssl_context=tls[0] if tls else None)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        server.address = runner.addresses[0][:2]
        server.tls = tls[1] if tls else None
        return server

    def send(self, *items: object, topic: str | None = None, **options: Any) -> list[str]:
        """Send one notification for each item without HTTP; return their ids."""
        return [str(self.hub.notifications.send_notification(item, topic=topic, **options).result()) for item in items]

    @property
    def subscriptions(self) -> list[Connection]:
        """The open subscriptions, at the hub's end."""
        return [each for each in self.hub.connections if isinstance(each, Connection)]

    @property
    def registered(self) -> dict[str, int]:
        """The number of entries in each registry of open streams."""
        hub = self.hub
        index = hub.fanout._index
        return {
            "connections": len(hub.connections),
            "viewers": hub.viewers,
            "audiences": len(hub.fanout._audiences),
            "unflushed": len(hub.fanout._unflushed),
            "topics": len(index._exact),
            "patterns": len(index._patterns._root.children),
        }

    async def deserted(self) -> None:
        """Wait until no stream is registered anywhere."""
        await until(lambda: not any(self.registered.values()))

    async def aclose_server(self) -> None:
        """Shut the server down as an application does; leave its clients alone."""
        await self.runner.cleanup()

    async def aclose(self) -> None:
        """Shut the server down, disconnect its clients, and check that no stream is left."""
        await self.runner.cleanup()
        await super().aclose()
        assert not any(self.registered.values()), self.registered
