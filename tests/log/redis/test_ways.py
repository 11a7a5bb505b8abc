"""The ways to a Redis: Sentinels, a cluster, TLS, a password."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trustme

from hub.errors import LogUnavailable
from tests.contracts.test_log import until
from tests.log.redis.conftest import Begin, Process
from tests.log.redis.test_fence import once_up, until_equal
from tests.redis_server import KINDS, RedisServer

MakeServer = Callable[..., RedisServer]


def all_heard(process: Process, number: int) -> bool:
    return len(process.heard) == number


async def test_a_password_is_needed_and_not_shown(make_server: MakeServer, begin: Begin):
    server = make_server("redis", port=True)
    await server.start()
    await server.ask("ACL", "SETUSER", "default", "resetpass", ">p@ss")
    one = await begin(server.tcp.replace("//", "//:p%40ss@") + "/2")
    await one.publish("a")
    with pytest.raises(LogUnavailable) as refused:
        await begin(server.tcp.replace("//", "//:mistyped@"))
    assert "mistyped" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cluster_has_all_keys_of_a_hub_on_one_node(make_server: MakeServer, begin: Begin, kind: str):
    nodes = [make_server(kind, "--cluster-enabled", "yes", port=True) for _ in range(2)]
    for node in nodes:
        await node.start()
    await nodes[0].ask("CLUSTER", "ADDSLOTS", *range(8001))
    await nodes[1].ask("CLUSTER", "ADDSLOTS", *range(8001, 16384))
    await nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    for node in nodes:
        await node.says(b"cluster_state:ok", "CLUSTER", "INFO")
    seeds = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    for prefix in ("one", "two", "three", "four"):
        process = await begin(f"redis+cluster://{seeds}", prefix=prefix)
        await process.publish("a", "b")
        await until(partial(all_heard, process, 2))
    kept = [await node.ask("DBSIZE") for node in nodes]
    assert all(kept), "each has some of these hubs"


async def test_sentinels_say_who_the_master_is_and_a_failover_is_followed(make_server: MakeServer, begin: Begin):
    master, replica = make_server("redis", port=True), make_server("redis", port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    sentinel = make_server("redis", port=True)
    configuration = sentinel.folder / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 2000\n"
    )
    await sentinel.start(configuration=configuration)
    one = await begin(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main")
    before = one.log.epoch
    given = await one.publish("a", "b")
    await sentinel.says(b"slaves=1", "INFO", "sentinel")  # before that it could not promote anybody
    await until_equal(master, replica)
    master.kill()
    await until(lambda: bool(one.renewed), seconds=60)
    await once_up(one)
    assert one.log.epoch != before
    assert (await one.log.locate(given[1])).after == 2, "nothing was lost"
    assert [position.offset for position in await one.publish("c")] == [3]
    with pytest.raises(LogUnavailable, match="know no 'other'"):
        await begin(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")


@pytest.mark.parametrize("way", ["sentinel", "cluster"])
async def test_of_those_who_know_the_server_one_may_be_silent(make_server: MakeServer, begin: Begin, way: str):
    """As one whose machine has lost its power: it does not even refuse."""
    server = make_server("redis", *(("--cluster-enabled", "yes") if way == "cluster" else ()), port=True)
    await server.start()
    if way == "cluster":
        await server.ask("CLUSTER", "ADDSLOTS", *range(16384))
        await server.says(b"cluster_state:ok", "CLUSTER", "INFO")
    silent, knows = make_server("redis", port=True), server if way == "cluster" else make_server("redis", port=True)
    for each in {silent, knows} - {server}:
        configuration = each.folder / "sentinel.conf"
        configuration.write_text(f"sentinel monitor main 127.0.0.1 {server.port} 1\n")
        await each.start(configuration=configuration)
    rest = "/main" if way == "sentinel" else ""
    one = await begin(f"redis+{way}://127.0.0.1:{silent.port},127.0.0.1:{knows.port}{rest}")
    await one.publish("a")
    silent.pause()
    await server.ask("CLIENT", "KILL", "TYPE", "normal")
    await once_up(one)
    async with asyncio.timeout(20):
        while True:
            try:
                await one.publish("b")
                break
            except LogUnavailable:
                pass
    await until(partial(all_heard, one, 2))


async def test_over_tls_the_server_has_to_be_known(make_server: MakeServer, begin: Begin, tmp_path: Path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    server = make_server("redis")
    await server.start()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "own.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(str(server.socket))

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while part := await source.read(65_536):
                    sink.write(part)
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    try:
        one = await begin(f"rediss://127.0.0.1:{port}?ca={tmp_path}/ca.pem")
        await one.publish("a")
        with pytest.raises(LogUnavailable):
            await begin(f"rediss://127.0.0.1:{port}")
        await one.log.aclose()
    finally:
        listening.close()
