"""Real hubs on real servers, with a proxy before each hub's Redis that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from tests.cluster.network import Network
from tests.log.redis.proxy import Proxy, proxy
from tests.ports import free_port
from tests.redis_server import RedisServer, servers
from tests.web.process import STARTING, ServeProcess

HUBS = 3
_OPTIONS = ("--drain", "0.5", "--heartbeat", "1", "--log-level", "info")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Cluster:
    """Some hubs, and the servers they share.

    Args:
        log: the address of the log, for each hub.
        options: settings, for all of them.
        environ: the same, as variables.

    Attributes:
        ports: where the hubs listen; one that is killed comes back there.
        servers: the servers with the data; the first one is the master.
        proxies: before each hub's Redis, where there are any.
        said: what hubs that have ended had written.
    """

    def __init__(self, log: list[str], *options: str, environ: Mapping[str, str] | None = None) -> None:
        self._log, self._options, self._environ = log, options, environ
        self.ports = [free_port() for _ in log]
        self.servers: list[RedisServer] = []
        self.proxies: list[Proxy] = []
        self.said = ""
        self._hubs: dict[int, ServeProcess] = {}

    def now(self) -> list[int]:
        """Where hubs listen now, or soon."""
        return self.ports

    @property
    def redis(self) -> RedisServer:
        """The master, as long as none was promoted."""
        return self.servers[0]

    async def promoted(self, *, followed: bool = False) -> None:
        """Wait until one of the replicas is the master, and if *followed* the other ones follow it."""

        async def has_become(replica: RedisServer) -> None:
            await replica.says(b"role:master", "INFO", "replication")
            for each in self.servers[1:] if followed else ():
                if each is not replica:
                    await each.says(b"master_port:%d" % replica.port, "INFO", "replication")
                    await each.caught_up()

        waiting = {asyncio.create_task(has_become(each)) for each in self.servers[1:]}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def start_hub(self, number: int) -> None:
        """Start the hub with this number where it was, or will be; again if its Redis was too busy, as operators do."""
        while True:
            self._hubs[number] = hub = await self._started(number)
            try:
                await hub.listening()
                return
            except AssertionError:
                if not hub.err.endswith(": Redis does not answer\n"):
                    raise
                await self.kill_hub(number)

    async def _started(self, number: int) -> ServeProcess:
        command = ("serve", "--port", str(self.ports[number]), "--log", self._log[number], *_OPTIONS, *self._options)
        return await ServeProcess.start(*command, environ=self._environ)

    async def start(self) -> None:
        """Start all hubs."""
        await asyncio.gather(*map(self.start_hub, range(len(self.ports))))

    async def kill_hub(self, number: int) -> None:
        """End a hub without a word."""
        hub = self._hubs.pop(number)
        await hub.aclose()
        self.said += hub.err

    def signal_hub(self, number: int, what: signal.Signals) -> None:
        """Send a hub a signal."""
        self._hubs[number].signal(what)

    async def replace_workers(self) -> None:
        """Have the supervisor replace all of its workers, and wait until it has."""
        (hub,) = self._hubs.values()
        before = hub.err.count("all workers were replaced")
        hub.signal(signal.SIGHUP)
        async with asyncio.timeout(4 * STARTING):
            while hub.err.count("all workers were replaced") == before:  # noqa: ASYNC110 - it says so
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Wait until each hub says that it is."""
        async with asyncio.timeout(2 * STARTING):
            for hub in self._hubs.values():
                while (await hub.site.ask("GET", "/readyz")).status != 200:  # noqa: ASYNC110 - it says so
                    await asyncio.sleep(0.05)

    async def readiness(self) -> list[int]:
        """What each hub answers whoever asks whether it is ready."""
        return [(await hub.site.ask("GET", "/readyz")).status for hub in self._hubs.values()]

    async def stop(self) -> None:
        """End all hubs the way a deployment does; they have to end well."""
        for hub in self._hubs.values():
            hub.signal(signal.SIGTERM)
        for hub in self._hubs.values():
            assert await hub.end() == 0, hub.err
            assert "Traceback" not in hub.err, hub.err

    async def aclose(self) -> None:
        """Leave nothing behind."""
        for hub in self._hubs.values():
            await hub.aclose()
            self.said += hub.err
        self._hubs.clear()

    def note(self, error: BaseException) -> None:
        """Say beside *error* what the hubs had to say."""
        error.add_note("the hubs wrote:\n" + self.said + "".join(hub.err for hub in self._hubs.values()))


class OnNetwork(Cluster):
    """Hubs of which the first one reaches its Redis through a network of its own."""

    def __init__(self, log: list[str], network: Network) -> None:
        super().__init__(log)
        self.network = network

    async def _started(self, number: int) -> ServeProcess:
        if number:
            return await super()._started(number)
        # Its clients come from outside: the socket stays there.
        with socket.create_server(("127.0.0.1", self.ports[0])) as listening:
            return await ServeProcess.start(
                *("serve", "--log", self._log[0], *_OPTIONS),
                program=("-c", self.network.program),
                environ={"LISTEN_FDS": "1"},
                descriptors=[listening.fileno()],
            )


@contextlib.asynccontextmanager
async def running(made: Cluster) -> AsyncIterator[Cluster]:
    """Start the hubs of *made*, and end them."""
    try:
        await made.start()
        yield made
        await made.stop()
    except BaseException as error:
        made.note(error)
        raise
    finally:
        await made.aclose()


@contextlib.asynccontextmanager
async def on_one(kind: str, options: Sequence[str] = (), *, replica: bool = False) -> AsyncIterator[Cluster]:
    """Run three hubs on one server that loses nothing, each through a proxy; if asked for, beside it a replica.

    Args:
        kind: of the server.
        options: of the hubs.
        replica: whether there is one, to which the proxies may be turned.
    """
    with servers() as make:
        made = [make(kind, *DURABLE, port=replica) for _ in range(2 if replica else 1)]
        for server in made:
            await server.start()
        if replica:
            await made[1].replicate(made[0])
        async with contextlib.AsyncExitStack() as stack:
            places = [made[0].folder / f"p{number}" for number in range(HUBS)]
            proxies = [await stack.enter_async_context(proxy(made[0].socket, place)) for place in places]
            cluster = Cluster([f"redis+unix://{place}" for place in places], *options)
            cluster.servers, cluster.proxies = made, proxies
            async with running(cluster):
                yield cluster


@contextlib.asynccontextmanager
async def on_sentinels(kind: str, options: Sequence[str] = ()) -> AsyncIterator[Cluster]:
    """Run three hubs on a server with two replicas, of which three Sentinels choose the master."""
    with servers() as make:
        made = [make(kind, *DURABLE, port=True) for _ in range(3)]
        for server in made:
            await server.start()
        for server in made[1:]:
            await server.replicate(made[0])
        sentinels = [make(kind, port=True) for _ in range(3)]
        for sentinel in sentinels:
            await sentinel.start(configuration=_configuration(sentinel.folder, made[0].port))
        for sentinel in sentinels:  # before that they could not promote anybody
            await sentinel.says(b"slaves=2,sentinels=3", "INFO", "sentinel")
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        cluster = Cluster([f"redis+sentinel://{hosts}/main"] * HUBS, *options)
        cluster.servers = made
        async with running(cluster):
            yield cluster


@contextlib.asynccontextmanager
async def on_network(kind: str) -> AsyncIterator[OnNetwork]:
    """Run three hubs on one server; the first one is in a network of its own, which can be cut."""
    with servers() as make, Network() as network:
        server = make(kind, *DURABLE)
        await server.start()
        way = socket.create_server((network.here, 0))
        async with proxy(server.socket, way):
            here = f"redis://{network.here}:{way.getsockname()[1]}"
            cluster = OnNetwork([here, server.url, server.url], network)
            cluster.servers = [server]
            async with running(cluster):
                yield cluster


def _configuration(folder: Path, port: int) -> Path:
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor main 127.0.0.1 {port} 2\n"
        "sentinel down-after-milliseconds main 700\n"
        "sentinel failover-timeout main 4000\n"
    )
    return configuration


@contextlib.asynccontextmanager
async def of_workers(kind: str, count: int = HUBS) -> AsyncIterator[Cluster]:
    """Run one supervisor with three workers."""
    with servers() as make:
        server = make(kind, *DURABLE)
        await server.start()
        cluster = Cluster([server.url], "--workers", str(count))
        cluster.servers = [server]
        async with running(cluster):
            yield cluster
