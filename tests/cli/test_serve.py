"""`hub serve`, `hub publish` and `hub listen` as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import importlib.metadata
import json
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from hub.cli.entry import main
from tests.web.client import Client, StreamEnded, until
from tests.web.process import Process, ServeProcess

pytestmark = pytest.mark.slow


class Run(Protocol):
    """Starts `hub …`; it ends with the test."""

    async def __call__(
        self, *arguments: str, environ: dict[str, str] | None = None, stdin: str | None = None, cwd: Path | None = None
    ) -> Process: ...


class Serving(Protocol):
    """Starts `hub serve …` on a free port and returns when it listens."""

    async def __call__(self, *arguments: str, environ: dict[str, str] | None = None, port: int = 0) -> ServeProcess: ...


@pytest.fixture
async def processes() -> AsyncIterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        await process.aclose()


@pytest.fixture
def run(processes: list[Process], tmp_path: Path) -> Run:
    async def run(
        *arguments: str, environ: dict[str, str] | None = None, stdin: str | None = None, cwd: Path | None = None
    ) -> Process:
        process = await Process.start(*arguments, environ=environ, stdin=stdin, cwd=cwd or tmp_path)
        processes.append(process)
        return process

    return run


@pytest.fixture
def serving(processes: list[Process]) -> Serving:
    async def serving(*arguments: str, environ: dict[str, str] | None = None, port: int = 0) -> ServeProcess:
        process = await ServeProcess.start("serve", "--port", str(port), *arguments, environ=environ)
        processes.append(process)
        return await process.listening()

    return serving


# ---- the end ----


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
    hub = await serving("--drain", "1", "--loop", loop, "--access-log")
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


# ---- the beginning ----


async def test_wrong_settings_are_told_all_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text('drain = "long"\ncolour = "red"\n')
    process = await run(
        "serve",
        *("--config", "hub.toml", "--port", "99999", "--heartbeat", "0", "--slow", "sometimes"),
        environ={"HUB_BUFFER_BYTES": "1", "HUB_CORS_ORIGINS": "https://a.example/path"},
    )
    assert await process.end() == 2
    for name in ("port", "heartbeat", "slow", "drain", "colour", "buffer_bytes", "cors_origins"):
        assert name in process.err
    assert process.err.startswith("hub: ")
    assert "Traceback" not in process.err
    assert process.out == ""


async def test_a_variable_that_sets_nothing_is_a_warning_at_the_start(serving: Serving) -> None:
    hub = await serving(environ={"HUB_HEARBEAT": "9", "HUB_SERVICE_HOST": "10.0.0.1", "HUB_DRAIN": "0"})
    (warning,) = [line for line in hub.err.splitlines() if "WARNING" in line]
    assert warning.endswith("hub: HUB_HEARBEAT is set, but it is no setting of this hub; did you mean HUB_HEARTBEAT?")


async def test_the_port_of_a_kubernetes_service_stops_the_start_with_an_explanation(run: Run) -> None:
    process = await run("serve", environ={"HUB_PORT": "tcp://10.0.0.1:8080"})
    assert await process.end() == 2
    assert "Kubernetes" in process.err
    assert "enableServiceLinks" in process.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "nowhere.toml"],
        ["--listeners", "not-a-module"],
        ["--log", "ftp://somewhere"],
        ["--tls-key", "key.pem"],
        ["--tls-cert", "nowhere.pem"],
    ],
)
def test_any_wrong_setting_is_told_without_a_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments, "--port", "0", "--log-level", "error", "--loop", "asyncio"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("hub: ")
    assert "Traceback" not in said.err
    assert said.out == ""


async def test_a_listener_that_can_not_be_loaded_is_told_in_one_line(run: Run) -> None:
    process = await run("serve", "--port", "0", "--listeners", "no_such_module")
    assert await process.end() != 0
    assert "no_such_module" in process.err
    assert "Traceback" not in process.err


async def test_listening_beyond_loopback_is_refused_and_explained(run: Run) -> None:
    process = await run("serve", "--port", "0", "--host", "0.0.0.0")
    assert await process.end() == 2
    assert "0.0.0.0" in process.err
    assert "--insecure" in process.err
    assert "Traceback" not in process.err


@pytest.mark.parametrize("insist", [["--insecure"], []])
async def test_who_insists_may_listen_beyond_loopback(serving: Serving, insist: list[str]) -> None:
    environ = {} if insist else {"HUB_INSECURE": "1"}
    hub = await serving("--host", "0.0.0.0", *insist, environ=environ)
    assert hub.url == f"http://0.0.0.0:{hub.port}"
    assert (await hub.site.ask("GET", "/healthz")).status == 200


async def test_a_port_that_is_taken_is_told_in_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await run("serve", "--port", str(port), "--log-level", "error")
        assert await process.end() == 1
    assert process.err.count("\n") == 1
    assert str(port) in process.err
    assert process.out == ""


async def test_alone_it_is_a_hub_on_loopback_without_the_demo(serving: Serving) -> None:
    hub = await serving()
    assert hub.url == f"http://127.0.0.1:{hub.port}"
    for path in ("/", "/orders", "/sse/use-get-decorator", "/events/a"):
        answer = await hub.site.ask("GET", path)
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
    await hub.site.publish({"data": 1})
    assert "publish" not in hub.err, "no access log by default"


async def test_it_speaks_tls(serving: Serving, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    hub = await serving("--tls-cert", str(tmp_path / "server.pem"), "--drain", "0")
    assert hub.url.startswith("https://")
    hub.site.tls = ssl.create_default_context()
    authority.configure_trust(hub.site.tls)
    stream = await hub.site.subscribe()
    await hub.site.publish({"data": "encrypted"})
    assert (await stream.next()).data == "encrypted"
    hub.signal(signal.SIGTERM)
    await stream.next("hub.close")
    assert await hub.end() == 0
    hub.check_tidy()


@pytest.mark.parametrize("command", [[], ["serve"], ["publish"], ["listen"], ["load"]])
def test_help_is_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: hub")


def test_the_version_names_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    version = importlib.metadata.version("broadcast-hub")
    said = rf"hub {re.escape(version)} \(Python 3\.[0-9.]+\S*, aiohttp {re.escape(aiohttp.__version__)}\)\n"
    assert re.fullmatch(said, capsys.readouterr().out)


def test_the_help_says_in_what_a_setting_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    said = capsys.readouterr().out
    for option, unit in {
        "drain": "SECONDS",
        "retain-age": "SECONDS",
        "buffer-bytes": "BYTES",
        "retain-bytes": "BYTES",
        "retain-count": "N",
        "ai-simulated-rate": "PER_SECOND",
        "slow": "disconnect|drop_oldest|conflate",
        "tls-cert": "FILE",
    }.items():
        assert re.search(rf"--{option} (\S+)", said.partition("options:")[2])[1] == unit  # type: ignore[index]  # or it fails


async def test_no_command_is_called_wrongly(run: Run) -> None:
    process = await run()
    assert await process.end() == 2
    assert process.err.startswith("usage: hub")


# ---- the demo ----


async def test_the_classic_routes_answer_as_their_clients_expect(serving: Serving) -> None:
    hub = await serving("--demo", "--events-api", "--listeners", "listeners")
    notifications = await hub.site.subscribe()
    user = await hub.site.client()
    await user.request("GET", "/sse/7")
    assert await user.head() == 200
    assert (await user.next("hub.open")).json()["topics"] == ["user/7"]
    news = await hub.site.subscribe("news", "stock/AAPL", "stock/TSLA")

    order = await hub.site.post("/orders", {"amount": 99.5})
    assert (order.status, order.json()) == (201, {"id": 1, "amount": 99.5})
    assert (await notifications.next()).data == '{"message":"新订单 #1 已创建！","amount":99.5}'
    assert (await hub.site.post("/events/user.registered", {"id": 7, "name": "Ada"})).status == 202
    assert "Ada" in (await user.next("user.registered")).json()["message"]

    async def get_decorator() -> None:
        client = await hub.site.client()
        await client.request("GET", "/sse/use-get-decorator")
        assert await client.head() == 200
        assert [(await client.next()).data for _ in range(2)] == [
            '{"message":"收到第 0 条消息"}',
            '{"message":"收到第 1 条消息"}',
        ]

    async def test_route() -> None:
        client = await hub.site.client()
        await client.request("POST", "/sse/test", headers={"Content-Type": "application/json"}, body=b"{}")
        assert await client.head() == 200
        assert [event.data for event in await client.rest()] == [
            '{"content":"这是测试内容 ==>1"}',
            '{"content":"这是测试内容 ==>2"}',
            '{"content":"这是测试内容 ==>3"}',
            "[DONE]",
        ]
        assert client.complete

    async def ticker_and_market() -> None:
        heard = {(await news.event()).type for _ in range(6)}
        assert heard == {"news-flash", "stock.traded"}

    await asyncio.gather(get_decorator(), test_route(), ticker_and_market())
    page = await hub.site.ask("GET", "/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    hub.check_tidy()


# ---- the other commands ----


async def test_what_is_published_is_listened_to(serving: Serving, run: Run) -> None:
    hub = await serving()
    listening = await run("listen", "orders", "room/*", "--url", hub.url, "-n", "3", "--json")
    await until(lambda: "hub.open" in listening.err)
    one = await run("publish", '{"n": 1}', "-t", "orders", "--url", hub.url, "--type", "order")
    assert await one.end() == 0
    lines = await run("publish", "-t", "room/a", "--url", hub.url, stdin="line\nünïcode\n")
    assert await lines.end() == 0
    ids = (one.out + lines.out).split()
    assert await listening.end() == 0
    assert [json.loads(line) for line in listening.out.splitlines()] == [
        {"id": ids[0], "topic": "orders", "type": "order", "data": '{"n":1}'},
        {"id": ids[1], "topic": "room/a", "type": "message", "data": "line"},
        {"id": ids[2], "topic": "room/a", "type": "message", "data": "ünïcode"},
    ]


async def test_a_refused_publish_is_told_in_one_line(serving: Serving, run: Run) -> None:
    hub = await serving()
    process = await run("publish", "x", "-t", "a//b", "--url", hub.url)
    assert await process.end() == 1
    assert process.err.count("\n") == 1
    assert "topic" in process.err


@pytest.mark.parametrize("command", [["publish", "x"], ["listen"], ["history", "list"]])
async def test_where_no_hub_answers_that_is_told_in_one_line(run: Run, command: list[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        nobody_port = nobody.getsockname()[1]
        process = await run(*command, "--url", f"http://127.0.0.1:{nobody_port}")
        assert await process.end() == 1
    url = f"http://127.0.0.1:{nobody_port}"
    assert process.err == f"hub: no hub answers at {url}: Connection refused\n"


async def test_listen_comes_back_after_the_hub_was_killed_and_reports_the_gap(serving: Serving, run: Run) -> None:
    hub = await serving()
    listening = await run("listen", "a", "--url", hub.url)
    await until(lambda: "hub.open" in listening.err)
    # It says when to come back, so that this test does not wait for the seconds of the default.
    await hub.site.publish({"topic": "a", "data": "before", "retry": 50})
    await until(lambda: listening.out == "before\n")
    hub.signal(signal.SIGKILL)
    await hub.aclose()
    again = await serving(port=hub.port)
    await again.site.publish({"topic": "a", "data": "meanwhile"})
    await until(lambda: "hub.gap" in listening.err)
    assert '"reason":"epoch"' in listening.err
    await until(lambda: "meanwhile" in listening.out)
    await again.site.publish({"topic": "a", "data": "after"})
    await until(lambda: listening.out.endswith("after\n"))
    listening.signal(signal.SIGINT)
    assert await listening.end() == 130
    assert "Traceback" not in listening.err


async def test_listen_resumes_where_it_was_when_only_its_connection_was_lost(serving: Serving, run: Run) -> None:
    hub = await serving("--slow", "disconnect")
    ids = [(await hub.site.publish({"topic": "a", "data": str(number)})).json()["id"] for number in range(5)]
    listening = await run("listen", "a", "--url", hub.url, "--last-event-id", ids[1], "-n", "3")
    assert await listening.end() == 0
    assert listening.out == "2\n3\n4\n"
    assert '"recovered":true' in listening.err


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


# ---- more of the beginning ----


async def test_a_flag_wins_over_the_environment_and_that_over_the_file(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("events_api = true\nmax_connections = 1\ndrain = 600\ncors_origins = ['https://a.example']\n")
    environ = {"HUB_CONFIG": str(file), "HUB_MAX_CONNECTIONS": "3", "HUB_DRAIN": "0"}
    hub = await serving("--max-connections", "2", environ=environ)
    stream = await hub.site.subscribe(headers={"Origin": "https://a.example"})
    assert stream.headers["Access-Control-Allow-Origin"] == "https://a.example"
    await hub.site.subscribe()
    refusal = await hub.site.ask("GET", hub.site.subscribe_path())
    assert refusal.status == 200
    assert 10_000 <= int(refusal.body.split()[1]) <= 60_000
    assert (await hub.site.post("/events/some.thing", {})).status == 202
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


async def test_a_refused_bind_is_told_beside_other_wrong_settings(run: Run) -> None:
    process = await run("serve", "--host", "0.0.0.0", "--port", "70000", "--tls-key", "key.pem")
    await process.end()
    assert all(name in process.err for name in ("port", "--insecure", "tls_key"))


async def test_a_port_that_is_taken_is_told_whatever_the_drain_window(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await run("serve", "--port", str(taken.getsockname()[1]), "--drain", "600")
        assert await process.end() == 1


CHOOSY = """
from hub import on_event


class Choosy:
    def __init__(self, notifications):
        raise ValueError(1)

    @on_event("a.b")
    def hear(self, event):
        pass
"""


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("empty", "x = 1\n"),
        ("choosy", CHOOSY),
        ("raising", "raise RuntimeError('it does not\\nwant to')\n"),
    ],
)
async def test_a_listener_that_can_not_be_used_stops_the_start_with_one_line(
    run: Run, tmp_path: Path, name: str, source: str
) -> None:
    (tmp_path / f"{name}.py").write_text(source)
    process = await run("serve", "--port", "0", "--listeners", name, cwd=tmp_path)
    assert await process.end() == 1
    assert process.out == ""
    (line,) = [line for line in process.err.splitlines() if " INFO " not in line]
    assert line.startswith(f"hub: listener {name}")


# ---- more of the demo ----


async def test_the_demo_alone_has_its_own_listeners(serving: Serving) -> None:
    hub = await serving("--demo")
    stream = await hub.site.subscribe("notifications", "stock/*")
    await hub.site.post("/orders", {"amount": 1})
    assert "#1" in (await stream.next()).json()["message"]
    await stream.next("stock.traded")
    hub.check_tidy()


async def test_listeners_that_are_named_take_the_place_of_those_of_the_demo(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners.stocks")
    stream = await hub.site.subscribe("notifications")
    await hub.site.post("/orders", {"amount": 1})
    await hub.site.publish({"data": "the only one"})
    assert (await stream.next()).data == "the only one"


async def test_an_order_is_a_plain_message_and_needs_an_amount(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners")
    stream = await hub.site.subscribe()
    stream.received.clear()
    wrongs: list[object] = [
        {},
        {"amount": None},
        {"amount": "1"},
        {"amount": True},
        {"amount": -1},
        {"amount": 1e13},
        [],
        1,
    ]
    for wrong in wrongs:
        answer = await hub.site.post("/orders", wrong)
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["field"] == "amount"
    answer = await hub.site.post("/orders", {"amount": 99.5})
    assert (answer.status, answer.json()) == (201, {"id": 1, "amount": 99.5})
    event = await stream.next("message")
    data = '{"message":"新订单 #1 已创建！","amount":99.5}'
    assert stream.received.decode() == f"id: {event.id}\ndata: {data}\n\n"
    assert (await hub.site.post("/events/order.created", {"id": 1, "amount": 1})).status == 404
    hub.check_tidy()


async def test_the_stream_of_a_user_resumes_like_any_other(serving: Serving) -> None:
    hub = await serving("--demo")
    ids = [(await hub.site.publish({"topic": "user/u-42", "data": data})).json()["id"] for data in "abc"]
    await hub.site.publish({"topic": "user/u-43", "data": "not for u-42"})
    for path, headers in (("/sse/u-42", {"Last-Event-ID": ids[0]}), (f"/sse/u-42?lastEventId={ids[0]}", {})):
        client = await hub.site.client()
        await client.request("GET", path, headers=headers)
        assert await client.head() == 200
        opened = await client.next("hub.open")
        assert (opened.id, opened.json()["topics"], opened.json()["recovered"]) == (ids[0], ["user/u-42"], True)
        assert [(await client.next()).data for _ in "bc"] == ["b", "c"]
    for path in ("/sse/a%2Fb", "/sse/*", "/sse/%2A%2A"):
        assert (await hub.site.ask("GET", path)).status == 400


async def test_news_are_numbered_without_a_hole_and_trades_go_to_their_symbol(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners")
    stream = await hub.site.subscribe("news", "stock/*", query={"envelope": "1"})
    news: list[object] = []
    trades: list[dict[str, Any]] = []
    while len(news) < 2 or len(trades) < 2:
        event = await stream.event()
        (news if event.type == "news-flash" else trades).append(event.json())
    assert news[:2] == [{"topic": "news", "data": {"message": f"这是第 {number} 条新闻快讯！"}} for number in (1, 2)]
    for trade in trades:
        assert trade["topic"] == f"stock/{trade['data']['symbol']}"
        assert trade["data"]["price"] > 0


# ---- its state ----


async def test_the_stats_and_the_metrics_say_all_that_was_promised_and_agree(serving: Serving) -> None:
    hub = await serving()
    stream = await hub.site.subscribe("counted")
    id = (await hub.site.publish({"topic": "counted", "data": 1})).json()["id"]
    await stream.next()
    for path, status in (("/healthz", "alive"), ("/readyz", "ready")):
        answer = await hub.site.ask("GET", path)
        assert (answer.status, answer.json()) == (200, {"status": status})
    stats = (await hub.site.ask("GET", "/notifications/stats")).json()
    counters = {"published": 1, "delivered": 1, "dropped": 0, "replayed": 0, "slow_disconnects": 0}
    gauges = {"connections": 1, "topics": 1}
    assert (counters | gauges).items() <= stats.items()
    assert stats["log"]["newest"] == id
    assert "oldest" in stats["log"]
    assert stats["uptime"] > 0

    async with aiohttp.ClientSession() as session, session.get(f"{hub.url}/metrics") as metrics:
        text = await metrics.text()
    assert (metrics.status, metrics.content_type) == (200, "text/plain")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for names, kind in ((counters, "counter"), (gauges, "gauge")):
        for name, value in names.items():
            family = families[f"hub_{name}"]
            assert (family.type, [sample.value for sample in family.samples]) == (kind, [value])
            assert family.documentation


async def test_no_query_string_is_ever_logged(serving: Serving) -> None:
    hub = await serving("--access-log", "--log-level", "debug", "--demo")
    stream = await hub.site.subscribe("known", query={"lastEventId": "tell-tale-1", "ticket": "tell-tale-2"})
    for method, path in [
        ("GET", "/notifications/subscribe?topic=a//b&ticket=tell-tale-3"),
        ("GET", "/notifications/subscribe?envelope=tell-tale-4"),
        ("GET", "/healthz?ticket=tell-tale-5"),
        ("GET", "/nowhere?ticket=tell-tale-6"),
        ("PUT", "/notifications/publish?ticket=tell-tale-7"),
        ("POST", "/notifications/publish?ticket=tell-tale-8"),
        ("GET", "/sse/*?ticket=tell-tale-9"),
    ]:
        await hub.site.ask(method, path)
    stream.reset()
    await hub.site.ask("GET", "/the-last-one")
    await until(lambda: '"GET /the-last-one" 404' in hub.err)
    assert '"GET /nowhere" 404' in hub.err
    assert "topics=known" in hub.err
    assert "tell-tale" not in hub.err
    hub.check_tidy()


GARBLED = [
    b"GET /notifications/subscribe?ticket=tell-tale HTTP/9.9x\r\n\r\n",
    b"GET /notifications/subscribe?ticket=tell-tale\r\n\r\n",
    b"G@T /notifications/subscribe?ticket=tell-tale HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /notifications/subscribe?ticket=tell-tale HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n",
    b"GET /notifications/subscribe?ticket=tell-tale&x=" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /notifications/subscribe?ticket=tell-tale HTTP/1.1\r\nHost: x\r\nx: " + b"x" * 10_000 + b"\r\n\r\n",
]


async def test_a_garbled_request_is_neither_quoted_in_the_log_nor_an_error(serving: Serving) -> None:
    hub = await serving()
    for said in GARBLED:
        client = await hub.site.client()
        await client.send(said)
        assert (await client.at_most(8)).startswith(b"HTTP/")
    assert (await hub.site.ask("GET", "/healthz")).status == 200
    assert "tell-tale" not in hub.err
    hub.check_tidy()


# ---- more of the other commands ----


@pytest.mark.parametrize(
    "garbled",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 9_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(8),
)
async def test_what_aiohttp_refuses_by_itself_is_a_problem_that_quotes_nothing(
    serving: Serving, garbled: bytes
) -> None:
    hub = await serving("--access-log", "--trusted-proxies", "127.0.0.1")
    client = await hub.site.client()
    await client.send(garbled)
    assert await client.head() == 400
    assert client.headers["Content-Type"] == "application/problem+json"
    assert client.headers["Cache-Control"] == "no-store"
    problem = await client.json()
    assert (problem["type"], problem["status"]) == ("about:blank", 400)
    assert problem["detail"].startswith("the request breaks the rules of HTTP/1.1")
    await client.gone()
    assert (await hub.site.ask("GET", "/healthz")).status == 200
    hub.check_tidy()


async def test_a_path_that_is_nowhere_is_a_problem_under_any_method(serving: Serving) -> None:
    hub = await serving("--cors-origins", "https://shop.example.com")
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        for path in ("/nothing", "/notifications/subscribe/", "/events/a.b", "//"):
            answer = await hub.site.ask(method, path, headers={"Origin": "https://shop.example.com"})
            assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example.com"


async def test_the_access_log_names_the_client_behind_a_trusted_proxy(serving: Serving) -> None:
    hub = await serving("--access-log", "--trusted-proxies", "127.0.0.1,10.0.0.0/8")
    told = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.1.1.1"}
    await hub.site.ask("GET", "/healthz", headers=told)
    await until(lambda: "GET /healthz" in hub.err)
    assert '192.0.2.7 "GET /healthz" 200' in hub.err


async def test_publish_goes_to_several_topics_at_once_and_says_nothing_but_the_id(serving: Serving, run: Run) -> None:
    hub = await serving()
    stream = await hub.site.subscribe("a", "b", query={"envelope": "1"})
    process = await run("publish", '"7"', "-t", "b", "-t", "a", "--type", "sold", environ={"HUB_URL": hub.url})
    assert await process.end() == 0
    event = await stream.next("sold")
    assert (event.json(), f"{event.id}\n") == ({"topic": "b", "data": "7"}, process.out)
    assert process.err == ""


@pytest.mark.parametrize(
    "command", [["listen", "a//b"], ["publish", "x", "--type", "hub.x"], ["publish", "x", "-t", "*"]]
)
async def test_what_the_hub_refuses_is_told_in_one_line(serving: Serving, run: Run, command: list[str]) -> None:
    hub = await serving()
    process = await run(*command, "--url", hub.url)
    assert await process.end() in {1, 2}
    assert process.out == ""
    (line,) = process.err.splitlines()
    assert re.match(r"hub: (topic|topics|type): ", line), "the hub's own words, not the JSON around them"


async def test_listen_prints_plain_lines_and_leaves_out_what_was_not_asked_for(serving: Serving, run: Run) -> None:
    hub = await serving()
    process = await run("listen", "heard", "-n", "3", "--url", hub.url)
    await until(lambda: "hub.open" in process.err)
    drafts: list[dict[str, object]] = [
        {"topic": "elsewhere", "data": "ignore_renewal"},
        {"topic": "heard", "data": {"n": 1}},
        {"topic": "heard", "data": "two", "type": "typed"},
        {"topic": "heard", "data": "三"},
    ]
    await hub.site.publish(drafts)
    assert await process.end() == 0
    assert process.out == '{"n":1}\ntyped: two\n三\n'


async def test_listen_names_the_topic_where_it_could_be_another(serving: Serving, run: Run) -> None:
    hub = await serving()
    listeners = [await run("listen", *topics, "-n", "3", "--url", hub.url) for topics in (["**"], ["a", "b/c"])]
    await until(lambda: all("hub.open" in listener.err for listener in listeners))
    drafts: list[dict[str, object]] = [
        {"topic": "a", "data": {"n": 1.50, "topic": "x"}},
        {"topics": ["z", "b/c"], "data": 'with "quotes" and }', "type": "typed"},
        {"topic": "a", "data": ["三", None]},
    ]
    await hub.site.publish(drafts)
    for listener, second in zip(listeners, ("z", "b/c"), strict=True):
        assert await listener.end() == 0
        assert listener.out.splitlines() == [
            'a  {"n":1.5,"topic":"x"}',
            f'{second}  typed: with "quotes" and }}',
            'a  ["三",null]',
        ]


class _Other(http.server.BaseHTTPRequestHandler):
    """A server that is no hub, and answers everything alike."""

    says: tuple[int, str, bytes]

    def answer(self) -> None:
        status, media_type, body = self.says
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who has seen enough leaves
            self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - what the standard library looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[Callable[[int, str, bytes], str]]:
    """What starts a server that is no hub, and returns its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def says(status: int, media_type: str, body: bytes) -> str:
            _Other.says = status, media_type, body
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield says
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>It works!</h1>"),
        (404, "text/html", b"<h1>Not found</h1>" + b"x" * 1_000_000),
        (501, "text/html", b"<p>Message: Unsupported method"),
        (200, "application/json", b"not JSON"),
        (201, "application/json", b"\xff"),
        (201, "application/json", b"[1]"),
        (201, "application/json", b"[" * 60_000),
        (200, "application/json", b"{}"),
        (401, "application/json", b'{"detail": "who are you?"}'),
        (400, "application/problem+json", b"{"),
        (400, "application/problem+json", b'{"detail": ' + b"[" * 60_000),
        (400, "application/problem+json", b'{"detail": 1}'),
        (204, "text/plain", b""),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1]} {answer[2][:8]!r}",
)
@pytest.mark.parametrize(
    "command",
    [["publish", "x"], ["listen"], ["history", "list"], ["history", "export"], ["history", "import", os.devnull]],
    ids=" ".join,
)
def test_where_something_else_answers_that_is_told_in_one_line(
    command: list[str],
    answer: tuple[int, str, bytes],
    other: Callable[[int, str, bytes], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = other(*answer)
    assert main([*command, "--url", url]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"hub: what answers at {url} is not a hub")
    assert str(answer[0]) in line


def test_a_server_without_tls_is_told_from_a_hub_that_is_away(
    other: Callable[[int, str, bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = other(200, "text/html", b"").replace("http:", "https:")
    assert main(["publish", "x", "--url", url]) == 1
    assert re.fullmatch(rf"hub: no hub answers at {url}: TLS failed: [a-z ]+\n", capsys.readouterr().err)
