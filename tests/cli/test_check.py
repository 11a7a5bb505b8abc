"""`hub check` against a real hub, behind nginx as the guide configures it, and as it should not be."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from hub.cli.entry import main
from hub.client.probe import Probe
from tests.cli.commands import Serving
from tests.ports import free_port
from tests.proxy import documented, program
from tests.web.process import ServeProcess

pytestmark = pytest.mark.slow

SECRET = "a secret of the tests, which has more than 32 bytes"
BAD = """
daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 100k;
        location /live/ {{
            proxy_pass http://127.0.0.1:{hub}/;
            proxy_ignore_headers X-Accel-Buffering;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


# Its worker belongs to nobody, who may not write to the folder of the test.
IN_MEMORY = {"proxy_read_timeout 60s": "client_body_buffer_size 2m; proxy_read_timeout 60s"}


@pytest.fixture
async def hub(serving: Serving, tmp_path: Path) -> ServeProcess:
    environ = {
        "HUB_JWT_SECRET": SECRET,
        "HUB_LOG": f"sqlite:///{tmp_path}/hub.db",
        "HUB_TRUSTED_PROXIES": "127.0.0.1",
        "HUB_ALLOWED_HOSTS": "localhost",
        "HUB_HEARTBEAT": "0.5",
        "HUB_DRAIN": "0",
    }
    return await serving(environ=environ)


class Checked:
    """What a run of `hub check` has said.

    Attributes:
        status: its exit status.
        lines: the level and the text of each check.
    """

    def __init__(self, status: int, out: str) -> None:
        self.status = status
        self.lines = {each["name"]: (each["level"], each["text"]) for each in map(json.loads, out.splitlines())}

    def of(self, *levels: str) -> set[str]:
        return {name for name, (level, _) in self.lines.items() if level in levels}


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable with the token of an administrator."""
    claims = {"sub": "ops", "exp": time.time() + 600, "hub": {"admin": True, "subscribe": ["notifications"]}}
    monkeypatch.setenv("HUB_TOKEN", jwt.encode(claims, SECRET, "HS256"))


async def check(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> Checked:
    status = await asyncio.to_thread(main, ["check", "--url", url, "--json", *more])
    said = capsys.readouterr()
    assert not said.err
    return Checked(status, said.out)


async def test_behind_nginx_as_the_guide_has_it_nothing_is_wrong(
    hub: ServeProcess,
    admin: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with documented("nginx", tmp_path, hub.port, changes=IN_MEMORY) as nginx:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        url = f"https://localhost:{nginx.port}"
        checked = await check(capsys, url, "--seconds", "60", "--strict")
        # The limits are those of this machine.
        assert checked.of("warn", "fail", "skip") <= {"limits", "backlog"}, checked.lines
        assert checked.lines["log"][1].startswith("sqlite")
        monkeypatch.delenv("HUB_TOKEN")
        unknown = await check(capsys, url, "--seconds", "60")
        assert unknown.status == 0
        assert unknown.of("ok") >= {"ready", "tls", "http2", "body", "clock", "administration", "root-path"}
        assert unknown.of("skip") >= {"first-byte", "rights", "limits", "log", "proxy"}


@pytest.fixture
async def bad_proxy(hub: ServeProcess, tmp_path: Path) -> AsyncIterator[str]:
    port, file = free_port(), tmp_path / "nginx.conf"
    file.write_text(BAD.format(place=tmp_path, port=port, hub=hub.port))
    process = await asyncio.create_subprocess_exec(
        *(program("nginx"), "-p", str(tmp_path), "-c", str(file), "-e", str(tmp_path / "error.log"))
    )
    try:
        async with asyncio.timeout(30):
            while not (tmp_path / "pid").exists():
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}/live"
    finally:
        process.terminate()
        await process.wait()


async def test_behind_an_nginx_that_buffers_cuts_bodies_and_moves_the_root_all_of_that_is_found(
    bad_proxy: str, admin: None, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = await check(capsys, bad_proxy, "--seconds", "3")
    assert checked.status == 1
    assert checked.of("fail") == {"first-byte", "root-path"}, checked.lines
    assert checked.lines["body"] == ("warn", "a body of 1 MB is refused with 413 before the hub sees it")
    assert checked.of("ok") >= {"ready", "clock", "rights", "administration", "log", "revocations", "proxy"}


async def test_a_hub_with_an_address_for_administration_is_asked_there(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    hub = await serving("--admin-port", str(port), "--heartbeat", "0.3", "--drain", "0")
    alone = await check(capsys, hub.url)
    assert "--admin-url" in alone.lines["log"][1]
    checked = await check(capsys, hub.url, "--admin-url", f"http://127.0.0.1:{port}")
    assert checked.lines["log"] == ("warn", "in memory: a restart loses the history")
    assert checked.lines["rights"][0] == "warn", "on this machine it is no more than that"
    assert checked.status == 0
    assert (await check(capsys, hub.url, "--admin-url", f"http://127.0.0.1:{port}", "--strict")).status == 1


async def test_a_heartbeat_is_waited_for_longer_than_for_an_answer(serving: Serving) -> None:
    hub = await serving("--heartbeat", "1", "--drain", "0")
    async with Probe(hub.url, seconds=0.5) as probe:
        stream = await probe.stream("/notifications/subscribe", 60, until=b"\n:")
    assert b"\n:" in stream.text


async def test_who_stops_reading_what_it_prints_gets_no_stack_trace(hub: ServeProcess) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = (sys.executable, "-m", "hub", "check", "--url", hub.url, "--seconds", "0.2")
    process = await asyncio.create_subprocess_exec(*command, stdout=writes, stderr=asyncio.subprocess.PIPE)
    os.close(writes)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said) == (1, b"")


async def test_what_is_no_hub_is_told_in_one_line(hub: ServeProcess, capsys: pytest.CaptureFixture[str]) -> None:
    for url in (f"{hub.url}/nowhere", f"http://127.0.0.1:{free_port()}"):
        assert await asyncio.to_thread(main, ["check", "--url", url]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
