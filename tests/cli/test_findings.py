"""What `hub check` makes of what it has seen."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from hub.cli.findings import CHECKS, Level, Sight, judge
from hub.client.probe import NOTHING, Piece, Reply, Streamed, Tls

NOW = 1_790_000_000.0
FACTS: dict[str, Any] = {
    "time": NOW,
    "streams": 10,
    "limits": {"streams": 99_872, "files": 100_000, "backlog": 4096, "body": 2**20},
    "log": {"kind": "sqlite", "answers": True, "file_system": "ext4", "network": False},
    "access": {"known": True, "revocations": True},
    "timeouts": {"heartbeat": 15.0, "drain": 3.0, "peer": 30.0},
    "request": {
        "peer": "10.0.0.9",
        "client": "192.0.2.7",
        "trusted": True,
        "forwarded": True,
        "secure": True,
        "prefix": "/live",
    },
    "draining": False,
}
OPEN = Piece(0.05, b"retry: 3000\nid: a-1\nevent: hub.open\ndata: {}\n\n")
BEAT = Piece(15.0, b":\nid: a-1\n\n")
HEAD = Reply(200, {"content-type": "text/event-stream", "cache-control": "no-cache, no-transform"})
PROBLEM = {"content-type": "application/problem+json"}
WELL = Sight(
    url="https://live.example.com/live",
    ready=Reply(200, {}, b'{"status": "ready"}'),
    tls=Tls("TLSv1.3", "h2", NOW + 60 * 86_400),
    stream=Streamed(HEAD, [OPEN, BEAT]),
    waited=20.0,
    large=Reply(400, PROBLEM),
    stats=Reply(401, PROBLEM),
    described=Reply(200, {}, b'{"servers": [{"url": "/live"}]}'),
    facts=FACTS,
    why="",
    through=True,
    clock=NOW,
    date=NOW,
)


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts with some of them changed: `log__kind="memory"`."""
    changed = copy.deepcopy(FACTS)
    for name, value in changes.items():
        first, _, second = name.partition("__")
        if second:
            changed[first][second] = value
        else:
            changed[first] = value
    return changed


def levels(sight: Sight) -> dict[str, Level]:
    found = judge(sight)
    assert [each.name for each in found] == [*CHECKS], "each check says one thing"
    for each in found:
        assert each.text, each
        assert each.todo or each.level in {Level.OK, Level.SKIP}, "who reads this does not know what to do"
    return {each.name: each.level for each in found}


def test_all_is_well_where_all_is_well() -> None:
    assert set(levels(WELL).values()) == {Level.OK}


LOCAL = "http://127.0.0.1:8080/live"


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"ready": Reply(503, PROBLEM, b'{"detail": "draining"}')}, "ready", Level.FAIL),
        ({"ready": Reply(503, {}, b"<html>")}, "ready", Level.FAIL),
        ({"tls": None, "url": "http://live.example.com/live"}, "tls", Level.FAIL),
        ({"tls": None, "url": LOCAL}, "tls", Level.SKIP),
        ({"tls": Tls("TLSv1.3", "h2", NOW + 86_400)}, "tls", Level.WARN),
        ({"tls": Tls("TLSv1.3", "http/1.1", None)}, "http2", Level.WARN),
        ({"tls": None, "url": "http://live.example.com/live"}, "http2", Level.WARN),
        ({"tls": None, "url": "http://[::1]:8080/live"}, "http2", Level.SKIP),
        ({"stream": Streamed(HEAD, [])}, "first-byte", Level.FAIL),
        ({"stream": Streamed(Reply(NOTHING, {}))}, "first-byte", Level.FAIL),
        ({"stream": Streamed(HEAD, [Piece(9.0, OPEN.data), BEAT])}, "first-byte", Level.FAIL),
        ({"stream": Streamed(Reply(403, PROBLEM))}, "first-byte", Level.SKIP),
        ({"stream": Streamed(HEAD, [Piece(0.1, b"retry: 9\nevent: hub.close\n\n")])}, "first-byte", Level.SKIP),
        ({"stream": Streamed(HEAD, [OPEN])}, "heartbeat", Level.FAIL),
        ({"stream": Streamed(HEAD, [OPEN], ended=True)}, "heartbeat", Level.FAIL),
        ({"stream": Streamed(HEAD, [OPEN]), "waited": 10.0}, "heartbeat", Level.SKIP),
        ({"stream": Streamed(HEAD, [OPEN]), "facts": None}, "heartbeat", Level.SKIP),
        ({"stream": Streamed(HEAD, [])}, "heartbeat", Level.SKIP),
        (
            {"stream": Streamed(Reply(200, {**HEAD.headers, "content-encoding": "gzip"}), [OPEN, BEAT])},
            "compression",
            Level.WARN,
        ),
        ({"stream": Streamed(Reply(200, {"cache-control": "no-cache"}), [OPEN, BEAT])}, "compression", Level.WARN),
        ({"stream": Streamed(Reply(403, PROBLEM))}, "compression", Level.SKIP),
        ({"large": None}, "body", Level.WARN),
        ({"large": Reply(413, {"content-type": "text/html"})}, "body", Level.WARN),
        ({"large": Reply(403, {"content-type": "application/problem+json; charset=utf-8"})}, "body", Level.OK),
        ({"date": None}, "clock", Level.SKIP),
        ({"date": NOW + 5}, "clock", Level.WARN),
        ({"date": NOW - 60}, "clock", Level.FAIL),
        ({"facts": facts(access__known=False)}, "rights", Level.FAIL),
        ({"facts": facts(access__known=False), "url": LOCAL}, "rights", Level.WARN),
        ({"stats": Reply(200, {})}, "administration", Level.FAIL),
        ({"stats": Reply(200, {}), "url": LOCAL}, "administration", Level.WARN),
        ({"stats": Reply(404, PROBLEM)}, "administration", Level.OK),
        ({"stats": Reply(502, {})}, "administration", Level.SKIP),
        ({"facts": facts(limits__files=1024, limits__streams=896)}, "limits", Level.WARN),
        ({"facts": facts(limits__files=50_000)}, "limits", Level.FAIL),
        ({"facts": facts(streams=90_000)}, "limits", Level.WARN),
        ({"facts": facts(limits__files=None, limits__streams=0)}, "limits", Level.OK),
        ({"facts": facts(limits__streams=0)}, "limits", Level.OK),
        ({"facts": facts(limits__backlog=128)}, "backlog", Level.WARN),
        ({"facts": facts(limits__backlog=None)}, "backlog", Level.SKIP),
        ({"facts": facts(log__answers=False)}, "log", Level.FAIL),
        ({"facts": facts(log__kind="memory")}, "log", Level.WARN),
        ({"facts": facts(log__file_system="nfs4", log__network=True)}, "log", Level.FAIL),
        ({"facts": facts(log__kind="redis", log__file_system=None)}, "log", Level.OK),
        ({"facts": facts(access__revocations=False)}, "revocations", Level.WARN),
        ({"facts": facts(access__revocations=None)}, "revocations", Level.SKIP),
        ({"facts": facts(request__prefix="")}, "root-path", Level.FAIL),
        ({"facts": None, "described": Reply(200, {}, b'{"servers": [{"url": "/"}]}')}, "root-path", Level.FAIL),
        ({"facts": None}, "root-path", Level.OK),
        ({"facts": None, "described": Reply(404, {}), "why": "no token"}, "root-path", Level.SKIP),
        ({"through": False, "facts": facts(request__prefix="")}, "root-path", Level.OK),
        ({"facts": facts(request__trusted=False)}, "proxy", Level.FAIL),
        ({"facts": facts(request__secure=False)}, "proxy", Level.FAIL),
        ({"facts": facts(request__forwarded=False)}, "proxy", Level.WARN),
        ({"facts": facts(request__forwarded=False, request__trusted=False)}, "proxy", Level.OK),
        ({"through": False}, "proxy", Level.SKIP),
    ],
)
def test_what_is_wrong_is_found(changes: dict[str, Any], name: str, level: Level) -> None:
    sight = WELL._replace(**changes)
    if sight.facts is None and not sight.why:
        sight = sight._replace(why="only an administrator is told")
    assert levels(sight)[name] is level


def test_whoever_is_told_nothing_learns_what_can_be_seen_from_outside() -> None:
    found = levels(WELL._replace(facts=None, why="only an administrator is told", through=True))
    asked = {"rights", "limits", "backlog", "log", "revocations", "proxy"}
    assert {name for name, level in found.items() if level is Level.SKIP} == asked
    assert json.loads(WELL.ready.body) == {"status": "ready"}
