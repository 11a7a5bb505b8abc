"""`GET /notifications/check`: what a hub knows of how it is run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.web.conftest import Serve
from tests.web.server import Server

PATH = "/notifications/check"


async def facts(server: Server, **headers: str) -> dict[str, Any]:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await server.ask("GET", PATH, headers=said)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_limits_and_the_log_are_those_that_are_set(serve: Serve, tmp_path: Path) -> None:
    server = await serve(log=f"sqlite:///{tmp_path}/hub.db", max_connections=100, heartbeat=7, drain=0)
    before = time.time()
    found = await facts(server)
    assert before - 0.001 <= found["time"] <= time.time() + 0.001
    assert found["limits"]["streams"] == 100
    assert found["limits"]["body"] == 1024 * 1024
    assert found["log"]["kind"] == "sqlite"
    assert found["log"]["answers"] is True
    assert found["access"] == {"known": False, "revocations": None}
    assert found["timeouts"]["heartbeat"] == 7
    assert found["streams"] == 0
    await server.subscribe("a")
    assert (await facts(server))["streams"] == 1


async def test_how_the_request_came_is_told_as_the_hub_believes_it(serve: Serve) -> None:
    said = {"X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "https", "X_Forwarded_Prefix": "/live"}
    trusting = await serve(trusted_proxies=("127.0.0.1",))
    assert (await facts(trusting, **said))["request"] == {
        "peer": "127.0.0.1",
        "client": "192.0.2.7",
        "trusted": True,
        "forwarded": True,
        "secure": True,
        "prefix": "/live",
    }
    alone = (await facts(await serve(root_path="/x"), **said))["request"]
    assert alone["forwarded"]
    assert not alone["trusted"]
    assert not alone["secure"]
    assert (alone["client"], alone["prefix"]) == ("127.0.0.1", "/x")
