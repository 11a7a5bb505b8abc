"""What `pip install` brings, built as pip builds it, from a copy of the project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from hub.cli.entry import command

ROOT = Path(__file__).parents[1]
NEEDED = ("hub", "listeners", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
CLIENT = ROOT / "hub" / "web" / "client"  # in TypeScript: what is built of it is in hub/web/static


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return those of the *names* in a *folder* that are not copied: caches, and the packages that npm installs."""
    return {name for name in names if name in {"__pycache__", "node_modules", "dist"}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is built, so that nothing of it lies about in the project afterwards."""
    project = tmp_path / "project"
    project.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, symlinks=True, ignore=left_out)
        else:
            shutil.copy(ROOT / name, project)
    return project


def built(project: Path, hook: str) -> ZipFile:
    """Return the wheel that a hook of the build backend (PEP 517, PEP 660) makes."""
    program = f"from setuptools import build_meta; print(build_meta.{hook}('.'))"
    made = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return ZipFile(project / made.stdout.split()[-1])


def test_a_wheel_has_all_of_the_hub_and_nothing_beside_it(project: Path) -> None:
    names = built(project, "build_wheel").namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"hub", "broadcast_hub"}
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hub").rglob("*")
        if path.suffix in {".py", ".lua", ".html", ".css", ".js", ".txt"} and not path.is_relative_to(CLIENT)
    }
    listeners = {f"hub/demo/listeners/{path.name}" for path in (ROOT / "listeners").glob("*.py")}
    assert there | listeners | {"hub/py.typed"} == {name for name in names if name.startswith("hub/")}


def test_the_demo_of_an_installed_hub_has_its_listeners(project: Path, tmp_path: Path) -> None:
    """Where nothing of the project can be seen but what is in the wheel, and the user has `listeners` too."""
    installed, here = tmp_path / "installed", tmp_path / "here"
    built(project, "build_wheel").extractall(installed)
    here.mkdir()
    (here / "listeners.py").write_text("raise AssertionError('these are the user's own')")
    program = (
        "import hub; from hub.demo import LISTENERS; from hub.events.loader import find_listeners;"
        "print(hub.__file__, *(found.__name__ for found in find_listeners([LISTENERS])))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=here,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.split() == [
        str(installed / "hub" / "__init__.py"),
        "OrderListener",
        "StockListener",
        "UserListener",
    ], said.stderr


def test_an_installed_hub_is_the_same_command_as_python_m_hub(project: Path) -> None:
    wheel = built(project, "build_wheel")
    (listed,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    (point,) = PathDistribution(zipfile.Path(wheel, listed.partition("/")[0] + "/")).entry_points
    assert (point.name, point.load()) == ("hub", command)


def test_an_editable_installation_is_a_path_that_type_checkers_read(project: Path) -> None:
    wheel = built(project, "build_editable")
    (path,) = [name for name in wheel.namelist() if name.endswith(".pth")]
    assert wheel.read(path).decode().split() == [str(project)], "code that runs at start is not read by a type checker"
