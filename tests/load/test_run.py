"""The load tool over real sockets, against a hub as small as the wire contract allows, with faults on demand."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from pydantic import SecretStr

from hub import Hub, Settings, setup_hub
from hub.connections.client_stream import CloseReason, StreamFacts
from hub.eventstream import block
from hub.load.command import add_arguments, run
from hub.load.figures import Figures
from hub.load.subscribers import Subscriber, Subscribers, source_address
from tests.access.jwt import SECRET
from tests.load.test_options import options
from tests.web.client import until

pytestmark = pytest.mark.slow

START = """
import argparse, sys
from hub import Settings, setup_hub
from hub.load.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Freeze again what tests/conftest.py had frozen: a load thaws everything when it is over."""
    yield
    gc.collect()
    gc.freeze()


class FakeHub:
    """Subscribe and publish, nothing else.

    Attributes:
        faulty: what a stream sends in place of the event *number* when it is the first stream's turn.
        ends_after: the first connection ends behind this many events.
        cuts_after: the first connection is cut behind this many events.
        unavailable: so many publishes are kept, but answered with 503.
        refuses: the status that answers every publish.
        refuses_from: the event from which on publishes are refused.
        full: so many subscriptions are answered with a `retry:` and the end.
        forbids: why every subscription is answered with 403; the reason comes in parts.
    """

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.faulty: Callable[[int, list[bytes]], list[bytes]] = lambda number, log: [log[number]]
        self.ends_after = self.cuts_after = -1
        self.unavailable = self.refuses = self.connections = self.full = 0
        self.refuses_from = sys.maxsize
        self.forbids = ""
        self.asked: list[str | None] = []
        self.keys: dict[str, int] = {}
        self.streams: set[asyncio.Task[None] | None] = set()
        self.published = asyncio.Event()

    async def subscribe(self, request: web.Request) -> web.StreamResponse:
        first, self.connections = self.connections == 0, self.connections + 1
        cursor = request.headers.get("Last-Event-ID")
        self.asked.append(cursor)
        if self.forbids:
            return await self._forbid(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if self.full:
            self.full -= 1
            await response.write(block(retry=20))
            return response
        at = int(cursor.partition("-")[2]) if cursor else len(self.log)
        opened = json.dumps({"recovered": True if cursor else None})
        await response.write(block(opened, type="hub.open", id=f"f-{at}", retry=20))
        while request.transport is not None:
            if at == len(self.log):
                await self.published.wait()
                continue
            for frame in self.faulty(at, self.log) if first else [self.log[at]]:
                await response.write(frame)
            at += 1
            if first and at == self.ends_after:
                return response
            if first and at == self.cuts_after and request.transport is not None:
                request.transport.abort()
        return response

    async def _forbid(self, request: web.Request) -> web.StreamResponse:
        problem = json.dumps({"detail": self.forbids}).encode()
        response = web.StreamResponse(status=403, headers={"Content-Length": str(len(problem))})
        await response.prepare(request)
        for at in range(0, len(problem), 5):
            await response.write(problem[at : at + 5])
            await asyncio.sleep(0.001)  # so that most parts arrive alone
        return response

    async def publish(self, request: web.Request) -> web.Response:
        if len(self.log) >= self.refuses_from:
            return web.json_response({"detail": "not for you"}, status=413)
        if self.refuses:
            return web.json_response({"detail": "not for you"}, status=self.refuses)
        drafts = await request.json()
        for draft in drafts if isinstance(drafts, list) else [drafts]:
            if draft["key"] not in self.keys:
                self.keys[draft["key"]] = len(self.log)
                self.log.append(block(json.dumps(draft["data"]), type=draft["type"], id=f"f-{len(self.log) + 1}"))
        self.published.set()
        self.published = asyncio.Event()
        if self.unavailable:
            self.unavailable -= 1
            return web.json_response({}, status=503)
        return web.json_response({}, status=201)


@pytest.fixture
async def fake() -> FakeHub:
    return FakeHub()


@pytest.fixture
async def serve(fake: FakeHub) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Start the fake hub and return its URL."""
    app = web.Application()
    app.router.add_get("/notifications/subscribe", fake.subscribe)
    app.router.add_post("/notifications/publish", fake.publish)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield start
    await runner.cleanup()


@pytest.fixture
async def url(serve: Callable[[], Awaitable[str]]) -> str:
    return await serve()


class Load:
    """Runs the load tool in a thread of its own, with a loop of its own, as a process would."""

    def __init__(self, place: Path) -> None:
        self.place = place

    async def __call__(self, url: str, *arguments: str) -> int:
        """Return the exit status of a small run."""
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        size = ("-c", "20", "--rate", "100", "--seconds", "0.3")
        args = parser.parse_args(["--url", url, "--report", str(self.place), *size, *arguments])
        return await asyncio.to_thread(run, args)

    @property
    def report(self) -> Any:
        """What the run wrote."""
        return json.loads(self.place.read_text())


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(tmp_path / "report.json")


async def test_a_hub_that_delivers_everything_once_and_in_order_is_well(url: str, load: Load) -> None:
    asserted = ("--assert", "missing==0", "--assert", "p99<10s", "--assert", "reconnects==0")
    assert await load(url, *asserted) == 0
    read = load.report
    assert (read["published"], read["expected"], read["delivered"]) == (30, 600, 600)
    assert (read["missing"], read["duplicates"], read["out_of_order"], read["reconnects"]) == (0, 0, 0, 0)
    assert 0 < read["latency_ms"]["p50"] <= read["latency_ms"]["p99"] <= read["latency_ms"]["max"]
    assert read["server"]["rss_end"] > 0
    assert [one["held"] for one in read["assertions"]] == [True, True, True]


async def test_a_plain_loop_does_as_well(url: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert await load(url) == 0
    assert load.report["driver"]["loop"] == "asyncio"


async def test_a_storm_loses_nothing_and_repeats_nothing(fake: FakeHub, url: str, load: Load) -> None:
    assert await load(url, "--storm", "--assert", "reconnects==6") == 0
    read = load.report
    assert (read["storm_dropped"], read["delivered"]) == (6, 600)
    assert len([cursor for cursor in fake.asked if cursor]) == 6


async def test_what_is_lost_is_missing(fake: FakeHub, url: str, load: Load) -> None:
    fake.faulty = lambda number, log: [] if number == 7 else [log[number]]
    assert await load(url) == 1
    assert load.report["missing"] == 1


async def test_what_is_lost_at_the_very_end_is_missing_too(fake: FakeHub, url: str, load: Load) -> None:
    fake.faulty = lambda number, log: [] if number >= 28 else [log[number]]
    assert await load(url, "--grace", "1") == 1
    assert load.report["missing"] == 2


async def test_what_comes_twice_is_a_duplicate(fake: FakeHub, url: str, load: Load) -> None:
    fake.faulty = lambda number, log: [log[number]] * (2 if number == 7 else 1)
    assert await load(url, "--assert", "duplicates==1") == 1
    read = load.report
    assert (read["duplicates"], read["missing"]) == (1, 0)


async def test_what_is_overtaken_is_out_of_order(fake: FakeHub, url: str, load: Load) -> None:
    swapped = {7: [], 8: [8, 7]}
    fake.faulty = lambda number, log: [log[at] for at in swapped.get(number, [number])]
    assert await load(url) == 1
    read = load.report
    assert (read["out_of_order"], read["missing"], read["duplicates"]) == (1, 0, 0)


@pytest.mark.parametrize("how", ["ends_after", "cuts_after"])
async def test_a_stream_that_ends_is_resumed_where_it_was(fake: FakeHub, url: str, load: Load, how: str) -> None:
    setattr(fake, how, 10)
    assert await load(url) == 0
    read = load.report
    assert (read["reconnects"], read["delivered"]) == (1, 600)
    # A cut may reach the driver before the last frames did: it comes back for those as well.
    assert next(cursor for cursor in fake.asked if cursor) in {f"f-{at}" for at in range(11)}


async def test_a_publish_that_was_kept_but_not_confirmed_is_repeated_once(fake: FakeHub, url: str, load: Load) -> None:
    fake.unavailable = 1
    assert await load(url) == 0
    read = load.report
    assert (read["publish_retries"], read["delivered"], read["duplicates"]) == (1, 600, 0)


async def test_a_hub_that_confirms_nothing_ends_the_run_and_nothing_is_missing(
    fake: FakeHub, url: str, load: Load
) -> None:
    fake.unavailable = sys.maxsize
    assert await load(url, "--grace", "0.3") == 1
    read = load.report
    assert (read["published"], read["missing"]) == (0, 0)
    assert read["faults"][0] == "nothing was published"
    assert "answered with 503" in read["faults"][1]


async def test_a_refusal_in_mid_run_still_brings_the_report(fake: FakeHub, url: str, load: Load) -> None:
    fake.refuses_from = 5
    assert await load(url, "--grace", "0.3") == 1
    read = load.report
    kept = len(fake.log)  # a publisher that is late sends several at once
    assert kept >= 5
    assert (read["published"], read["delivered"], read["missing"]) == (kept, 20 * kept, 0)
    assert "413: not for you" in read["faults"][1]


async def test_a_failed_assertion_fails_the_run(url: str, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    assert await load(url, "--assert", "deliveries_per_s<1") == 1
    assert "deliveries_per_s<1: FAILED" in capsys.readouterr().out


async def test_a_port_where_nothing_listens_is_said_in_one_line(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await load(f"http://127.0.0.1:{unused.getsockname()[1]}") == 2
    error = capsys.readouterr().err
    assert "no hub reachable" in error
    assert len(error.splitlines()) == 1
    assert not load.place.exists()


async def test_a_server_that_is_no_hub_is_said_in_one_line(
    url: str, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await load(f"{url}/elsewhere") == 2
    error = capsys.readouterr().err
    assert "/elsewhere/notifications/subscribe was answered with 404" in error
    assert len(error.splitlines()) == 1


async def test_a_publisher_who_is_not_allowed_is_told_why(
    fake: FakeHub, url: str, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.refuses = 403
    assert await load(url) == 2
    assert "403: not for you" in capsys.readouterr().err


async def test_a_full_hub_is_said_in_one_line(
    fake: FakeHub, url: str, load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.full = sys.maxsize
    monkeypatch.setattr("hub.load.run.OPENING", 0.3)
    assert await load(url) == 2
    assert "only 0 of 20 subscribers connected" in capsys.readouterr().err


async def test_the_reason_of_a_refusal_may_come_in_parts(
    fake: FakeHub, url: str, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.forbids = "not for you"
    assert await load(url) == 2
    assert capsys.readouterr().err == "hub load: GET /notifications/subscribe was answered with 403: not for you\n"


async def test_every_attempt_that_brings_no_stream_is_counted(fake: FakeHub, url: str, load: Load) -> None:
    fake.full = 15
    assert await load(url) == 0
    read = load.report
    assert (read["failed_attempts"], read["reconnects"], read["delivered"]) == (15, 0, 600)


@pytest.fixture
async def guarded() -> AsyncIterator[tuple[Hub, str]]:
    """A hub that takes tokens, and its address."""
    app = web.Application()
    hub = setup_hub(app, Settings(drain=0, jwt_secret=SecretStr(SECRET)))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield hub, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def tokens_of(*users: str, **claims: object) -> str:
    rights = {"subscribe": ["load/**"], "publish": ["load/**"]}
    said = {"exp": 4_000_000_000, "hub": rights, **claims}
    return "".join(f"{jwt.encode({'sub': user, **said}, SECRET, algorithm='HS256')}\n" for user in users)


async def test_subscribers_get_the_tokens_of_a_file_in_turn(
    guarded: tuple[Hub, str], load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, url = guarded
    users: Counter[str | None] = Counter()
    hub.connections.watch(opened=lambda facts: users.update([facts.user]))
    file = tmp_path / "tokens"
    file.write_text(tokens_of("ann", "bob", "tom"))
    assert await load(url, "--tokens", str(file)) == 0
    assert users == {"ann": 7, "bob": 7, "tom": 6}
    read = load.report
    assert (read["tokens"], read["delivered"], read["refusals"]) == (3, 600, {})
    said = capsys.readouterr()
    for text in (load.place.read_text(), said.out, said.err):
        assert not any(token in text for token in file.read_text().split())


async def test_one_token_of_a_file_or_the_environment_does_for_all(
    guarded: tuple[Hub, str], load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(tokens_of("ann"))
    assert await load(guarded[1], "--token-file", str(file)) == 0
    monkeypatch.setenv("HUB_TOKEN", file.read_text())
    assert await load(guarded[1], "--storm") == 0
    assert load.report["reconnects"] == 6


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            None,
            "401: hub.close with the reason unauthorized (tokens are taken from --tokens, --token-file or HUB_TOKEN)",
        ),
        (tokens_of("ann", exp=1), "401: the token has expired"),
        (tokens_of("ann", hub={}), "403: load/"),
        (tokens_of("ann", hub={"subscribe": ["load/**"]}), "notifications/publish was answered with 403: load/"),
        ("my secret", "--token-file: does not hold a token"),
    ],
    ids=["none", "expired", "no right", "no right to publish", "no token"],
)
async def test_a_load_that_may_not_is_told_why(
    guarded: tuple[Hub, str], load: Load, said: str | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = load.place.with_name("token")
    file.write_text(said or "")
    assert await load(guarded[1], *(() if said is None else ("--token-file", str(file)))) == 2
    error = capsys.readouterr().err
    assert why in error
    assert len(error.splitlines()) == 1
    assert said is None or said.strip() not in error


async def test_subscribers_whose_rights_end_are_turned_away_and_counted(guarded: tuple[Hub, str], load: Load) -> None:
    hub, url = guarded

    def end(facts: StreamFacts) -> None:
        stream = hub.connections.get(facts.id)
        if len(hub.connections) == 20 and stream is not None:
            asyncio.get_running_loop().call_later(0.1, stream.end, CloseReason.REVOKED, 10)

    hub.connections.watch(opened=end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUB_TOKEN", tokens_of("ann"))
        assert await load(url) == 1
    assert load.report["refusals"] == {"401": 1}


async def test_the_hub_itself_loses_nothing_in_a_storm(load: Load) -> None:
    app = web.Application()
    setup_hub(app, Settings.load({"drain": 0}, environ={}), prefix="/live", routes="all")
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        assert await load(f"http://127.0.0.1:{runner.addresses[0][1]}/live", "--storm") == 0
    finally:
        await runner.cleanup()
    read = load.report
    assert (read["delivered"], read["storm_dropped"], read["reconnects"], read["gaps"]) == (600, 6, 6, {})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_leaving_while_a_connection_is_made_waits_for_no_word_that_never_comes(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = pytest.importorskip(loop).new_event_loop
    leaving: list[asyncio.Task[None]] = []

    class Hasty(Subscriber):
        """Has everybody leave when its connection is made: it is there, but the loop has not handed it out."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if not leaving:
                leaving.append(asyncio.create_task(self._subscribers.aclose()))

    async def leave() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        everybody = Subscribers(Figures(options("-c", "5")), server.sockets[0].getsockname(), "me")
        async with server, asyncio.timeout(60):
            opening = asyncio.create_task(everybody.open(10))
            await until(lambda: leaving)
            await leaving[0]
            opening.cancel()
            assert not any(subscriber.open for subscriber in everybody.each)
            assert not any(subscriber._transport for subscriber in everybody.each)

    monkeypatch.setattr("hub.load.subscribers.Subscriber", Hasty)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leave())


async def test_a_topic_is_asked_for_below_the_prefix_of_the_hub() -> None:
    asked = options("--url", "http://[::1]:8081/app/", "--topic", "stock/Ä&B")
    request = Subscribers(Figures(asked), ("::1", 8081), "me").request
    assert request.startswith(
        "GET /app/notifications/subscribe?topic=stock/%C3%84%26B HTTP/1.1\r\nHost: [::1]:8081\r\n"
    )


def test_large_runs_come_from_several_addresses_of_this_machine() -> None:
    assert source_address(19_999, "127.0.0.1") is None
    assert source_address(20_000, "127.0.0.1") == ("127.0.0.2", 0)
    assert source_address(20_000, "192.0.2.7") is None
    assert source_address(20_000, "::1") is None


async def test_more_connections_than_files_are_refused(
    load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.load.run.raise_file_limit", lambda: (50, 80))
    assert await load("http://127.0.0.1:1") == 2
    said = capsys.readouterr()
    assert "file limit: 80, raised from 50" in said.out
    assert "needs 84 open files, the limit (ulimit -Hn) is 80" in said.err


@pytest.fixture
async def drive(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[asyncio.subprocess.Process]]]:
    """Start the load tool as a process; it is gone when the test is over."""
    started: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        started.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", START, "--report", str(tmp_path / "report.json"), "-c", "20", *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def read_up_to(word: bytes, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while word not in (line := await process.stdout.readline()):
        assert line, f"ended without {word!r}"


async def test_an_interrupt_ends_tidily_with_the_report(
    url: str, load: Load, drive: Callable[..., Awaitable[asyncio.subprocess.Process]]
) -> None:
    driver = await drive("--url", url, "--rate", "50", "--seconds", "50")
    await read_up_to(b"publishing  connected 20", driver)
    driver.send_signal(signal.SIGINT)
    out, err = await driver.communicate()
    assert err == b""
    assert b"interrupted" in out
    assert load.report["interrupted"]
    assert load.report["missing"] == 0
    assert driver.returncode == 0


async def test_a_second_interrupt_ends_the_waiting_for_stragglers(
    fake: FakeHub, url: str, load: Load, drive: Callable[..., Awaitable[asyncio.subprocess.Process]]
) -> None:
    fake.faulty = lambda number, log: []
    driver = await drive("--url", url, "--rate", "50", "--seconds", "50", "--grace", "300")
    await read_up_to(b"publishing  connected 20", driver)
    driver.send_signal(signal.SIGINT)
    await read_up_to(b"settling", driver)
    driver.send_signal(signal.SIGTERM)
    await driver.communicate()
    assert load.report["missing"] == load.report["published"]
    assert driver.returncode == 1


async def test_an_interrupt_while_waiting_for_stragglers_ends_the_waiting(
    fake: FakeHub, url: str, load: Load, drive: Callable[..., Awaitable[asyncio.subprocess.Process]]
) -> None:
    fake.faulty = lambda number, log: []
    driver = await drive("--url", url, "--seconds", "0.1", "--grace", "300")
    await read_up_to(b"settling", driver)
    driver.send_signal(signal.SIGINT)
    await driver.communicate()
    assert load.report["missing"] == 1
    assert driver.returncode == 1


async def test_an_interrupt_while_connecting_leaves_at_once(
    fake: FakeHub, url: str, load: Load, drive: Callable[..., Awaitable[asyncio.subprocess.Process]]
) -> None:
    fake.full = sys.maxsize
    driver = await drive("--url", url)
    await read_up_to(b"connecting", driver)
    driver.send_signal(signal.SIGINT)
    _, err = await driver.communicate()
    assert err == b""
    assert load.report["faults"] == ["nothing was published"]
    assert driver.returncode == 1
