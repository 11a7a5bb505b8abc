"""The modules of the hub: each can be reached by its name, and importing one does not load the others."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

import hub


def modules(package: ModuleType = hub) -> Iterator[str]:
    """Yield the names of all modules of the hub, those that need an optional library or run something left out."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name in {"hub.__main__", "hub.demo.listeners", "hub.generations.providers.openai"}:
            continue
        yield found.name
        if found.ispkg:
            yield from modules(import_module(found.name))


@pytest.mark.parametrize("name", list(modules()))
def test_no_module_is_hidden_by_another_name(name: str) -> None:
    module = import_module(name)
    for public in hub.__all__:
        getattr(hub, public)
    parent, _, last = name.rpartition(".")
    assert getattr(import_module(parent), last) is module


@pytest.mark.parametrize("name", hub.__all__)
def test_every_public_name_can_be_imported_and_listed(name: str) -> None:
    assert getattr(hub, name) is not None
    assert name in dir(hub)


def test_a_name_that_does_not_exist_is_the_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="module 'hub' has no attribute 'Hubb'"):
        _ = hub.Hubb  # type: ignore[attr-defined]


def loaded_by(program: str) -> set[str]:
    """Return the modules that a new Python has loaded when it has run *program*."""
    program += "\nimport sys\nprint(*sys.modules, sep='\\n')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return set(said.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "unneeded"),
    [
        ("import hub", {"aiohttp", "pydantic", "reactivex", "hub.web"}),
        ("from hub import MessageEvent", {"aiohttp", "pydantic", "reactivex", "hub.web"}),
        (
            "from hub.client import AsyncHubClient, Gap, HubClient, Received; HubClient('http://x')",
            {"aiohttp", "pydantic", "reactivex", "jwt", "prometheus_client", "hub.log", "hub.settings", "hub.web"},
        ),
        ("import hub.log.sqlite.worker.main", {"aiohttp", "asyncio", "pydantic", "reactivex", "hub.settings"}),
        ("from hub import NotificationService", {"aiohttp", "hub.web"}),
        ("from hub.web.verifier import verifier_of; from hub import Settings; verifier_of(Settings())", {"jwt"}),
    ],
)
def test_an_import_loads_only_what_it_needs(program: str, unneeded: set[str]) -> None:
    assert not loaded_by(program) & unneeded


@pytest.mark.slow
def test_the_client_loads_nothing_of_the_server() -> None:
    loaded = {name for name in loaded_by("from hub.client import *") if name.startswith("hub.")}
    shared = {f"hub.{name}" for name in ("errors", "eventstream", "names", "notification", "patterns", "topics")}
    assert {name for name in loaded if not name.startswith("hub.client")} == shared
