"""What may break while several hubs serve, and what is promised then."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import NamedTuple

from tests.cluster.cluster import Cluster, OnNetwork, of_workers, on_network, on_one, on_sentinels
from tests.cluster.traffic import Load, Outcome, Promise, Traffic

Break = Callable[[Cluster, Traffic, random.Random], Awaitable[None]]


class Fault(NamedTuple):
    """Something that breaks.

    Attributes:
        cluster: what runs, on servers of a kind.
        happens: what is done to it under load; in the end all is there again.
        promise: what holds all the same.
    """

    cluster: Callable[[str], AbstractAsyncContextManager[Cluster]]
    happens: Break
    promise: Promise = "everything"


# ---- one server ----


async def redis_killed(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """Redis dies twice, and comes back with its file."""
    for away in (0.0, chance.uniform(0.5, 1.5)):
        await traffic.confirm(chance.randint(20, 100))
        cluster.redis.kill()
        await asyncio.sleep(away)
        await cluster.redis.start()
        await cluster.ready()


async def redis_paused(cluster: Cluster, traffic: Traffic, chance: random.Random, seconds: float = 5.0) -> None:
    """Redis holds its connections and answers nothing: publishes are refused, streams stay open."""
    await traffic.confirm(20)
    connections, refused = traffic.connections, traffic.refused
    cluster.redis.pause()
    try:
        await traffic.holds(lambda: traffic.refused > refused)
        await asyncio.sleep(seconds)
        assert traffic.connections == connections, "no stream ends because Redis is away"
        assert await cluster.readiness() == [503] * len(cluster.ports)
    finally:
        cluster.redis.resume()
    await cluster.ready()
    await traffic.confirm(20)
    assert traffic.connections == connections, "nor because it is back"


async def connections_reset(cluster: Cluster, traffic: Traffic, chance: random.Random, times: int = 100) -> None:
    """All connections to Redis are reset, again and again; answers and calls get lost with theirs."""
    for _ in range(times):
        proxy = chance.choice(cluster.proxies)
        match chance.randrange(3):
            case 0:
                proxy.mute += 1
            case 1:
                proxy.deaf += 1
            case _:
                proxy.reset()
        await traffic.confirm(chance.randint(0, 5))


async def network_cut(cluster: Cluster, traffic: Traffic, chance: random.Random, times: int = 2) -> None:
    """One hub reaches Redis no more for a while, and nothing tells it so."""
    for _ in range(times):
        proxy = chance.choice(cluster.proxies)
        await traffic.confirm(20)
        proxy.cut()
        await asyncio.sleep(chance.uniform(0.5, 4))
        proxy.mend()
        await cluster.ready()


async def network_of_one_cut(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """One hub reaches Redis no more, first for a while, then for longer than its lease; its clients reach it."""
    assert isinstance(cluster, OnNetwork)
    for seconds in (chance.uniform(1, 8), 17.0):
        await traffic.confirm(20)
        cluster.network.cut()
        await asyncio.sleep(seconds)
        assert 503 in await cluster.readiness() or seconds < 8
        cluster.network.mend()
        await cluster.ready()


async def hub_killed(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """A hub dies and is started again; then another one."""
    for number in chance.sample(range(len(cluster.ports)), 2):
        await traffic.confirm(chance.randint(10, 60))
        await cluster.kill_hub(number)
        await traffic.confirm(chance.randint(0, 30))
        await cluster.start_hub(number)


async def hub_paused(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """A hub stands still for a while, with all its connections."""
    number = chance.randrange(len(cluster.ports))
    await traffic.confirm(20)
    cluster.signal_hub(number, signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.5, 4))
    cluster.signal_hub(number, signal.SIGCONT)
    await cluster.ready()


async def everything_lost(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """Somebody throws away all that Redis has."""
    await traffic.confirm(50)
    await cluster.redis.ask("FLUSHALL")
    await cluster.ready()


# ---- a replica ----


async def promoted_by_hand(cluster: Cluster, traffic: Traffic, chance: random.Random, *, lost: bool) -> None:
    """The replica becomes the master; if *lost*, without what was written last."""
    master, replica = cluster.servers
    await traffic.confirm(50)
    if lost:
        await replica.cut_off()
        await traffic.confirm(20)
    master.kill()
    await replica.replicate(None)
    for proxy in cluster.proxies:
        proxy.server = replica.socket
        proxy.reset()
    cluster.servers.reverse()
    # Where a publish waits for a replica, there has to be one.
    await master.start()
    await master.replicate(replica)
    await cluster.ready()


async def promoted_by_sentinels(cluster: Cluster, traffic: Traffic, chance: random.Random, *, lost: bool) -> None:
    """The master dies, Sentinels promote a replica, and the old master comes back.

    If *lost*, the replicas lack the newest, and the old master is back before everybody knows of the new one.
    """
    master, *replicas = cluster.servers
    await traffic.confirm(50)
    if lost:
        for each in replicas:
            each.pause()
        await master.ask("CLIENT", "KILL", "TYPE", "replica")
        await traffic.confirm(20)
    master.kill()
    for each in replicas:
        each.resume()
    await cluster.promoted(followed=not lost)
    await master.start()
    await master.says(b"role:slave", "INFO", "replication")
    await cluster.ready()


async def master_paused(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """The master stands still until another one is promoted, and then goes on as if nothing had been."""
    await traffic.confirm(50)
    cluster.redis.pause()
    await cluster.promoted()
    await traffic.confirm(chance.randint(0, 50))
    cluster.redis.resume()
    await cluster.redis.says(b"role:slave", "INFO", "replication")
    await cluster.ready()


# ---- workers ----


async def workers_replaced(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """SIGHUP, twice."""
    for _ in range(2):
        await traffic.confirm(20)
        await cluster.replace_workers()


CONFIRMING = ("--redis-wait", "1")

NETWORK = "network of one hub cut"
"""This one needs a namespace, which root may make."""

FAULTS: dict[str, Fault] = {
    "redis killed": Fault(on_one, redis_killed),
    "redis paused": Fault(on_one, redis_paused),
    "connections reset": Fault(on_one, connections_reset),
    "network cut": Fault(on_one, network_cut),
    NETWORK: Fault(on_network, network_of_one_cut),
    "hub killed": Fault(on_one, hub_killed),
    "hub paused": Fault(on_one, hub_paused),
    "everything lost": Fault(on_one, everything_lost, "told"),
    "workers replaced": Fault(of_workers, workers_replaced),
    "promoted by hand": Fault(
        partial(on_one, options=CONFIRMING, replica=True), partial(promoted_by_hand, lost=False), "confirmed"
    ),
    "promoted by hand, writes lost": Fault(partial(on_one, replica=True), partial(promoted_by_hand, lost=True), "told"),
    "promoted by Sentinels": Fault(
        partial(on_sentinels, options=CONFIRMING), partial(promoted_by_sentinels, lost=False), "confirmed"
    ),
    "promoted by Sentinels, writes lost": Fault(on_sentinels, partial(promoted_by_sentinels, lost=True), "told"),
    "master paused": Fault(on_sentinels, master_paused, "told"),
}

AT_RANDOM: tuple[Break, ...] = (
    redis_killed,
    partial(redis_paused, seconds=1.0),
    partial(connections_reset, times=20),
    network_cut,
    hub_killed,
    hub_paused,
)


async def random_faults(cluster: Cluster, traffic: Traffic, chance: random.Random) -> None:
    """Three of what loses nothing, one after the other."""
    for happens in chance.sample(AT_RANDOM, 3):
        await happens(cluster, traffic, chance)


RANDOM = Fault(on_one, random_faults)


async def suffer(fault: Fault, seed: int, load: Load, kind: str = "redis") -> Outcome:
    """Let *fault* happen under *load*, on servers of this *kind*; return how it went.

    Raises:
        AssertionError: a promise was broken.
        TimeoutError: something stands still.
    """
    async with fault.cluster(kind) as cluster:
        traffic = Traffic(cluster.now, seed, load)
        try:
            async with traffic.going_on(fault.promise):
                await traffic.confirm(20)
                await fault.happens(cluster, traffic, random.Random(seed))
                await traffic.confirm(50)
        except (AssertionError, TimeoutError) as error:
            cluster.note(error)
            raise
    assert traffic.outcome is not None
    return traffic.outcome
