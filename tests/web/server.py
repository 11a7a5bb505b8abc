"""A hub on a real port, and the shortest ways to ask it something."""

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
from hub.demo import PROVIDER, setup_demo
from tests.web.client import Address, Client, until


@dataclass
class Answer:
    """An answer that was read to its end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """Where a hub answers, whoever runs it.

    Attributes:
        clients: everybody who was connected with `client`.
    """

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None, prefix: str = "") -> None:
        self.address, self.tls, self.prefix = address, tls, prefix
        self.clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        """Connect; *options* as for `Client.connect`."""
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
        """Open a stream and read its `hub.open`."""
        client = await self.client(**options)
        path = self.subscribe_path(*topics, **(query or {}))
        cursor = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        await client.request("GET", path, headers={**cursor, **(headers or {})}, version=version)
        assert await client.head() == 200
        client.opened = await client.next("hub.open")
        return client

    def subscribe_path(self, *topics: str, **query: str) -> str:
        """Return the path of a stream of *topics*."""
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
        """Send a request on a connection of its own and read the whole answer."""
        client = await self.client()
        await client.request(method, path, headers=headers, body=body, version=version)
        await client.head()
        # The body of an answer to HEAD is only announced.
        answer = Answer(client.status, client.headers, b"" if method == "HEAD" else await client.body())
        await client.aclose()
        return answer

    async def post(self, path: str, body: object, **headers: str) -> Answer:
        """Post *body* as JSON."""
        said = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        return await self.ask("POST", self.prefix + path, headers=said, body=json.dumps(body).encode())

    async def publish(self, draft: object) -> Answer:
        """Publish *draft*, or a list of them, over HTTP."""
        return await self.post("/notifications/publish", draft)

    async def aclose(self) -> None:
        """End all clients."""
        await asyncio.gather(*(client.aclose() for client in self.clients))


class Server(Site):
    """A hub in this process, in an application of its own, until `aclose`."""

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
    ) -> Server:
        """Start a hub with *settings*, by default one that ends without a drain window.

        Args:
            settings: what is not said is as the hub has it, except that it drains in no time.
            app: where the hub is set up; None: in an application of its own.
            prefix: where its routes begin.
            demo: add the demo's routes, and the provider for its chat.
            handler_cancellation: aiohttp's setting of that name.
            tls: what the server and what its clients speak TLS with.
        """
        app = web.Application() if app is None else app
        hub = setup_hub(
            app, Settings(**{"drain": 0, "ai_provider": PROVIDER if demo else None, **settings}), prefix=prefix
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
        """Send one notification per item in-process; return their ids."""
        return [str(self.hub.notifications.send_notification(item, topic=topic, **options).result()) for item in items]

    @property
    def registered(self) -> dict[str, int]:
        """How many entries each registry of open streams has."""
        hub = self.hub
        index = hub.fanout._index
        return {
            "connections": len(hub.connections),
            "wiring": len(hub.wiring.connections),
            "viewers": hub.viewers,
            "audiences": len(hub.fanout._audiences),
            "unflushed": len(hub.fanout._unflushed),
            "topics": len(index._exact),
            "patterns": len(index._patterns._root.children),
        }

    async def deserted(self) -> None:
        """Return when no stream is registered anywhere."""
        await until(lambda: not any(self.registered.values()))

    async def aclose_server(self) -> None:
        """End the server the way an application ends."""
        await self.runner.cleanup()

    async def aclose(self) -> None:
        """End the server, then its clients."""
        await self.runner.cleanup()
        await super().aclose()
        assert not any(self.registered.values()), self.registered
