"""`hub listen` as a real process, beside a real hub."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.commands import Run, Serving
from tests.web.client import until

pytestmark = pytest.mark.slow


async def test_what_is_published_is_listened_to(serving: Serving, run: Run) -> None:
    hub = await serving()
    listening = await run("listen", "orders", "room/*", "--url", hub.url, "-n", "3", "--json")
    await listening.tells("hub.open")
    one = await run("publish", '{"n": 1}', "-t", "orders", "--url", hub.url, "--type", "order")
    assert await one.end() == 0
    lines = await run("publish", "-t", "room/a", "--url", hub.url, stdin="line\nünïcode\n")
    assert await lines.end() == 0
    ids = (one.out + lines.out).split()
    assert await listening.end() == 0
    assert [json.loads(line) for line in listening.out.splitlines()] == [
        {"id": ids[0], "topic": "orders", "type": "order", "data": '{"n":1}'},
        {"id": ids[1], "topic": "room/a", "type": "message", "data": "line"},
        {"id": ids[2], "topic": "room/a", "type": "message", "data": "ünïcode"},
    ]


async def test_listen_comes_back_after_the_hub_was_killed_and_reports_the_gap(serving: Serving, run: Run) -> None:
    hub = await serving()
    listening = await run("listen", "a", "--url", hub.url)
    await listening.tells("hub.open")
    # It says when to come back, so that this test does not wait for the seconds of the default.
    await hub.site.publish({"topic": "a", "data": "before", "retry": 50})
    await until(lambda: listening.out == "before\n")
    hub.signal(signal.SIGKILL)
    await hub.aclose()
    again = await serving(port=hub.port)
    await again.site.publish({"topic": "a", "data": "meanwhile"})
    await listening.tells("hub.gap")
    assert '"reason":"epoch"' in listening.err
    await until(lambda: "meanwhile" in listening.out)
    await again.site.publish({"topic": "a", "data": "after"})
    await until(lambda: listening.out.endswith("after\n"))
    listening.signal(signal.SIGINT)
    assert await listening.end() == 130
    assert "Traceback" not in listening.err


async def test_listen_resumes_where_it_was_when_only_its_connection_was_lost(serving: Serving, run: Run) -> None:
    hub = await serving("--slow", "disconnect")
    ids = [(await hub.site.publish({"topic": "a", "data": str(number)})).json()["id"] for number in range(5)]
    listening = await run("listen", "a", "--url", hub.url, "--last-event-id", ids[1], "-n", "3")
    assert await listening.end() == 0
    assert listening.out == "2\n3\n4\n"
    assert '"recovered":true' in listening.err


async def test_listen_prints_plain_lines_and_leaves_out_what_was_not_asked_for(serving: Serving, run: Run) -> None:
    hub = await serving()
    process = await run("listen", "heard", "-n", "3", "--url", hub.url)
    await process.tells("hub.open")
    drafts: list[dict[str, object]] = [
        {"topic": "elsewhere", "data": "unheard"},
        {"topic": "heard", "data": {"n": 1}},
        {"topic": "heard", "data": "two", "type": "typed"},
        {"topic": "heard", "data": "三"},
    ]
    await hub.site.publish(drafts)
    assert await process.end() == 0
    assert process.out == '{"n":1}\ntyped: two\n三\n'


async def test_listen_names_the_topic_where_it_could_be_another(serving: Serving, run: Run) -> None:
    hub = await serving()
    listeners = [await run("listen", *topics, "-n", "3", "--url", hub.url) for topics in (["**"], ["a", "b/c"])]
    for listener in listeners:
        await listener.tells("hub.open")
    drafts: list[dict[str, object]] = [
        {"topic": "a", "data": {"n": 1.50, "topic": "x"}},
        {"topics": ["z", "b/c"], "data": 'with "quotes" and }', "type": "typed"},
        {"topic": "a", "data": ["三", None]},
    ]
    await hub.site.publish(drafts)
    for listener, second in zip(listeners, ("z", "b/c"), strict=True):
        assert await listener.end() == 0
        assert listener.out.splitlines() == [
            'a  {"n":1.5,"topic":"x"}',
            f'{second}  typed: with "quotes" and }}',
            'a  ["三",null]',
        ]
