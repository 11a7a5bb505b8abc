"""`hub publish` as a real process, beside a real hub."""

from __future__ import annotations

import pytest

from tests.cli.commands import Run, Serving

pytestmark = pytest.mark.slow


async def test_a_refused_publish_is_told_in_one_line(serving: Serving, run: Run) -> None:
    hub = await serving()
    process = await run("publish", "x", "-t", "a//b", "--url", hub.url)
    assert await process.end() == 1
    assert process.err.count("\n") == 1
    assert "topic" in process.err


async def test_publish_goes_to_several_topics_at_once_and_says_nothing_but_the_id(serving: Serving, run: Run) -> None:
    hub = await serving()
    stream = await hub.site.subscribe("a", "b", query={"envelope": "1"})
    process = await run("publish", '"7"', "-t", "b", "-t", "a", "--type", "sold", environ={"HUB_URL": hub.url})
    assert await process.end() == 0
    event = await stream.next("sold")
    assert (event.json(), f"{event.id}\n") == ({"topic": "b", "data": "7"}, process.out)
    assert process.err == ""
