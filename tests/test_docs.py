"""The documentation keeps its word: what it shows is what happens, and what it lists is what there is."""

from __future__ import annotations

import ast
import asyncio
import configparser
import dataclasses
import enum
import os
import re
import runpy
import shlex
import shutil
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import annotated_types
import pytest
from aiohttp import web
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pytest_aiohttp.plugin import AiohttpClient

import hub
import hub.client
import hub.errors
from hub import HUB, Hub, HubError, Notification, Settings, setup_hub
from hub.cli.entry import main
from hub.cli.findings import CHECKS
from hub.metrics import COUNTERS, HISTOGRAMS, HTTP_REQUESTS, STREAMS_ENDED
from hub.patterns import RESERVED, PatternTrie

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, ROOT / ".github" / "SECURITY.md"]
PATIENCE = 60.0
EPOCH = r"(?<!\"at\":)\b[0-9a-f]{10}\b"  # not the seconds of an archive
BEFORE_SESSION = (
    "stream/",
    '"sessionId":"',
    '"sessionId": "',
    '"messageId":"',
    '"lastEventId": "',
    "chatcmpl-",
    "id: ",
)
SESSION = rf"(?:{'|'.join(f'(?<={before})' for before in BEFORE_SESSION)})[\w-]{{22}}(?![\w-])"
TICKET = r"(?<=\bticket=)[\w-]{12}\.[\w-]{32}|(?<=\"ticket\": \")[\w-]{12}\.[\w-]{32}"
CONNECTION = r"\bc_[0-9a-f]{16}\b"
SHOWN = "http://127.0.0.1:8080"
"""Where `hub serve` is in the documentation; the tests put their hubs on a free port."""


# What a page consists of


class Fence(NamedTuple):
    """A fenced block of a page, and the line it begins at."""

    language: str
    text: str
    line: int


def fences(page: Path) -> Iterator[Fence]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Fence(match[1], match[2], text.count("\n", 0, match.start()) + 1)


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the fragments that GitHub gives to the headings of *page*."""
    found: dict[str, int] = {}
    for heading in headings(page):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def table(page: Path, *columns: str) -> list[list[str]]:
    """Return the cells of the tables on *page* that begin with *columns*, code marks left out."""
    rows: list[list[str]] = []
    inside = False
    for line in prose(page).splitlines():
        cells = [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif cells[: len(columns)] == list(columns):
            inside = True
        elif inside and not set(cells[0]) <= set(":- "):
            rows.append(cells)
    return rows


# Doing what a page says


def neutral(text: str) -> str:
    """Return *text* without what differs from one run to the next."""
    for pattern, instead in (
        (EPOCH, "epoch"),
        (SESSION, "session"),
        (TICKET, "ticket"),
        (CONNECTION, "c_…"),
        (r"\b[0-9a-f]{32}\b", "…"),
        (r"(?m)^retry: \d+$", "retry: …"),
        (r"(?mi)^(date|server|content-length): .*\n", ""),
        (r"\b(\d+ passed in) [\d.]+s", r"\1 …"),
        (r"(\"(?:uptime|bytes)\": )[\d.]+", r"\1…"),
        (r"(\"created\":)\d+", r"\1…"),
        (r"(\"(?:created|expires)At\": ?)\"[^\"]+\"", r"\1…"),
        (r"(\"(?:at|since)\":)(?:\"[\d:.TZ-]+\"|[\d.]+)", r"\1…"),
        (r"\r", ""),
    ):
        text = re.sub(pattern, instead, text)
    return text.strip()


class Walk:
    """Does what a page says in its order, in a directory of its own, and compares what the page shows.

    python, html, ini: a block whose first line names a file is that file.
    console: lines after `$` are commands, the others what they print; a server or `curl -N` goes on.
    sse: what the last `curl -N` prints next.
    Other languages are for people only.
    """

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.url, self.shown = place, SHOWN, SHOWN
        self._monkeypatch = monkeypatch
        self._ends: list[Callable[[], Any]] = []
        self._stream: asyncio.subprocess.Process | None = None
        self._names: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self.steps = 0

    async def through(self, page: Path) -> None:
        for fence in fences(page):
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._take(fence)
            except Exception as error:
                error.add_note(f"at {page}:{fence.line}")
                raise

    async def _take(self, fence: Fence) -> None:
        name = re.match(r"(?:# |<!-- )(\w+\.(?:py|html|ini))\b", fence.text)
        if fence.language in {"python", "html", "ini"} and name:
            (self.place / name[1]).write_text(fence.text, encoding="utf-8")
        elif fence.language == "console":
            for command, shown in commands(fence.text):
                await self._run(command, shown)
        elif fence.language == "sse":
            await self._expect(fence.text)

    async def _run(self, command: str, shown: str) -> None:
        self.steps += 1
        words = shlex.split(command)
        if shown.startswith("hub: listening"):
            assert await self._hub(words[2:] if words[0] == "hub" else None) in shown
        elif words[0] in {"python", ".venv/bin/python"} and words[1].endswith(".py"):
            address = await self._serve(self.place / words[1])
            assert f"======== Running on {address} ========" in shown
        elif words[:2] == ["curl", "-N"]:
            await self._leave()
            self._stream = await self._start(*map(self._real, words))
            await self._expect(shown)
        else:
            hub_and_python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; hub() {{ python -m hub "$@"; }}\n'
            process = await self._start("bash", "-c", hub_and_python + self._real(command))
            printed, _ = await process.communicate()
            self._compare(printed.decode(), shown)

    async def _start(self, *words: str, **environment: str) -> asyncio.subprocess.Process:
        (self.place / ".curlrc").write_text("silent\n")  # no progress where there is no terminal
        paths = {"PYTHONPATH": f"{self.place}{os.pathsep}{ROOT}", "CURL_HOME": str(self.place)}
        return await asyncio.create_subprocess_exec(
            *words,
            cwd=self.place,
            env={**os.environ, **paths, "HUB_URL": self.url, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def _hub(self, arguments: list[str] | None) -> str:
        """Start a hub of its own as `hub serve` or `make run` (None) would, and return what it says first."""
        await self.aclose()
        recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
        sets = dict(re.findall(r'(HUB_\w+)="\$\$\{\1-(.*?)\}"', recipe)) if arguments is None else {}
        process = await self._start(
            *(sys.executable, "-m", "hub", "serve", *(arguments or ())), HUB_PORT="0", HUB_DRAIN="0", **sets
        )
        self._ends.append(lambda: finish(process))
        assert process.stdout is not None
        said = ""
        while not said.startswith("hub: "):  # beside its log
            said = (await process.stdout.readline()).decode()
            assert said, "the hub ended"
        self.url, self.shown = said.split()[-1], SHOWN
        return said.replace(self.url, SHOWN)

    async def _serve(self, program: Path) -> str:
        """Start the application that *program* runs, in this process, and return the address it asked for."""
        await self.aclose()
        asked: dict[str, Any] = {}
        self._monkeypatch.chdir(self.place)
        self._monkeypatch.syspath_prepend(str(self.place))
        self._monkeypatch.setattr(web, "run_app", lambda app, **options: asked.update(options, app=app))
        for module in [name for name in sys.modules if (self.place / f"{name}.py").exists()]:
            del sys.modules[module]
        runpy.run_path(str(program), run_name="__main__")
        app = asked["app"]
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._ends.append(runner.cleanup)
        self._ends.append(lambda: app[HUB].drain(0))
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.shown = f"http://{asked['host']}:{asked['port']}"
        return self.shown

    def _real(self, word: str) -> str:
        for shown, real in self._names.items():
            word = word.replace(shown, real)
        return word.replace(self.shown, self.url)

    async def _expect(self, shown: str) -> None:
        """Read as many lines as *shown* has from the stream, and compare them."""
        assert self._stream is not None
        assert self._stream.stdout is not None
        read = [await self._stream.stdout.readline() for _ in shown.splitlines()]
        self._compare(b"".join(read).decode(), shown)

    def _compare(self, printed: str, shown: str) -> None:
        assert neutral(printed.replace(self.url, self.shown)) == neutral(shown)
        for given in (EPOCH, SESSION, TICKET):
            for said, real in zip(re.findall(given, shown), re.findall(given, printed), strict=True):
                assert self._names.setdefault(said, real) == real, "one name on the page is two in truth"
                assert self._given.setdefault(real, said) == said, "two names on the page are one in truth"
        self._names.update(zip(re.findall(CONNECTION, shown), re.findall(CONNECTION, printed), strict=True))

    async def _leave(self) -> None:
        if self._stream is not None:
            await finish(self._stream)
            self._stream = None

    async def aclose(self) -> None:
        await self._leave()
        while self._ends:
            await self._ends.pop()()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r"\\\n *", "", part).partition("\n")
        yield command, shown


async def finish(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.communicate()


@pytest.fixture
async def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Walk]:
    if shutil.which("curl") is None:
        pytest.skip("the pages use curl, which is not installed")
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    walk = Walk(tmp_path, monkeypatch)
    yield walk
    await walk.aclose()
    for name in [name for name in sys.modules if (tmp_path / f"{name}.py").exists()]:
        del sys.modules[name]


WALKED = [
    "README.md",
    "docs/tutorial.md",
    "docs/howto/authorize.md",
    "docs/howto/change-topics.md",
    "docs/howto/embed-in-aiohttp.md",
    "docs/howto/publish-from-anywhere.md",
    "docs/howto/rooms-and-presence.md",
    "docs/howto/test-your-listeners.md",
    "docs/howto/use-from-a-page.md",
    "docs/howto/write-a-listener.md",
    "docs/howto/stream-ai-tokens.md",
    "docs/howto/stream-from-a-handler.md",
    "docs/howto/use-from-the-command-line.md",
    "docs/reference/http.md",
    "docs/reference/metrics.md",
]


FOLLOWED = ["docs/howto/use-from-django.md", "docs/howto/use-from-fastapi.md", "docs/howto/use-from-flask.md"]
"""Run by `tests/frameworks`, with servers and environments of their own."""


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKED)
async def test_who_does_what_the_page_says_sees_what_it_shows(walk: Walk, page: str) -> None:
    await walk.through(ROOT / page)
    assert walk.steps


def test_what_looks_as_if_it_were_run_is_run() -> None:
    run = {page for page in PAGES for fence in fences(page) if fence.language in {"console", "python", "sse"}}
    assert run == {ROOT / page for page in WALKED + FOLLOWED}


@pytest.mark.parametrize("page", WALKED + FOLLOWED)
def test_every_program_on_a_page_says_which_file_it_is(page: str) -> None:
    programs = [fence for fence in fences(ROOT / page) if fence.language == "python"]
    nameless = [fence.line for fence in programs if not re.match(r"# (?:at the end of )?[\w/]+\.py\b", fence.text)]
    assert not nameless, "who reads this can't know where to put it, nor how to start it"


def test_what_is_to_be_installed_is_there_without_an_index_that_has_the_hub() -> None:
    hints = [
        f"{path.relative_to(ROOT)}: {hint}"
        for path in [*PAGES, *(ROOT / "hub").rglob("*.py")]
        for hint in re.findall(r"pip install [^`\n]*broadcast-hub.*", path.read_text(encoding="utf-8"))
        if "/broadcast-hub" not in hint  # the folder of the project
    ]
    assert not hints


def test_fragments_of_python_can_be_compiled() -> None:
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "py":
                compile(fence.text, f"{page}:{fence.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_the_listener_of_the_readme_hears_what_its_comment_says(walk: Walk, tmp_path: Path) -> None:
    await walk.through(README)
    assert (tmp_path / "shop_listeners.py").exists()
    hub = Hub(Settings(listeners=("shop_listeners",), drain=0))
    await hub.open()
    heard: list[Notification] = []
    hub.notifications.stream("user/42").subscribe(heard.append)
    hub.bus.emit("order.created", {"id": 7, "customer": 42})
    await hub.aclose()
    assert [(each.type, each.data) for each in heard] == [("order.created", {"order": 7})]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("\nSomebody", "\nNobody"),
        ("null}", "true}"),
        ("data: greet\n", "data: greets\n"),
        ("id: 5f0c1d7a92-1", "id: 5f0c1d7a92-2"),
        ("id: 5f0c1d7a92-1", "id: 5f0c1d7a93-1"),
    ],
)
async def test_a_page_that_shows_something_else_is_found_out(
    walk: Walk, tmp_path: Path, right: str, wrong: str
) -> None:
    page = tmp_path / "page.md"
    assert right in SMALL
    page.write_text(SMALL.replace(right, wrong))
    with pytest.raises(AssertionError):
        await walk.through(page)


@pytest.mark.slow
async def test_a_page_that_shows_what_happens_is_true(walk: Walk, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(SMALL)
    await walk.through(page)


SMALL = """
```console
$ hub serve
hub: listening on http://127.0.0.1:8080
$ curl -N 'http://127.0.0.1:8080/notifications/subscribe'
retry: 2254
id: 5f0c1d7a92-0
event: hub.open
data: {"connection":"c_5f7cd2c3468054ed","topics":["notifications"],"recovered":null}

$ hub publish greet >/dev/null; echo Somebody
Somebody
```

```sse
id: 5f0c1d7a92-1
data: greet

```
"""


# What a page points to


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, fragment = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            lost.append(target)
    assert not lost


def test_the_results_are_not_those_of_a_quick_run() -> None:
    assert "quick run" not in (DOCS / "performance" / "results.md").read_text(encoding="utf-8")


def test_every_page_is_on_the_map() -> None:
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", prose(DOCS / "index.md"))}
    assert {page for page in PAGES if page not in {README, DOCS / "index.md"}} == linked


# What a page lists


def spelled(annotation: Any) -> str:
    """Return the type of a setting in the words of the page."""
    arguments = [each for each in typing.get_args(annotation) if each is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(arguments)
    if typing.get_origin(annotation) is tuple:
        return "list"
    if typing.get_origin(annotation) is dict:
        return "table"
    if arguments:
        return spelled(arguments[0])
    if issubclass(annotation, enum.Enum):
        return ", ".join(each.value for each in annotation)
    return {bool: "switch", int: "whole number", float: "number", str: "text", SecretStr: "text", Path: "path"}[
        annotation
    ]


def default_of(field: FieldInfo) -> str:
    value = field.default
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def bounds_of(field: FieldInfo) -> str:
    words = {annotated_types.Ge: "from", annotated_types.Gt: "above", annotated_types.Le: "to"}
    bounds = []
    for each in field.metadata:
        if type(each) in words:
            (bound,) = vars(each).values() if hasattr(each, "__dict__") else dataclasses.astuple(each)
            bounds.append(f"{words[type(each)]} {int(bound) if bound == int(bound) else bound:,}")
    return " ".join(bounds)


def test_the_settings_are_those_of_the_table() -> None:
    listed = {row[0]: row[1:5] for row in table(REFERENCE / "settings.md", "Setting", "Variable")}
    assert listed == {
        name: [f"HUB_{name.upper()}", spelled(field.annotation), default_of(field), bounds_of(field)]
        for name, field in Settings.model_fields.items()
    }


def test_the_public_names_are_those_of_the_page() -> None:
    named = [heading.strip("`") for heading in headings(REFERENCE / "python.md") if heading.startswith("`")]
    assert sorted(named) == sorted(hub.__all__)


def test_the_names_of_the_client_are_those_of_its_page() -> None:
    page = REFERENCE / "python-client.md"
    named = {heading.strip("`") for heading in headings(page) if heading.startswith("`")}
    named |= {row[0] for row in table(page, "Exception", "When")}
    assert named | {"AsyncListening", "AsyncSocketListening"} == set(hub.client.__all__)


@pytest.mark.parametrize("name", ["HubClient", "Listening", "Received"])
def test_the_members_of_a_class_of_the_client_are_those_of_its_table(name: str) -> None:
    text = (REFERENCE / "python-client.md").read_text(encoding="utf-8")
    section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0].rpartition("|---|---|\n")[2]
    listed = {
        word.removeprefix("await ").partition("(")[0]
        for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
        for word in re.findall(r"`(.*?)`", row)
    }
    members = {member for member in dir(getattr(hub.client, name)) if not member.startswith("_")}
    assert listed - {"aclose"} == members - INSIDE


INSIDE = {"for_loop", "new_http", "of", "token"}
"""What the parts of the client do with each other."""


@pytest.mark.parametrize("name", ["Hub", "NotificationService", "Receipt", "Notification"])
def test_the_members_of_a_class_are_those_of_its_table(name: str) -> None:
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
    listed = {
        word.removeprefix("await ").partition("(")[0]
        for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
        for word in re.findall(r"`(.*?)`", row)
    }
    made: Any = {"Hub": lambda: Hub(Settings()), "NotificationService": lambda: Hub(Settings()).notifications}
    members = set(dir(getattr(hub, name))) | (set(vars(made[name]())) if name in made else set())
    unlisted = {member for member in members if not member.startswith("_")} - listed
    assert listed <= members
    assert unlisted <= WITHIN[name]


WITHIN = {
    "Hub": {
        "addresses",
        "changes",
        "check_state",
        "clock",
        "connecting",
        "elsewhere",
        "hosts",
        "lifecycle",
        "minting",
        "peers",
        "proxies",
        "publishing",
        "refusing",
        "wiring",
    },
    "NotificationService": {"open", "close"},
    "Receipt": {"confirm", "fail", "repeat", "watch"},
    "Notification": {"accept", "envelope", "enveloped", "count", "index"},
}
"""What the parts of the hub do with each other: public in the code, not meant for applications."""


def test_the_dependencies_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    needed = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    wanted = [re.fullmatch(r"([\w.-]+)(.*)", line) for part in needed for line in part.split("\n") if line]
    listed = [(row[0], row[1]) for row in table(REFERENCE / "dependencies.md", "Package", "Range")]
    assert listed == [(each[1], each[2]) for each in wanted if each]
    assert all(row[2] for row in table(REFERENCE / "dependencies.md", "Package", "Range"))


def errors_below(cls: type[HubError]) -> Iterator[type[HubError]]:
    for each in cls.__subclasses__():
        if each.__module__ == "hub.errors":
            yield each
            yield from errors_below(each)


def test_the_errors_are_those_of_the_tables() -> None:
    travelling = {row[2]: row[:2] for row in table(REFERENCE / "errors.md", "Type") if row[2]}
    in_python = {row[0] for row in table(REFERENCE / "errors.md", "Exception")}
    assert {*travelling, *in_python} == {"HubError", *(each.__name__ for each in errors_below(HubError))}
    for name, (urn, status) in travelling.items():
        cls = getattr(hub.errors, name)
        error = cls.__new__(cls)
        assert (urn, status) == (f"urn:broadcast-hub:{re.sub('(?<!^)(?=[A-Z])', '-', name).lower()}", str(error.status))


async def test_a_problem_has_the_type_that_the_table_gives_it(aiohttp_client: AiohttpClient) -> None:
    app = web.Application()
    setup_hub(app, Settings(drain=0), routes="all")
    client = await aiohttp_client(app)
    answer = await client.post("/notifications/publish", json={"data": 1, "topic": "a/*"})
    problem = await answer.json(content_type="application/problem+json")
    assert [problem["type"], str(answer.status)] in [row[:2] for row in table(REFERENCE / "errors.md", "Type")]


async def test_the_metrics_are_those_of_the_table(aiohttp_client: AiohttpClient) -> None:
    app = web.Application()
    setup_hub(app, Settings(drain=0), routes="all")
    client = await aiohttp_client(app)
    exposed = await (await client.get("/metrics")).text()
    stats = await (await client.get("/notifications/stats")).json()
    rows = table(REFERENCE / "metrics.md", "Metric", "Type")
    types = re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE)
    assert [(row[0], row[1]) for row in rows] == [each for each in types if not each[0].startswith("hub_worker_")]
    in_stats = {row[2] for row in rows} - {""}
    assert in_stats == {*stats, "log.count", "log.bytes"} - {"log", "draining", "workers"}
    by_process = dict(each for each in types if each[0].startswith("hub_worker_"))
    counters = {f"hub_worker_{name}_total": "counter" for name in COUNTERS}
    named = set(re.findall(r"`(hub_worker_\w+)`", (REFERENCE / "metrics.md").read_text(encoding="utf-8")))
    assert {*by_process} == named | {*counters}
    assert counters.items() <= by_process.items()


def test_counters_and_histograms_are_described_as_in_the_code() -> None:
    rows = table(REFERENCE / "metrics.md", "Metric", "Type")
    described = {row[0]: re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row[3]) for row in rows}
    counters = {f"hub_{name}_total": text for name, text in [*COUNTERS.items(), ("streams_ended", STREAMS_ENDED)]}
    histograms = {f"hub_{name}": text for name, text in [*HISTOGRAMS.items(), ("http_request_seconds", HTTP_REQUESTS)]}
    expected = {name: text[0].lower() + text[1:].removesuffix(".") for name, text in (counters | histograms).items()}
    assert {name: described[name] for name in expected} == expected
    assert {row[0] for row in rows if row[1] != "gauge"} - {*expected} == {"hub_cpu_seconds_total"}


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "publish", "listen", "history list", "history export", "history import"),
        *("token", "health", "check", "top", "load"),
    ],
)
def test_the_options_are_those_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out)) - {"-h", "--help"}
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    section = text.partition(f"## `hub {command}`\n")[2].partition("\n## ")[0]
    assert options == set(re.findall(r"(?<=`)--?[a-z][a-z-]*", section))


def test_the_checks_are_those_of_the_checklist() -> None:
    assert [row[0] for row in table(DOCS / "howto" / "run-in-production.md", "Check")] == [*CHECKS]


def test_the_patterns_match_what_the_tables_say() -> None:
    for page, separator in (("topics.md", "/"), ("events.md", ".")):
        rows = table(REFERENCE / page, "Pattern", "Matches", "Does not match")
        assert rows
        for pattern, matches, others in rows:
            trie: PatternTrie[str] = PatternTrie(RESERVED if separator == "/" else ())
            trie.add(pattern.split(separator), pattern)
            for name in re.findall(r"[\w/.]+", matches.replace("everything", "any")):
                assert list(trie.match(name.split(separator))), f"{pattern} matches {name}"
            for name in re.findall(r"[\w/.]+", others):
                assert not list(trie.match(name.split(separator))), f"{pattern} does not match {name}"
