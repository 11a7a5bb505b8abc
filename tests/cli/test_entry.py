"""`hub`: its help, its version, and what it says to a wrong call."""

from __future__ import annotations

import importlib.metadata
import re

import aiohttp
import pytest

from hub.cli.entry import main
from tests.cli.commands import Run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["publish"], ["listen"], ["token"], ["health"], ["check"], ["top"], ["load"]]
)
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


@pytest.mark.parametrize("command", ["publish x", "listen", "history list", "history export", "check", "top", "load"])
@pytest.mark.parametrize("option", ["--token", "--token=", "--tok", "--tok=", "--token-file="])
def test_a_token_on_the_command_line_is_refused_and_not_printed(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option + "aaa.bbb.ccc"] if option.endswith("=") else [option, "aaa.bbb.ccc"]
    try:
        status = main([*command.split(), *given])
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    assert status == 2
    assert "aaa" not in said.out + said.err
    assert ("unrecognized arguments: --tok\n" if option.strip("=") == "--tok" else "HUB_TOKEN") in said.err


def test_no_option_is_taken_by_its_beginning_and_a_word_too_many_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, named in ((["publish", "x", "--top", "a"], "--top"), (["publish", "x", "spare"], "spare")):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
        assert capsys.readouterr().err.endswith(f"hub: error: unrecognized arguments: {named}\n")
