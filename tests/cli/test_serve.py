"""`hub serve` as a real process: how it begins, what it refuses, and what it says of itself."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from hub.cli.entry import main
from tests.cli.commands import Run, Serving
from tests.web.client import until

pytestmark = pytest.mark.slow


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


# ---- what it serves ----


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
    stream = await hub.site.subscribe("known", query={"lastEventId": "tell-tale-1", "token": "tell-tale-2"})
    for method, path in [
        ("GET", "/notifications/subscribe?topic=a//b&ticket=tell-tale-3"),
        ("GET", "/notifications/subscribe?envelope=tell-tale-4"),
        ("GET", "/healthz?ticket=tell-tale-5"),
        ("GET", "/nowhere?ticket=tell-tale-6"),
        ("PUT", "/notifications/publish?ticket=tell-tale-7"),
        ("POST", "/notifications/publish?ticket=tell-tale-8"),
        ("GET", f"/sse/{'x' * 300}?ticket=tell-tale-9"),
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


async def test_the_access_log_names_the_client_behind_a_trusted_proxy(serving: Serving) -> None:
    hub = await serving("--access-log", "--trusted-proxies", "127.0.0.1,10.0.0.0/8")
    told = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.1.1.1"}
    await hub.site.ask("GET", "/healthz", headers=told)
    await until(lambda: "GET /healthz" in hub.err)
    assert '192.0.2.7 "GET /healthz" 200' in hub.err
