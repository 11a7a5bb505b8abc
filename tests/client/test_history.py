"""The history, read by the Python client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.client import HubClient, NotAHub, NotValid
from hub.client.history import Leafing
from hub.client.steps import Answer, Chance
from tests.client.conftest import Connect
from tests.client.support import url_of
from tests.web.conftest import Serve


async def test_the_history_is_read_page_by_page_up_to_its_limit(serve: Serve, connect: Connect) -> None:
    client = connect(await serve())
    ids = list(map(str, await client.publish_many({"topic": f"t/{n % 2}", "data": n} for n in range(3_000))))

    async def read(*topics: str, **options: Any) -> list[Any]:
        return [page async for page in client.history(*topics, **options)]

    pages = await read("t/0")
    assert [each["data"] for page in pages for each in page["notifications"]] == list(range(0, 3_000, 2))
    assert len(pages) > 1
    (page,) = await read("t/*", after=ids[2_996], limit=2)
    assert [each["id"] for each in page["notifications"]] == ids[2_997:2_999]
    assert await read("t/0", limit=0) == []
    with pytest.raises(NotValid, match="empty segment"):
        await read("a//b")


async def test_an_archive_is_what_the_command_line_exports(serve: Serve) -> None:
    server = await serve()
    server.send(1, 2, topic="a")

    def work() -> tuple[bytes, list[Any]]:
        with HubClient(url_of(server)) as client:
            return b"".join(client.export()), list(client.history("a"))

    archive, (page,) = await asyncio.to_thread(work)
    assert archive.count(b"\n") == 4
    assert [each["data"] for each in page["notifications"]] == [1, 2]
    assert page["recovered"] is True


def test_a_page_that_leads_to_itself_is_not_read_for_ever() -> None:
    page = b'{"notifications":[],"next":"e-1","recovered":true}'
    answer = Answer("http://hub", 200, "OK", {"content-type": "application/json"}, page)
    steps = Leafing((), "e-1", None).page(0, Chance())
    next(steps)
    steps.send(None)
    with pytest.raises(NotAHub):
        steps.send(answer)
