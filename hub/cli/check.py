"""`hub check`: look at a running hub from outside, and say what to change before users come."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hub.access.bearer import Bearer, add_token
from hub.cli.answers import fits, flag, maybe, number, printable, text, whole
from hub.cli.target import Failed, add_target, in_one_line

if TYPE_CHECKING:
    from hub.cli.findings import Finding, Sight
    from hub.client.probe import Probe, Reply

SECONDS = 20.0
LARGE = b'{"no such field": "%s"}' % (b"x" * 1_000_000)

FACTS = {
    "time": number,
    "streams": whole,
    "limits": {"streams": whole, "files": maybe(whole), "backlog": maybe(whole)},
    "log": {"kind": text, "answers": flag, "file_system": maybe(text), "network": flag},
    "access": {"known": flag, "revocations": maybe(flag)},
    "timeouts": {"heartbeat": number},
    "request": {"peer": text, "client": text, "trusted": flag, "forwarded": flag, "secure": flag, "prefix": text},
}
"""What the hub has to say of itself, so that it can be judged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    add_target(parser)
    add_token(parser)
    parser.add_argument("--admin-url", metavar="URL", help="its address for administration, if it has one")
    parser.add_argument("-t", "--topic", default="notifications", help="a topic that may be read [notifications]")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for a heartbeat [{SECONDS:g}]",
    )
    parser.add_argument("--strict", action="store_true", help="fail for warnings too")
    parser.add_argument("--json", action="store_true", help="a JSON object per line: level, name, text, todo")


def run(args: argparse.Namespace) -> int:
    """Print what was found; return 1 if something has to be changed."""
    from hub.cli.findings import Level, judge  # noqa: PLC0415 - other commands start faster without

    if not 0 < args.seconds <= 3600:
        raise Failed("--seconds: is not a number above 0, up to 3600")
    with in_one_line():
        sight = asyncio.run(_look(args, Bearer(args.token_file).token()))
    found = judge(sight)
    for line in _as_json(found) if args.json else _as_text(found):
        print(line, flush=True)
    bad = {Level.FAIL, Level.WARN} if args.strict else {Level.FAIL}
    return 1 if any(each.level in bad for each in found) else 0


async def _look(args: argparse.Namespace, token: str | None) -> Sight:
    """Return what can be seen of the hub.

    Raises:
        ClientError: nothing answers.
    """
    from hub.cli.findings import Sight  # noqa: PLC0415
    from hub.client.probe import Probe  # noqa: PLC0415

    async with Probe(args.url, token) as hub, Probe(args.admin_url or args.url, token) as admin:
        asked = time.time()
        ready = await hub.ask("/readyz")
        clock, date = (asked + time.time()) / 2, _date(ready)
        if not _of_a_hub(ready):
            raise Failed(f"what answers at {args.url} is not a hub")
        tls = await hub.tls()
        asked = time.time()
        told = await admin.ask("/notifications/check")
        facts, why = _facts(told, separate=args.admin_url is not None)
        if facts is not None:
            clock, date = (asked + time.time()) / 2, float(facts["time"])
        # One after the other: a burst of requests would be measured with the first byte.
        path = f"/notifications/subscribe?topic={quote(args.topic, safe='')}"
        stream = await hub.stream(path, args.seconds, until=b"\n:")
        return Sight(
            url=args.url,
            ready=ready,
            tls=tls,
            stream=stream,
            waited=args.seconds,
            large=await _sent(hub),
            stats=await hub.ask("/notifications/stats", known=False),
            described=await hub.ask("/openapi.json"),
            facts=facts,
            why=why,
            through=args.admin_url is None,
            clock=clock,
            date=date,
        )


async def _sent(hub: Probe) -> Reply | None:
    """Return the answer to a publish that no hub accepts, with a large body; None if it was cut."""
    from hub.client.errors import Unreachable  # noqa: PLC0415

    try:
        return await hub.ask("/notifications/publish", "POST", LARGE, seconds=30)
    except Unreachable:
        return None


def _of_a_hub(ready: Reply) -> bool:
    said = ready.json()
    return isinstance(said, dict) and (said.get("status") == "ready" or str(said.get("type", "")).startswith("urn:"))


def _date(reply: Reply) -> float | None:
    """Return what the header `Date` says, and half a second, for it leaves out the fraction."""
    try:
        return parsedate_to_datetime(reply.headers["date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        return None


def _facts(told: Reply, *, separate: bool) -> tuple[dict[str, Any] | None, str]:
    """Return what the hub says of itself, or why it does not."""
    said = told.json()
    if told.status == 200 and fits(said, FACTS):
        return said, ""
    if told.status in {401, 403}:
        return None, "only an administrator is told: put a token with --admin into HUB_TOKEN"
    if told.status == 404 and not separate:
        return None, "it tells that only at its address for administration: --admin-url"
    what = "something else" if told.status == 200 else told.status
    return None, f"it does not tell: /notifications/check answers {what}"


def _as_text(found: Iterable[Finding]) -> Iterable[str]:
    for each in found:
        todo = f"\n{'':<22}→ {printable(each.todo)}" if each.todo else ""
        yield f"{each.level:<5} {each.name:<15} {printable(each.text)}{todo}"


def _as_json(found: Iterable[Finding]) -> Iterable[str]:
    for each in found:
        yield json.dumps({**each._asdict(), "level": str(each.level)})
