"""The end of `hub serve`: signals, the drain window, and what hangs."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.cli.commands import Serving
from tests.web.client import Client, StreamEnded, until
from tests.web.process import Process, ServeProcess

pytestmark = pytest.mark.slow


# ---- signals ----


async def check_sent_away(hub: ServeProcess) -> None:
    """Check what a draining hub tells those who come."""
    ready = await hub.site.ask("GET", "/readyz")
    assert ready.status == 503
    published = await hub.site.publish({"data": 1})
    assert published.status == 503
    assert int(published.headers["Retry-After"]) >= 1
    answer = await hub.site.ask("GET", "/notifications/subscribe")
    assert answer.status == 200
    assert answer.body.endswith(b'\nevent: hub.close\ndata: {"reason":"draining"}\n\n')
    assert 1_000 <= int(answer.body.split()[1]) <= 6_000
    assert (await hub.site.ask("GET", "/healthz")).status == 200


async def publish_until_refused(hub: ServeProcess) -> list[int]:
    """Publish on one connection as fast as the hub answers; return the statuses."""
    client = await hub.site.client()
    statuses = [201]
    while statuses[-1] == 201:
        body = json.dumps({"topic": "load", "data": len(statuses)}).encode()
        await client.request("POST", "/notifications/publish", headers={"Content-Type": "application/json"}, body=body)
        statuses.append(await client.head())
        await client.body()
    return statuses


async def read_to_the_end(client: Client) -> None:
    """Read a stream under load up to its end, which has to be a good one."""
    expected = 1
    while (event := await client.event()).type == "message":
        assert event.json() == expected
        expected += 1
    assert event.type == "hub.close"
    assert event.json() == {"reason": "shutdown"}
    with pytest.raises(StreamEnded):
        await client.event()
    assert client.complete


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sigterm_under_load_ends_everything_well(serving: Serving, loop: str) -> None:
    hub = await serving("--drain", "1", "--loop", loop, "--access-log", "--log-level", "debug")
    streams = [await hub.site.subscribe("load", query={"lastEventId": "", "ticket": "secret"}) for _ in range(40)]
    publishers = [asyncio.create_task(publish_until_refused(hub))]
    reading = [asyncio.create_task(read_to_the_end(stream)) for stream in streams]
    await until(lambda: all(stream.decoder.blocks > 20 for stream in streams))
    hub.signal(signal.SIGTERM)
    while (await hub.site.ask("GET", "/readyz")).status != 503:
        pass
    await check_sent_away(hub)
    assert not all(task.done() for task in reading), "the window is over before it has begun"
    await asyncio.gather(*reading)
    for statuses in await asyncio.gather(*publishers):
        assert statuses[-1] == 503
        assert len(statuses) > 20
    assert await hub.end() == 0
    hub.check_tidy()
    assert hub.err.count("open c_") == hub.err.count("closed c_") == 40
    assert "secret" not in hub.err


async def test_sigint_is_as_good_as_sigterm(serving: Serving) -> None:
    hub = await serving("--drain", "0")
    stream = await hub.site.subscribe()
    hub.signal(signal.SIGINT)
    await stream.next("hub.close")
    assert await hub.end() == 0
    hub.check_tidy()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(serving: Serving, number: signal.Signals) -> None:
    hub = await serving("--drain", "3600")
    stream = await hub.site.subscribe()
    hub.signal(signal.SIGTERM)
    while (await hub.site.ask("GET", "/readyz")).status != 503:
        pass
    hub.signal(number)
    assert await hub.end() == 128 + number
    hub.check_tidy()
    await stream.gone()


async def test_ctrl_c_ends_a_hub_that_nobody_listens_to_at_once(serving: Serving) -> None:
    hub = await serving("--drain", "3600")
    stream = await hub.site.subscribe()
    await stream.aclose()
    while (await hub.site.ask("GET", "/notifications/stats")).json()["connections"]:
        pass
    hub.signal(signal.SIGINT)
    assert await hub.end() == 0
    hub.check_tidy()


@pytest.mark.parametrize("path", ["/notifications/subscribe", "/sse/use-sse-decorator", "/ai/chat/stream"])
async def test_ctrl_c_leaves_every_kind_of_stream_its_window(serving: Serving, path: str) -> None:
    hub = await serving("--drain", "3600", "--demo", "--ai-simulated-tokens", "1000000")
    client = await hub.site.client()
    if path.startswith("/ai"):
        body = json.dumps({"messages": [{"role": "user", "content": "?"}]}).encode()
        await client.request("POST", path, headers={"Content-Type": "application/json"}, body=body)
    else:
        await client.request("GET", path)
    assert await client.head() in {200, 201}
    hub.signal(signal.SIGINT)
    while (await hub.site.ask("GET", "/readyz")).status != 503:
        pass
    await check_sent_away(hub)


async def test_sigterm_keeps_the_door_open_although_nobody_listens(serving: Serving) -> None:
    """What sent it may stand behind a balancer that has not seen yet that this hub is about to end."""
    hub = await serving("--drain", "3600")
    hub.signal(signal.SIGTERM)
    while (await hub.site.ask("GET", "/readyz")).status != 503:
        pass
    await check_sent_away(hub)


async def test_readers_that_take_nothing_do_not_hold_the_end_up(serving: Serving) -> None:
    hub = await serving("--drain", "0.2", "--slow", "drop_oldest")
    streams = [await hub.site.subscribe("big", receive_buffer=8_192) for _ in range(3)]
    for stream in streams:
        stream.stop_reading()
    while not (await hub.site.ask("GET", "/notifications/stats")).json()["dropped"]:
        await hub.site.publish([{"topic": "big", "data": "x" * 100_000} for _ in range(8)])
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    hub.check_tidy()


async def test_a_stream_of_its_own_demo_ends_well_too(serving: Serving) -> None:
    hub = await serving("--demo", "--drain", "0.1")
    client = await hub.site.client()
    await client.request("GET", "/sse/use-sse-decorator")
    await client.head()
    await client.next()
    hub.signal(signal.SIGTERM)
    events = await client.rest()
    assert events[-1].type == "hub.close"
    assert client.complete
    assert await hub.end() == 0
    hub.check_tidy()


# ---- the window ----


async def test_the_listener_stays_open_until_every_stream_has_had_its_end(serving: Serving) -> None:
    hub = await serving("--drain", "1")
    streams = [await hub.site.subscribe() for _ in range(40)]
    accepted = [(await hub.site.publish({"data": number})).json()["id"] for number in range(20)]
    hub.signal(signal.SIGTERM)

    async def follow(stream: Client) -> None:
        *events, closing = await stream.rest()
        assert [event.id for event in events] == accepted
        assert (closing.type, closing.json()) == ("hub.close", {"reason": "shutdown"})
        assert stream.decoder.retry is not None
        assert 1_000 <= stream.decoder.retry <= 6_000
        assert stream.complete

    following = {asyncio.create_task(follow(stream)) for stream in streams}
    ended: set[asyncio.Task[None]] = set()
    while following:
        try:
            await hub.site.ask("GET", "/readyz")
        except (ConnectionError, StreamEnded):
            # The window is over: every stream has had its end, which by now is only to be read.
            await turns_of_the_loop(100)
            assert all(task.done() for task in following)
        done, following = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
        ended |= done
    await asyncio.gather(*ended)
    assert await hub.end() == 0
    hub.check_tidy()
    assert hub.out.count("\n") == 1
    with pytest.raises(ConnectionRefusedError):
        await hub.site.client()


async def turns_of_the_loop(count: int) -> None:
    """Let everything happen that waits for nothing from outside."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_while_it_drains_the_refusals_are_problems(serving: Serving) -> None:
    hub = await serving("--drain", "600")
    await hub.site.subscribe()
    hub.signal(signal.SIGTERM)
    while (unready := await hub.site.ask("GET", "/readyz")).status == 200:
        pass
    for answer in (unready, await hub.site.publish({"data": 1})):
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert {"type", "title", "status", "detail"} <= answer.json().keys()
        assert answer.headers["Retry-After"] == "2"


# ---- what hangs ----


# What a process is to end with: each part hangs if it is named in HANGS, and in the way that HOW says.
HANGING = """
import asyncio
import os
import time

import hub.cleanup
import hub.cli.serve
from hub import on_event, sse
from hub.demo import routes

hub.cleanup.CLEANUP_SECONDS = hub.cli.serve.CLEANUP_SECONDS = hub.cleanup.LAST_SECONDS = 0.2
hub.cli.serve.ENDING_SECONDS = float(os.environ["ENDING"])


async def hang(part):
    while part in os.environ["HANGS"]:
        try:
            if os.environ["HOW"] == "blocks":
                print("blocks", flush=True)
                while True:  # one long sleep would miss a signal that comes right before it
                    time.sleep(0.05)
            if os.environ["HOW"] == "in a thread":
                await asyncio.to_thread(time.sleep, 3600)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if os.environ["HOW"] != "deaf":
                raise


@sse
async def stream(request):
    try:
        yield "begun"
        await asyncio.Event().wait()
    finally:
        await hang("stream")


routes.ten_messages = stream


class Listener:
    def __init__(self, notifications):
        self.notifications = notifications

    @on_event("order.created")
    async def hear(self, event):
        self.notifications.send_notification("begun", topic="begun")
        try:
            await asyncio.Event().wait()
        finally:
            await hang("listener")


class Provider:
    async def stream(self, prompt):
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            await hang("answer")

    async def aclose(self):
        await hang("provider")
"""


Hanging = Callable[..., Awaitable[ServeProcess]]


@pytest.fixture
def hanging(processes: list[Process], tmp_path: Path) -> Hanging:
    async def hanging(*hangs: str, how: str, loop: str, ending: float = 600) -> ServeProcess:
        """Return a process that was busy with a stream, an event and an answer when it got a SIGTERM."""
        (tmp_path / "hanging.py").write_text(HANGING)
        hub = await ServeProcess.start(
            *("serve", "--port", "0", "--demo", "--drain", "0", "--finish", "0", "--loop", loop),
            *("--listeners", "hanging", "--ai-provider", "hanging:Provider"),
            environ={"HANGS": ",".join(hangs), "HOW": how, "ENDING": str(ending)},
            cwd=tmp_path,
        )
        processes.append(hub)
        await hub.listening()
        heard = await hub.site.subscribe("begun")
        await hub.site.post("/orders", {"amount": 1})
        await heard.next()
        for path in ("/sse/use-get-decorator", "/ai/chat/stream?message=hi"):
            client = await hub.site.client()
            await client.request("GET", path)
            assert await client.head() == 200
            while b"begun" not in client.received:
                assert await client.more()
        hub.signal(signal.SIGTERM)
        return hub

    return hanging


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_what_can_be_cancelled_does_not_hold_the_end_up(hanging: Hanging, loop: str) -> None:
    hub = await hanging("stream", "listener", "answer", "provider", how="hangs", loop=loop)
    assert await hub.end() == 0
    for name in ("hanging.stream", "handler hanging.Listener.hear", "hanging.Provider.aclose"):
        assert f"{name} still cleans up after 0.2 s: it is cancelled" in hub.err
    assert "the provider of generation" in hub.err
    assert "left behind" not in hub.err
    assert hub.err.splitlines()[-1].endswith("hub: stopped")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_what_does_not_let_itself_be_cancelled_is_left_behind(hanging: Hanging, loop: str) -> None:
    hub = await hanging("stream", "listener", "answer", "provider", how="deaf", loop=loop)
    assert await hub.end() == 0
    for name in ("hanging.stream", "handler hanging.Listener.hear", "hanging.Provider.aclose"):
        assert f"{name} does not end: it is left behind" in hub.err
    assert hub.err.count("does not end: it is left behind") == 4
    assert "hub: stopped" in hub.err
    assert hub.err.splitlines()[-1].endswith("hub: what was left behind did not end: the process ends without it")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_thread_that_never_ends_does_not_hold_the_end_up(hanging: Hanging, loop: str) -> None:
    hub = await hanging("listener", how="in a thread", loop=loop)
    assert await hub.end() == 0
    assert hub.err.splitlines()[-1].endswith("hub: what was left behind did not end: the process ends without it")


# It waits for every timer that is left: one of them would end it.
CALLER = """
import atexit
import sys
import threading

import hub.cli.serve
from hub.cli.entry import main

hub.cli.serve.CLEANUP_SECONDS = 0.2
atexit.register(print, "cleaned up", flush=True)
status = main(sys.argv[1:])
for thread in threading.enumerate():
    if isinstance(thread, threading.Timer):
        thread.join()
print("goes on after", status, flush=True)
sys.exit(7)
"""


async def test_a_program_that_served_a_hub_goes_on_and_ends_as_it_wants(
    processes: list[Process], tmp_path: Path
) -> None:
    program = tmp_path / "caller.py"
    program.write_text(CALLER)
    hub = await ServeProcess.start("serve", "--port", "0", "--drain", "0", program=(str(program),))
    processes.append(hub)
    await hub.listening()
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 7
    assert hub.out.splitlines()[1:] == ["goes on after 0", "cleaned up"]
    assert "left behind" not in hub.err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_who_blocks_the_event_loop_is_shown_and_the_process_ends(hanging: Hanging, loop: str) -> None:
    hub = await hanging("listener", how="blocks", loop=loop, ending=1)
    assert await hub.end() == 1
    assert "hub: stopped" not in hub.err
    assert "in hang\n" in hub.err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_second_signal_ends_it_at_once_even_while_the_event_loop_is_blocked(
    hanging: Hanging, loop: str
) -> None:
    hub = await hanging("listener", how="blocks", loop=loop)
    await until(lambda: "blocks" in hub.out)
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 128 + signal.SIGTERM
