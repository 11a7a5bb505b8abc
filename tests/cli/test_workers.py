"""`hub serve --workers N`: the processes. Here each worker has a memory log of its own, so an epoch names a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hub.cli.supervisor import check_log
from hub.errors import InvalidSettings
from tests.cli.commands import Run
from tests.cli.supervised import PROGRAM, Supervised, runs
from tests.web.client import Client, StreamEnded

pytestmark = pytest.mark.slow

Workers = Callable[..., Awaitable[Supervised]]


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    started: list[Supervised] = []

    async def workers(*arguments: str, program: str = PROGRAM, count: int = 2) -> Supervised:
        hub = await Supervised.serve(tmp_path, "--workers", str(count), *arguments, program=program)
        started.append(hub)
        return hub

    yield workers
    for hub in started:
        await hub.aclose()


def epoch(stream: Client) -> str:
    """Return what names the worker that serves *stream*."""
    return stream.opened.id.partition("-")[0]


async def served(hub: Supervised, count: int) -> Counter[str]:
    """Return how many of *count* streams each worker serves."""
    found: Counter[str] = Counter()
    for _ in range(count):
        stream = await hub.site.subscribe()
        found[epoch(stream)] += 1
        await stream.aclose()
    return found


async def one_of_each(hub: Supervised) -> list[Client]:
    """Return a stream from each worker."""
    found: dict[str, Client] = {}
    async with asyncio.timeout(60):
        while len(found) < len(hub.workers):
            stream = await hub.site.subscribe()
            found.setdefault(epoch(stream), stream)
    return list(found.values())


# ---- what is refused ----


@pytest.mark.parametrize("log", ["memory://", "sqlite:///hub.db"])
async def test_a_log_that_workers_can_not_share_is_refused_with_the_reason(run: Run, log: str) -> None:
    process = await run("serve", "--port", "0", "--workers", "2", "--log", log)
    assert await process.end() == 2
    assert "need a log that all of them share" in process.err
    assert log.partition("://")[0] in process.err
    assert "redis+private://" in process.err
    assert process.out == ""
    with pytest.raises(InvalidSettings):
        check_log(log)


async def test_what_is_wrong_with_every_worker_is_told_once(tmp_path: Path) -> None:
    hub = None
    with pytest.raises(AssertionError, match="no_such_module") as told:
        hub = await Supervised.serve(tmp_path, "--workers", "3", "--listeners", "no_such_module")
    assert hub is None
    assert str(told.value).count("no_such_module") <= 2  # pytest shows the message twice
    assert "hub: worker 1: " in str(told.value)
    assert "Traceback" not in str(told.value)


# ---- sharing the sockets ----


async def test_all_workers_accept_from_one_address_and_name_themselves(workers: Workers) -> None:
    hub = await workers("--log-level", "debug", "--admin-port", "0", count=3)
    assert set(hub.workers) == {1, 2, 3}
    await one_of_each(hub)
    for number in hub.workers:
        assert f" INFO [worker {number}] hub: " in hub.err
        await hub.tells(f" DEBUG [worker {number}] hub.connection: open c_")
    first, second = hub.out.splitlines()
    assert first == f"hub: listening on {hub.url}"
    assert second.startswith("hub: administration on http://127.0.0.1:")
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    hub.check_tidy()


async def test_each_worker_gets_the_same_share_of_the_connections(workers: Workers) -> None:
    hub = await workers("--drain", "0", count=4)
    sockets = [hub.accepts_from(number) for number in hub.workers]
    assert [len(each) for each in sockets] == [1] * 4
    assert len(set.union(*sockets)) == 4
    shares = await served(hub, 400)
    assert len(shares) == 4
    assert min(shares.values()) > 40, shares  # 100 are expected, and 40 are seven standard deviations away
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    hub.check_tidy()


# ---- the end ----


async def test_sigterm_drains_all_of_them(workers: Workers) -> None:
    hub = await workers("--drain", "0.5")
    streams = await one_of_each(hub)
    hub.signal(signal.SIGTERM)
    for stream in streams:
        assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
        with pytest.raises(StreamEnded):
            await stream.event()
        assert stream.complete
    assert await hub.end() == 0
    hub.check_tidy()
    assert not any(runs(pid) for pid in hub.workers.values())
    with pytest.raises(ConnectionRefusedError):
        await hub.site.client()


async def test_a_process_manager_may_send_the_signal_to_all_of_them(workers: Workers) -> None:
    hub = await workers("--drain", "0.5")
    (stream, *_) = await one_of_each(hub)
    for pid in (hub.pid, *hub.workers.values()):
        os.kill(pid, signal.SIGTERM)
    assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
    assert await hub.end() == 0
    hub.check_tidy()


async def test_while_all_of_them_drain_those_who_come_are_told_so(workers: Workers) -> None:
    hub = await workers("--drain", "3600")
    hub.signal(signal.SIGTERM)
    while (await hub.site.ask("GET", "/readyz")).status != 503:
        pass
    for number in hub.workers:
        await hub.tells(f"[worker {number}] hub: draining 0 streams")
    answer = await hub.site.ask("GET", "/notifications/subscribe")
    assert answer.body.endswith(b'\nevent: hub.close\ndata: {"reason":"draining"}\n\n')
    assert (await hub.site.publish({"data": 1})).status == 503
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 128 + signal.SIGTERM
    await hub.all_ended()


async def test_ctrl_c_ends_workers_without_streams_at_once(workers: Workers) -> None:
    hub = await workers("--drain", "3600")
    hub.signal(signal.SIGINT)
    assert await hub.end() == 0
    hub.check_tidy()


async def test_workers_end_when_their_supervisor_is_killed(workers: Workers) -> None:
    hub = await workers("--drain", "0.5")
    (stream, *_) = await one_of_each(hub)
    hub.signal(signal.SIGKILL)
    assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
    await hub.all_ended()
    with socket.create_server(("127.0.0.1", hub.port)):  # the port is free for the next one
        pass


# ---- one that dies ----


async def test_a_worker_that_dies_is_started_again_and_the_others_go_on(workers: Workers) -> None:
    hub = await workers("--drain", "0")
    streams = await one_of_each(hub)
    before = hub.workers
    os.kill(before[1], signal.SIGKILL)
    await hub.restarted(3)
    assert hub.workers[2] == before[2]
    assert f"worker 1 (process {before[1]}) was killed by SIGKILL: it is started again\n" in hub.err
    fresh = await one_of_each(hub)
    common = {epoch(stream) for stream in streams} & {epoch(stream) for stream in fresh}
    assert len(common) == 1, "the worker that was not killed is the same one"
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


async def test_while_all_workers_are_dead_connections_wait(workers: Workers) -> None:
    hub = await workers("--drain", "0")
    for pid in hub.workers.values():
        os.kill(pid, signal.SIGKILL)
    await hub.all_ended()
    clients = [await hub.site.client() for _ in range(50)]
    for client in clients:
        await client.request("GET", "/healthz")
    for client in clients:
        assert await client.head() == 200


DYING = """
import os
import pathlib

from hub import on_event

if pathlib.Path("die").exists():
    os._exit(3)


class Listener:
    def __init__(self, notifications): ...

    @on_event("some.thing")
    async def hear(self, event): ...
"""


async def test_a_worker_that_goes_on_dying_is_started_after_growing_pauses(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    hub = await workers("--listeners", "dying", "--drain", "0")
    (tmp_path / "die").touch()
    pid = hub.workers[2]
    os.kill(pid, signal.SIGKILL)
    said = "worker 2 ended with status 3 before it listened: it is started again in"
    await hub.tells(f"worker 2 (process {pid}) was killed by SIGKILL: it is started again\n")
    for pause in ("0.1", "0.2", "0.4"):
        await hub.tells(f"{said} {pause} s\n")
    # Half of those who come now come to its socket, from which the other one accepts.
    for _ in range(20):
        assert (await hub.site.ask("GET", "/healthz")).status == 200
    both = hub.accepts_from(1)
    assert len(both) == 2
    (tmp_path / "die").unlink()
    await hub.restarted(3)
    await hub.has_sockets(1, both - hub.accepts_from(2))
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


# ---- one that hangs ----

# Sooner than in earnest, and late enough for a loaded machine.
IMPATIENT = f"""
import hub.cli.supervisor

hub.cli.supervisor.LEND_AFTER = 3
hub.cli.supervisor.KILL_AFTER = {{}}
{PROGRAM}
"""


async def asking(hub: Supervised, count: int) -> list[Client]:
    """Return clients that have sent a request, to whichever worker they came."""
    clients = [await hub.site.client() for _ in range(count)]
    for client in clients:
        await client.request("GET", "/healthz")
    return clients


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_while_a_worker_hangs_another_one_accepts_its_connections(workers: Workers, loop: str) -> None:
    hub = await workers("--drain", "0", "--loop", loop, program=IMPATIENT.format(3600))
    before, mine, other = hub.workers, hub.accepts_from(1), hub.accepts_from(2)
    os.kill(before[1], signal.SIGSTOP)
    clients = await asking(hub, 40)
    await hub.tells(f"worker 1 (process {before[1]}) has been silent for 3 s\n")
    await hub.has_sockets(2, mine | other)
    for client in clients:
        assert await client.head() == 200
    os.kill(before[1], signal.SIGCONT)
    await hub.has_sockets(2, other)
    await one_of_each(hub)
    assert hub.workers == before
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


async def test_workers_that_go_on_hanging_are_killed_and_the_next_ones_accept_what_waits(workers: Workers) -> None:
    hub = await workers("--drain", "0", program=IMPATIENT.format(6))
    before = hub.workers
    sockets = {number: hub.accepts_from(number) for number in before}
    for pid in before.values():
        os.kill(pid, signal.SIGSTOP)
    clients = await asking(hub, 40)
    for number, pid in before.items():
        await hub.tells(
            f"worker {number} (process {pid}) has been silent for 6 s, its event loop hangs: it is killed\n"
        )
        await hub.tells(f"worker {number} (process {pid}) was killed by SIGKILL: it is started again\n")
    for client in clients:
        assert await client.head() == 200
    await hub.restarted(4)
    for number, expected in sockets.items():
        await hub.has_sockets(number, expected)
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


# ---- replacing them ----


async def test_sighup_replaces_all_of_them_and_refuses_nobody(workers: Workers) -> None:
    hub = await workers("--drain", "0.5")
    before = hub.workers
    sockets = {number: hub.accepts_from(number) for number in before}
    streams = await one_of_each(hub)
    answers: list[int] = []
    replaced = asyncio.Event()

    async def ask_on_and_on() -> None:
        while not replaced.is_set():
            began = time.monotonic()
            try:
                answers.append((await hub.site.ask("GET", "/healthz")).status)
            except StreamEnded:  # who asks more slowly than a drain lasts is not waited for
                assert time.monotonic() - began > 0.5

    asking = [asyncio.create_task(ask_on_and_on()) for _ in range(4)]
    hub.signal(signal.SIGHUP)
    for stream in streams:
        assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
        with pytest.raises(StreamEnded):
            await stream.event()
        assert stream.complete
    await hub.tells("all workers were replaced")
    await hub.ended_are(before.values())
    replaced.set()
    await asyncio.gather(*asking)
    assert set(answers) == {200}
    assert not set(hub.workers.values()) & set(before.values())
    assert {number: hub.accepts_from(number) for number in hub.workers} == sockets
    assert len({epoch(stream) for stream in (*streams, *await one_of_each(hub))}) == 4
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    hub.check_tidy()


async def test_replaced_workers_read_the_settings_anew_and_wrong_ones_replace_nothing(
    workers: Workers, tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("events_api = false\n")
    hub = await workers("--config", "hub.toml", "--drain", "0")
    before = hub.workers
    assert (await hub.site.post("/events/some.thing", {})).status == 404
    file.write_text("events_api = 'perhaps'\n")
    hub.signal(signal.SIGHUP)
    await hub.tells("worker 1 ended with status 2 before it listened: the workers that were not replaced stay")
    assert "hub: worker 1: the settings are wrong" in hub.err
    assert hub.workers == before
    assert all(runs(pid) for pid in before.values())
    file.write_text("events_api = true\nport = 1\nlog = 'sqlite:///never.db'\n")
    hub.signal(signal.SIGHUP)
    await hub.tells("all workers were replaced")
    await hub.ended_are(before.values())
    assert (await hub.site.post("/events/some.thing", {})).status == 202
    assert not (tmp_path / "never.db").exists()
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


# ---- received sockets ----

# What systemd does: the descriptors are 3, 4, …, and the process that gets them is the one that is named.
SYSTEMD = """
import os
import sys

names, *arguments = sys.argv[1:]
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(names.count(":") + 1), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, *arguments])
"""


async def started_with(folder: Path, sockets: list[socket.socket], names: str, *arguments: str) -> Supervised:
    """Start a hub with *sockets*, as systemd does."""
    (folder / "systemd.py").write_text(SYSTEMD)
    (folder / "supervised.py").write_text(PROGRAM)
    return await Supervised.start(
        *("serve", "--port", "1", "--drain", "0", *arguments),
        program=(str(folder / "systemd.py"), names, str(folder / "supervised.py")),
        cwd=folder,
        descriptors=[sock.fileno() for sock in sockets],
    )


@pytest.mark.parametrize("count", ["1", "2"])
async def test_the_sockets_may_be_those_that_the_process_was_started_with(tmp_path: Path, count: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as admin:
        hub = await started_with(tmp_path, [listener, admin], "hub:admin", "--workers", count)
        try:
            await hub.listening()
            assert hub.port == listener.getsockname()[1]
            await hub.prints(f"hub: administration on http://127.0.0.1:{admin.getsockname()[1]}\n")
            assert (await hub.site.ask("GET", "/healthz")).status == 200
            assert (await hub.site.ask("GET", "/notifications/stats")).status == 404
            hub.signal(signal.SIGTERM)
            assert await hub.end() == 0
            hub.check_tidy()
            client = await hub.site.client()  # whoever opened it still has it, and starts the next process
            await client.aclose()
        finally:
            await hub.aclose()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("count", ["1", "2"])
async def test_a_received_socket_may_be_a_unix_socket(tmp_path: Path, count: str, loop: str) -> None:
    path = tmp_path / "hub.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        hub = await started_with(tmp_path, [listener], "hub", "--workers", count, "--loop", loop)
        try:
            await hub.listening_on(f"unix:{path}")
            client = await Client.connect(str(path))
            await client.request("GET", "/notifications/subscribe")
            assert await client.head() == 200
            await client.next("hub.open")
            hub.signal(signal.SIGTERM)
            await client.next("hub.close")
            await client.aclose()
            assert await hub.end() == 0
            hub.check_tidy()
            assert path.exists(), "it belongs to whoever opened it"
        finally:
            await hub.aclose()


async def test_a_received_socket_beyond_loopback_is_refused_as_a_host_is(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        hub = await started_with(tmp_path, [listener], "hub")
        try:
            assert await hub.end() == 2
            assert "'0.0.0.0': can be reached from other machines" in hub.err
        finally:
            await hub.aclose()
