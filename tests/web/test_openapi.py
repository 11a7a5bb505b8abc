"""The description of the API: it has every route, every parameter and every answer that there is, and no others."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV32SpecValidator

from hub import Identity
from hub.web.endpoint import Endpoint, NotFound
from hub.web.openapi.operations import OPERATIONS
from hub.web.query import Parameters
from tests.access.jwt import SECRET
from tests.web.api import beginning, described
from tests.web.conftest import Serve
from tests.web.server import Server

EVERYTHING: dict[str, Any] = {"events_api": True, "ai_provider": "simulated"}


async def nobody(request: web.Request) -> Identity | None:
    """Know nobody."""
    return None


def mounted(server: Server) -> dict[str, set[str]]:
    """Return the methods of the hub's own routes by path, without those of the page."""
    found: dict[str, set[str]] = {}
    for route in server.app.router.routes():
        endpoint = getattr(route.handler, "__self__", None)
        assert isinstance(endpoint, Endpoint)
        assert route.resource is not None
        path = route.resource.canonical.removeprefix(server.prefix)
        if not isinstance(endpoint, NotFound) and not path.startswith("/docs/"):
            found[path] = set(endpoint._handlers)
    return found


@pytest.mark.parametrize("routes", ["all", ["subscribe", "api"], ["publish", "history", "stats", "api"]], ids=str)
@pytest.mark.parametrize("prefix", ["", "/live"])
async def test_what_is_mounted_is_described_and_nothing_else(serve: Serve, routes: Any, prefix: str) -> None:
    server = await serve(setup={"routes": routes}, prefix=prefix, **EVERYTHING)
    paths = (await described(server)).document["paths"]
    assert {path: {method.upper() for method in methods} for path, methods in paths.items()} == mounted(server)


async def test_every_operation_can_be_mounted(serve: Serve) -> None:
    server = await serve(**EVERYTHING)
    assert {path: set(methods) for path, methods in OPERATIONS.items()} == mounted(server)


@pytest.mark.parametrize(
    "setup", [{"routes": "all"}, {"authenticate": nobody, "routes": None}], ids=["open", "guarded"]
)
async def test_it_is_openapi_3_2(serve: Serve, setup: Any) -> None:
    document = (await described(await serve(setup=setup, **EVERYTHING))).document
    assert document["openapi"] == "3.2.0"
    assert [str(error) for error in OpenAPIV32SpecValidator(document).iter_errors()] == []
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("routes", "media"),
    [
        (["history", "export", "api"], {"application/json", "application/x-ndjson"}),
        (["history", "api"], {"application/json"}),
        (["export", "api"], {"application/x-ndjson"}),
    ],
    ids=lambda each: "+".join(sorted(each)),
)
async def test_the_history_is_described_as_far_as_it_is_there(serve: Serve, routes: Any, media: set[str]) -> None:
    server = await serve(setup={"routes": routes})
    said = (await described(server)).operation("GET", "/notifications/history")
    assert set(said["responses"]["200"]["content"]) == media
    for each in ("application/json", "application/x-ndjson"):
        answer = await server.ask("GET", "/notifications/history", headers={"Accept": each})
        assert (answer.headers["Content-Type"] == each) is (each in media)
        assert str(answer.status) in said["responses"]


async def test_it_is_for_whoever_reaches_the_hub(serve: Serve) -> None:
    server = await serve(setup={"authenticate": nobody, "routes": None}, **EVERYTHING)
    assert (await server.ask("GET", "/notifications/stats")).status == 401
    assert (await described(server)).operations
    assert (await server.ask("GET", "/docs/api")).status == 200


async def test_it_is_not_there_unless_it_is_named_where_nobody_is_known(serve: Serve) -> None:
    server = await serve(setup={"routes": None})
    assert [(await server.ask("GET", path)).status for path in ("/openapi.json", "/docs/api")] == [404, 404]


async def test_it_has_the_address_at_which_the_client_sees_the_hub(serve: Serve) -> None:
    plain, below, proxied = await serve(), await serve(prefix="/live"), await serve(root_path="/hub", prefix="/live")
    told = [(await described(each)).document["servers"] for each in (plain, below, proxied)]
    assert told == [[{"url": "/"}], [{"url": "/live"}], [{"url": "/hub/live"}]]


async def test_refusals_are_described_where_there_can_be_some(serve: Serve) -> None:
    open_, guarded = await serve(), await serve(setup={"authenticate": nobody, "routes": None}, jwt_secret=SECRET)
    statuses = {
        name: set((await described(each)).operation("GET", "/notifications/history")["responses"])
        for name, each in (("open", open_), ("guarded", guarded))
    }
    assert statuses["guarded"] - statuses["open"] == {"401", "403", "429"}
    assert "security" not in str((await described(open_)).document)
    assert (await described(guarded)).operation("GET", "/notifications/stats")["security"] == [
        {"token": []},
        {"cookie": []},
    ]


def names_of_parameters() -> set[str]:
    """Return the names of all parameters that any path knows."""
    modules = [module for name, module in sys.modules.items() if name.startswith("hub.web.")]
    found = [each for module in modules for each in vars(module).values() if isinstance(each, Parameters)]
    return {name for each in found for name in each._names}


async def test_the_parameters_of_a_query_are_those_whose_typos_are_refused(serve: Serve) -> None:
    server = await serve(**EVERYTHING)
    api = await described(server)
    names = names_of_parameters()
    assert {"topic", "lastEventId", "limit"} < names
    for (method, path), operation in api.operations.items():
        queried = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        refused = set()
        for name in names:
            asked = path.replace("{", "").replace("}", "") + f"?{name}{name[-1]}=1"
            headers = {"Content-Type": "application/json", "Last-Event-ID": "sessionId.0.end"}
            answer = await beginning(
                server, method, asked, headers=headers, body=b"0" if "requestBody" in operation else None
            )
            if answer.status == 400 and f"did you mean {name}?" in answer.json()["detail"]:
                refused.add(name)
        assert refused == queried, (method, path)
