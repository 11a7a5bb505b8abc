"""How long things take, and what each process of a hub says of itself, as `/metrics` shows it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.redis_server import RedisServer, servers
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.server import Server

Samples = dict[tuple[str, tuple[str, ...]], float]


async def samples(server: Server) -> Samples:
    """Return what `/metrics` says, by name and values of the labels but `le`."""
    answer = await server.ask("GET", "/metrics")
    assert answer.status == 200
    found: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                key = sample.name, tuple(value for _, value in sorted(sample.labels.items()))
                assert key not in found
                found[key] = sample.value
    return found


async def count(server: Server, name: str, *labels: str) -> float:
    return (await samples(server)).get((f"{name}_count", labels), 0.0)


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve()


async def test_a_publish_is_counted_when_it_is_confirmed_and_each_flush_once_for_all_its_receivers(
    server: Server,
) -> None:
    clients = [await server.subscribe("orders") for _ in range(3)]
    await server.publish({"data": 1, "topic": "orders"})
    for client in clients:
        await client.event()
    assert await count(server, "hub_publish_confirmed_seconds") == 1
    assert await count(server, "hub_publish_written_seconds") == 1
    await server.publish({"data": 2, "topic": "nobody/reads/it"})
    assert await count(server, "hub_publish_confirmed_seconds") == 2
    assert await count(server, "hub_publish_written_seconds") == 1


async def test_a_list_is_one_publish(server: Server) -> None:
    await server.publish([{"data": number} for number in range(5)])
    assert await count(server, "hub_publish_confirmed_seconds") == 1


async def test_what_a_log_in_another_process_confirms_is_counted_when_it_does(serve: Serve, tmp_path: Path) -> None:
    server = await serve(log=f"sqlite:///{tmp_path / 'log.db'}")
    receipt = server.hub.notifications.send_notification(1)
    assert server.hub.metrics.publish_confirmed_seconds.figures()["count"] == 0
    await receipt
    assert await count(server, "hub_publish_confirmed_seconds") == 1
    found = await samples(server)
    assert 0 <= found["hub_log_answered_seconds_ago", ()] < 10


async def test_connects_replays_and_ends_are_counted_once_each(server: Server) -> None:
    for number in range(4):
        await server.publish({"data": number, "topic": "orders"})
    first = await server.subscribe("orders")
    assert await count(server, "hub_connect_seconds") == 1
    assert await count(server, "hub_replay_notifications") == 0
    back = await server.subscribe("orders", last_event_id="earliest")
    for _ in range(4):
        await back.event()
    await until(lambda: server.hub.metrics.replay_notifications.figures()["count"] == 1)
    found = await samples(server)
    assert found["hub_replay_notifications_sum", ()] == 4
    assert found["hub_connect_seconds_count", ()] == 2
    assert found["hub_stream_seconds_count", ()] == 0
    await first.aclose()
    await until(lambda: len(server.hub.connections) == 1)
    found = await samples(server)
    assert found["hub_stream_seconds_count", ()] == 1
    assert found["hub_streams_ended_total", ("client",)] == 1


async def test_requests_are_counted_by_method_route_and_status_and_streams_are_not(server: Server) -> None:
    await server.subscribe("orders")
    await server.publish({"data": 1})
    await server.publish({"data": 1, "topic": "a/*"})
    await server.ask("DELETE", "/notifications/publish")
    await server.ask("PUT", "/notifications/connections/some")
    requests = {
        labels: number for (name, labels), number in (await samples(server)).items()
        if name == "hub_http_request_seconds_count"
    }  # fmt: skip
    assert requests == {  # method, route, status
        ("POST", "/notifications/publish", "201"): 1,
        ("POST", "/notifications/publish", "400"): 1,
        ("other", "/notifications/publish", "405"): 1,
        ("other", "/notifications/connections/{id}", "405"): 1,
    }


async def test_the_loop_is_probed(server: Server) -> None:
    await until(lambda: server.hub.metrics.loop_lag_seconds.figures()["count"] > 0)
    assert await count(server, "hub_loop_lag_seconds") > 0


# ---- several processes ----


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis")
        one.start_now()
        yield one


async def test_figures_of_all_processes_are_added_up_and_each_has_its_own(serve: Serve, redis: RedisServer) -> None:
    settings: dict[str, Any] = {"log": redis.url, "redis_prefix": secrets.token_hex(4)}
    hubs = [await serve(**settings) for _ in range(3)]
    for number, each in enumerate(hubs):
        each.hub.name = "twin" if number else "single"
    await until(lambda: all(each.hub.peers.others == 2 for each in hubs))
    clients = [await each.subscribe("orders") for each in hubs]
    for each in hubs:
        await each.publish({"data": "x", "topic": "orders"})
        for client in clients:
            await client.event()
    await hubs[2].ask("GET", "/healthz")  # only this one has answered such a request
    found = await samples(hubs[0])
    assert found["hub_publish_confirmed_seconds_count", ()] == 3
    assert found["hub_publish_written_seconds_count", ()] == 9
    assert found["hub_http_request_seconds_count", ("GET", "/healthz", "200")] == 1
    workers = {labels[0]: number for (name, labels), number in found.items() if name == "hub_worker_streams"}
    assert workers == {"single": 1, **{f"twin-{each.hub.peers.id}": 1 for each in hubs[1:]}}
    delivered = [number for (name, _), number in found.items() if name == "hub_worker_delivered_total"]
    assert delivered == [3, 3, 3]
    memory = [number for (name, _), number in found.items() if name == "hub_worker_memory_bytes"]
    assert sum(memory) == found["hub_memory_bytes", ()] > 3 * 10**7
    assert 0 <= found["hub_log_answered_seconds_ago", ()] < 10
