"""A process that abuses a hub: thousands of bad requests, as many at a time as it can; it prints what was answered."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt

from tests.web.client import Client, StreamEnded, request
from tests.web.server import Site

SECRET = "a secret of the tests, which has more than 32 bytes"
SLOW_ONES, WORKERS = 200, 20


def token(user: str, **claims: Any) -> str:
    now = time.time()
    said = {"sub": user, "iat": int(now) - 1, "exp": now + 86_400, **claims}
    return jwt.encode(said, SECRET, algorithm="HS256")


def said_by(user: str, address: str, **rights: Any) -> dict[str, str]:
    """Return the headers of a request of *user*, which comes from *address*."""
    return {"Authorization": f"Bearer {token(user, hub=rights)}", "X-Forwarded-For": address}


BAD = ["203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2"]
"""Their addresses; the last two count as one."""


def bad_requests() -> Iterator[tuple[str, bytes, set[int]]]:
    """Yield kinds of bad requests, their bytes, and the statuses with which they may be answered; for ever."""
    random_ = random.Random(7)
    forged = jwt.encode({"sub": "editor", "exp": 9e9}, "another secret, which is long enough", algorithm="HS256")
    expired = token("editor", exp=1_000_000)
    wide = "&".join(quote(f"topic=*/*/**/*/{number}", safe="/*=") for number in range(128))
    many = json.dumps({"topics": [f"a/{number}" for number in range(20_000)]}).encode()
    few = json.dumps({"topics": [f"a/{number}" for number in range(200)]}).encode()
    drafts = [{"topics": [f"b/{number}/{each}" for each in range(16)], "data": 1} for number in range(1_000)]
    thousand, one = json.dumps(drafts).encode(), json.dumps(drafts[0]).encode()
    as_json = {"Content-Type": "application/json"}
    mallory = {each: said_by("mallory", each, subscribe=[f"m/{n}/**" for n in range(100)]) for each in BAD}
    subscribe = "/notifications/subscribe?topic=news"
    while True:
        address, large = random_.choice(BAD), random_.random() < 0.1
        there = {"X-Forwarded-For": address}
        guess = {"Authorization": f"Bearer {random_.randbytes(24).hex()}.{random_.randbytes(24).hex()}.x"}
        refused = {401, 429}
        yield from (
            ("a guess", request("GET", subscribe, headers=there | guess), refused),
            ("forged", request("GET", subscribe, headers=there | {"Authorization": f"Bearer {forged}"}), refused),
            (
                "expired",
                request("GET", "/notifications/stats", headers=there | {"Authorization": f"Bearer {expired}"}),
                refused,
            ),
            (
                "a cookie",
                request(
                    "GET", subscribe, headers=there | {"Accept": "text/event-stream", "Cookie": f"hub_token={forged}"}
                ),
                {200},
            ),
            ("a ticket", request("GET", f"{subscribe}&ticket={'a' * 12}.{'b' * 32}", headers=there), refused),
            ("nobody", request("GET", "/notifications/history?topic=news", headers=there), refused),
            ("not granted", request("GET", f"/notifications/history?{wide}", headers=mallory[address]), {403, 429}),
            ("tickets", request("POST", "/notifications/tickets", headers=mallory[address]), {201, 429}),
            (
                "many topics",
                request(
                    "POST", "/notifications/subscribe", headers=mallory[address] | as_json, body=many if large else few
                ),
                {400, 429},
            ),
            (
                "many drafts",
                request(
                    "POST",
                    "/notifications/publish",
                    headers=mallory[address] | as_json,
                    body=thousand if large else one,
                ),
                {403, 429},
            ),
            ("a long line", request("GET", f"{subscribe}&x={'x' * 20_000}", headers=there), {400, 414, 431}),
            ("no HTTP", b"\x16\x03\x01" + random_.randbytes(64) + b"\r\n\r\n", {400}),
        )


async def abuse(hub: Site, requests: Iterator[tuple[str, bytes, set[int]]], answers: Counter[str]) -> None:
    """Send bad *requests*, one after the other, on connections that are kept as long as the hub keeps them."""
    client = None
    for kind, said, statuses in requests:
        if client is None or client.closed:
            client = await hub.client(keep=False)
        try:
            await client.send(said)
            status = await client.head()
            await client.body()
        except (StreamEnded, ConnectionError):  # it was closed while the request was on its way
            answers[f"{kind}: closed"] += 1
            await client.aclose()
            client = None
            continue
        assert status in statuses, (kind, status)
        answers[f"{kind}: {status}"] += 1
        if client.headers.get("Connection") == "close":
            await client.aclose()
            client = None


def limited(requests: Iterator[Any], number: int) -> Iterator[Any]:
    """Yield *number* of *requests*; several may take from it."""
    for _ in range(number):
        yield next(requests)


async def begin_slowly(hub: Site) -> list[Client]:
    """Return connections that have begun a request, and go on with a byte now and then."""
    slow = [await hub.client() for _ in range(SLOW_ONES)]
    for client in slow:
        await client.send(b"GET /notifications/subscribe HTTP/1.1\r\nX-Long: ")
    return slow


async def trickle(slow: list[Client]) -> None:
    """Send a byte on each of *slow* again and again, until all are cut."""
    open_ones = list(slow)
    while open_ones:
        for client in list(open_ones):
            try:
                await client.send(b"a")
            except OSError:
                open_ones.remove(client)
        await asyncio.sleep(0.1)  # slowly is what is tested


async def main(port: int, number: int) -> None:
    """Send *number* bad requests, and begin some slowly; print how many were answered in which way, as JSON."""
    hub, answers = Site(("127.0.0.1", port)), Counter[str]()
    slow = await begin_slowly(hub)
    requests = limited(bad_requests(), number)
    async with asyncio.TaskGroup() as abusing:
        abusing.create_task(trickle(slow))
        for _ in range(WORKERS):
            abusing.create_task(abuse(hub, requests, answers))
    await hub.aclose()
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
