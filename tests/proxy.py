"""Real proxies before a hub, with the configurations that the documentation shows."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
import trustme

from tests.ports import free_port
from tests.snippets import snippet

PAGE = "howto/run-behind-a-proxy.md"
STARTING = 60.0  # seconds; a loaded machine takes long to start a process
PACKAGES = {
    "nginx": "nginx-light",
    "caddy": "caddy",
    "haproxy": "haproxy",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}
FILES = {"nginx": "nginx.conf", "caddy": "Caddyfile", "haproxy": "haproxy.cfg"}


def program(name: str) -> str:
    """Return where the program *name* is; without it the test is skipped, and on CI fails."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        missing(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    return found


def missing(why: str) -> NoReturn:
    """Skip the test because of *why*; on CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Proxy:
    """A proxy that runs.

    Attributes:
        port: where it listens with TLS, for `live.example.com` and `localhost`.
        tls: the context of a client that trusts it.
        process: its process.
    """

    def __init__(self, port: int, tls: ssl.SSLContext, process: asyncio.subprocess.Process) -> None:
        self.port, self.tls, self.process = port, tls, process


@asynccontextmanager
async def documented(
    name: str, place: Path, hub: int, *, prefix: bool = False, changes: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Run the proxy *name* before the hub on port *hub*, as the documentation configures it, with its files in *place*.

    Args:
        name: `nginx`, `caddy` or `haproxy`.
        prefix: take the configuration that shows the hub below `/live/`.
        changes: what is written instead of some of its text.
    """
    path, port, authority = program(name), free_port(), trustme.CA()
    certificate = authority.issue_cert("live.example.com", "localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(place / "both.pem")
    certificate.private_key_pem.write_to_path(place / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(place / "cert.pem")
    authority.cert_pem.write_to_path(place / "ca.pem")
    tls = ssl.create_default_context()
    authority.configure_trust(tls)

    text = _configuration(name, prefix=prefix)
    for old, new in {**(changes or {}), "127.0.0.1:8080": f"127.0.0.1:{hub}", **_here(name, place, port)}.items():
        assert old in text, old
        text = text.replace(old, new)
    file = place / FILES[name]
    file.write_text(text, encoding="utf-8")
    arguments = {
        "nginx": ["-p", str(place), "-c", str(file), "-e", str(place / "error.log")],
        "caddy": ["run", "--adapter", "caddyfile", "--config", str(file)],
        "haproxy": ["-db", "-f", str(file)],
    }[name]
    with (place / "proxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            path, *arguments, stdout=log, stderr=log, env={**os.environ, "HOME": str(place)}
        )
    try:
        await _listening(port, process, place / "proxy.log")
        yield Proxy(port, tls, process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STARTING):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _configuration(name: str, *, prefix: bool) -> str:
    if not prefix:
        return snippet(PAGE, FILES[name])
    assert name != "nginx", "tests/web/test_nginx.py has it"
    below = snippet(PAGE, f"{FILES[name]} for a prefix")
    whole = snippet(PAGE, FILES[name])
    if name == "caddy":
        return whole.partition("live.example.com")[0] + below
    beginning, _, rest = whole.partition("frontend live")
    return beginning + below + "\nbackend" + rest.partition("\nbackend")[2]


def _here(name: str, place: Path, port: int) -> dict[str, str]:
    """Return what differs from a configuration on a machine of its own: where it listens, and where its files are."""
    if name == "nginx":
        temporary = "".join(
            f"{each}_temp_path {place}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return {
            "worker_shutdown_timeout": f"daemon off; worker_processes 1; pid {place}/pid; worker_shutdown_timeout",
            "http {": f"http {{ access_log off; {temporary}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/ssl/live.example.com.pem": f"{place}/cert.pem",
            "/etc/ssl/live.example.com.key": f"{place}/key.pem",
        }
    if name == "caddy":
        # Without `skip_install_trust` each start makes an authority of its own and has the machine trust it.
        own = f"storage file_system {place}/caddy"
        alone = f"\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n\t{own}\n"
        return {
            "\tgrace_period": f"{alone}\tgrace_period",
            "live.example.com {": f"live.example.com:{port}, localhost:{port}, 127.0.0.1:{port} {{\n"
            f"\tbind 127.0.0.1\n\ttls {place}/cert.pem {place}/key.pem\n",
        }
    return {"bind :443": f"bind 127.0.0.1:{port}", "/etc/haproxy/live.example.com.pem": f"{place}/both.pem"}


async def _listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(STARTING):
        while True:
            assert process.returncode is None, log.read_text()  # noqa: ASYNC240 - the test ends here
            with socket.socket() as probe:
                probe.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    return
