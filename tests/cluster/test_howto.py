"""Three machines, as the page sets them up: a hub, a Redis and a Sentinel on each, and nginx in front of all."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest

from tests.cluster.cluster import Cluster, running
from tests.cluster.traffic import Load, Traffic
from tests.proxy import Proxy, documented
from tests.redis_server import servers
from tests.snippets import snippet

pytestmark = pytest.mark.slow

PAGE = "howto/scale-out.md"
ONE_HUB = "    upstream hub {\n        server 127.0.0.1:8080;\n        keepalive 16;\n    }\n"


def lines(name: str, separator: str) -> list[list[str]]:
    """Return the words of each line of the file with this name on the page."""
    return [line.split(separator, 1) for line in snippet(PAGE, name).splitlines()[1:]]


async def test_a_machine_may_fail_and_nobody_loses_anything(tmp_path: Path):
    configuration = dict(lines("redis.conf", " "))
    with servers() as make:
        options = [word for name, value in configuration.items() for word in (f"--{name}", value)]
        machines = [make("redis", *options, port=True) for _ in range(3)]
        for each in machines:
            each.password = configuration["requirepass"]
            await each.start(*(() if each is machines[0] else ("--replicaof", f"127.0.0.1 {machines[0].port}")))
        for each in machines[1:]:
            await each.caught_up()
        sentinels = [make("redis", port=True) for _ in machines]
        for each in sentinels:
            file = each.folder / "sentinel.conf"
            file.write_text(snippet(PAGE, "sentinel.conf").replace("10.0.0.1 6379", f"127.0.0.1 {machines[0].port}"))
            await each.start(configuration=file)
        for each in sentinels:
            await each.says(b"slaves=2,sentinels=3", "INFO", "sentinel")

        environ = dict(lines("hub.env", "="))
        log = environ.pop("HUB_LOG")
        for number, each in enumerate(sentinels, 1):
            log = log.replace(f"10.0.0.{number}:26379", f"127.0.0.1:{each.port}")
        assert "10.0.0" not in log
        for name in ("HUB_HOST", "HUB_PORT"):  # it listens on a port of loopback here
            del environ[name]
        cluster = Cluster([log] * 3, environ={**environ, "HUB_TRUSTED_PROXIES": "127.0.0.1"})
        cluster.servers = machines
        upstream = snippet(PAGE, "upstream").replace("10.0.0.1:8080", "127.0.0.1:8080")  # that one `documented` knows
        for number, port in enumerate(cluster.ports[1:], 2):
            upstream = upstream.replace(f"10.0.0.{number}:8080", f"127.0.0.1:{port}")
        assert "10.0.0" not in upstream
        changes = {ONE_HUB: upstream}
        async with running(cluster), documented("nginx", tmp_path, cluster.ports[0], changes=changes) as nginx:
            await check(cluster, nginx, environ["HUB_JWT_SECRET"])


async def check(cluster: Cluster, nginx: Proxy, secret: str) -> None:
    """Let the machine of the master fail while many publish and read through nginx, and come back."""
    token = jwt.encode({"sub": "shop", "exp": time.time() + 3600, "hub": {"publish": ["news/**"]}}, secret, "HS256")
    headers = {"Authorization": f"Bearer {token}"}
    load = Load(publishers=4, rate=50.0, readers=12)
    traffic = Traffic(lambda: [nginx.port], 1, load, tls=nginx.tls, headers=headers)
    try:
        async with traffic.going_on("confirmed"):
            await traffic.confirm(50)
            await cluster.kill_hub(0)
            await traffic.confirm(20)
            cluster.redis.kill()
            await cluster.promoted()
            await traffic.confirm(20)
            await cluster.start_hub(0)
            await cluster.redis.start()
            await cluster.redis.caught_up()
            await cluster.ready()
            await traffic.confirm(50)
    except (AssertionError, TimeoutError) as error:
        cluster.note(error)
        raise
    assert traffic.outcome is not None
    assert not traffic.outcome.vanished
    assert traffic.connections > load.readers, "the streams of the hub that died went on elsewhere"
