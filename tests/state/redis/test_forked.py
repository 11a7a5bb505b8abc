"""Processes that were forked from one that had made a hub, as by gunicorn with `--preload`, are not taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.redis_server import servers

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio
import json
import os
import sys

from hub import Identity
from hub.hub import Hub
from hub.settings import Settings
from hub.state.choice import make_state

CHILDREN = 2
settings = Settings(log=sys.argv[1])
hub = Hub(settings, state=(state := make_state(settings, lambda: 2.0)), clock=lambda: 2.0)


async def child(number):
    await state.open()
    await hub.open()
    async with asyncio.timeout(30):
        while hub.peers.others < CHILDREN - 1:
            await asyncio.sleep(0.01)
        for each in range(3):
            await hub.revoke_user(f"{number} {each}")
        position = await hub.notifications.send_notification(number)
        revoked = [Identity(user=f"{n} {each}", issued=1.0) for n in range(CHILDREN) for each in range(3)]
        while not all(map(state.revoked, revoked)):
            await asyncio.sleep(0.01)
    names = [hub.peers.id, hub.log._sender._name, state._calls.writer, str(position)]
    os.write(1, json.dumps(names).encode() + b"\\n")
    await asyncio.to_thread(os.read, 0, 1)  # until all have come so far
    await hub.aclose()
    await state.aclose()


children = []
for number in range(CHILDREN):
    if not (pid := os.fork()):
        try:
            asyncio.run(child(number))
            os._exit(0)
        finally:
            os._exit(1)
    children.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


def test_each_of_them_has_a_name_of_its_own_and_what_one_revokes_all_know():
    with servers() as make:
        redis = make("redis")
        redis.start_now()
        command = [sys.executable, "-c", PROGRAM, redis.url]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    said = [json.loads(line) for line in lines]
    for names in zip(*said, strict=True):
        assert len(set(names)) == 2, said
        assert all(names)
