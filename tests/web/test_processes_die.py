"""Processes of one hub that are killed or stopped for real: what they held is gone, and comes back with them."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.redis_server import RedisServer, servers
from tests.web.chat import PATH
from tests.web.process import ServeProcess
from tests.web.test_rights import SECRET, last_word, token

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis")
        one.start_now()
        yield one


@pytest.fixture
async def processes(redis: RedisServer) -> AsyncIterator[list[ServeProcess]]:
    environ = {
        "HUB_LOG": redis.url,
        "HUB_REDIS_PREFIX": secrets.token_hex(4),
        "HUB_JWT_SECRET": SECRET,
        "HUB_AI_PROVIDER": "simulated",
    }
    made = [await ServeProcess.start("serve", "--port", "0", environ=environ) for _ in range(2)]
    try:
        yield [await each.listening() for each in made]
    finally:
        for each in made:
            await each.aclose()


def bearer(user: str, **rights: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user, hub={'subscribe': ['orders'], 'presence': True, **rights})}"}


async def users(process: ServeProcess) -> list[str]:
    answer = await process.site.ask("GET", "/notifications/presence?topic=orders", headers=bearer("eve"))
    return [each["id"] for each in answer.json()["users"]]


async def until_users(process: ServeProcess, wanted: list[str]) -> None:
    """Wait until these users are there, as far as *process* knows; a lease ends within 15 seconds."""
    async with asyncio.timeout(60):
        while await users(process) != wanted:  # noqa: ASYNC110 - what another process says
            await asyncio.sleep(0.2)


async def test_what_a_killed_process_held_is_gone_and_a_revocation_was_not_its_own(
    processes: list[ServeProcess],
) -> None:
    dying, other = processes
    await dying.site.subscribe("orders", headers=bearer("ann"))
    his = bearer("bob")
    bob = await other.site.subscribe("orders", headers=his)
    await until_users(other, ["ann", "bob"])
    begun = await dying.site.post(f"{PATH}/init", {"message": "tell me much"}, **bearer("ann"))
    assert begun.status == 201
    viewer = await other.site.client()
    await viewer.request("GET", f"{PATH}/{begun.json()['sessionId']}", headers=bearer("ann"))
    assert await viewer.head() == 200
    await viewer.next("start")
    admin = bearer("root", admin=True)
    answer = await dying.site.ask("DELETE", "/notifications/users/bob/connections", headers=admin)
    assert answer.status == 204
    dying.signal(signal.SIGKILL)
    assert await last_word(bob) == "revoked"
    await until_users(other, [])
    ending = ""
    async with asyncio.timeout(60):
        while ending not in {"failed", "done"}:
            ending = (await viewer.event()).type
    stats = (await other.site.ask("GET", "/notifications/stats", headers=admin)).json()
    assert stats["processes"] == 1
    refused = await other.site.ask("GET", "/notifications/subscribe?topic=orders", headers=his)
    assert refused.status == 401


async def test_a_process_that_was_stopped_beyond_its_lease_is_there_again_when_it_goes_on(
    processes: list[ServeProcess],
) -> None:
    stopped, other = processes
    ann = await stopped.site.subscribe("orders", headers=bearer("ann"))
    await until_users(other, ["ann"])
    begun = await stopped.site.post(f"{PATH}/init", {"message": "tell me much"}, **bearer("ann"))
    answer_of = f"{PATH}/{begun.json()['sessionId']}"
    viewer = await other.site.client()
    await viewer.request("GET", answer_of, headers=bearer("ann"))
    assert await viewer.head() == 200
    await viewer.next("start")
    stopped.signal(signal.SIGSTOP)
    try:
        await until_users(other, [])
        while (event := await viewer.event()).type == "message":
            pass
        assert (event.type, event.json()["reason"]) == ("failed", "producer_lost")
        for number in range(3):
            answer = await other.site.post(
                "/notifications/publish", {"topic": "orders", "data": f"{number}"}, **bearer("eve", publish=["orders"])
            )
            assert answer.status == 201
    finally:
        stopped.signal(signal.SIGCONT)
    assert [(await ann.next("message")).data for _ in range(3)] == ["0", "1", "2"]
    await until_users(other, ["ann"])
    await until_users(stopped, ["ann"])
    # It added nothing to an answer that others have called lost.
    as_json = bearer("ann") | {"Accept": "application/json"}
    said = [(await each.site.ask("GET", answer_of, headers=as_json)).json() for each in processes]
    assert [(each["phase"], each["reason"]) for each in said] == [("failed", "producer_lost")] * 2
    assert said[0]["text"] == said[1]["text"]
