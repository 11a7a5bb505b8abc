"""What `hub.testing` gives to tests of other people, and how it fails them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from hub import NOTIFICATIONS, Event, NotificationService, on_event
from hub.client import AsyncHubClient, NotAuthenticated, Received
from hub.errors import InvalidEventName, InvalidListener
from hub.testing import Clock, NothingCame, hub_for_test, make_event
from tests.web.process import ROOT
from tests.web.test_rights import SECRET, token

LISTENERS = """
import asyncio
from hub import on_event

class Shop:
    def __init__(self, notifications):
        self.notifications = notifications

    @on_event("order.created")
    def created(self, event):
        self.notifications.send_notification(event.payload["id"], topic="orders", type=event.name)

    @on_event("order.packed")
    async def packed(self, event):
        await asyncio.sleep(0)
        await self.notifications.send_to_user(event.payload["user"], {"packed": event.payload["id"]})

    @on_event("wait")
    async def wait(self, event):
        await asyncio.Event().wait()
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `shop_of_tests`, which has a listener."""
    (tmp_path / "shop_of_tests.py").write_text(LISTENERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("shop_of_tests", None)


SHOP = ["shop_of_tests"]


async def test_a_listener_is_tested_in_three_lines() -> None:
    async with hub_for_test(listeners=SHOP) as hub:
        told = hub.collect("orders", "user/*")
        event = await hub.emit("order.created", {"id": 7})
        await hub.emit("order.packed", {"id": 7, "user": 42})
    assert event.name == "order.created"
    assert (told.data, told.types) == ([7, {"packed": 7}], ["order.created", None])
    assert [each.topics for each in told] == [("orders",), ("user/42",)]
    assert (len(told), told[1].data) == (2, {"packed": 7})


async def test_a_handler_may_fail_the_test_in_the_words_of_pytest() -> None:
    async def on_order(event: Event) -> None:
        pytest.fail("no tea")

    async def work() -> None:
        async with hub_for_test() as hub:
            hub.bus.on("order", on_order)
            await hub.emit("order")

    with pytest.raises(BaseExceptionGroup) as failed:
        await work()
    (failure,) = failed.value.exceptions
    assert isinstance(failure, pytest.fail.Exception)


async def test_collecting_waits_for_a_state() -> None:
    async with hub_for_test() as hub:
        told = hub.collect("a")

        async def publish() -> None:
            for number in range(3):
                await asyncio.sleep(0)
                await hub.notifications.send_notification(number, topic="a")

        publishing = asyncio.create_task(publish())
        assert (await told.next()).data == 0
        assert (await told.next()).data == 1
        assert [each.data for each in await told.wait(3)] == [0, 1, 2]
        await told.until(lambda each: 2 in each.data)
        await publishing
        told.clear()
        assert (len(told), repr(told)) == (0, "<Collected nothing>")
        with told:
            await hub.notifications.send_notification("x", topic="a", type="t")
        await hub.notifications.send_notification("y", topic="a")
        assert repr(told) == "<Collected t 'x' to a>"


async def test_what_does_not_come_fails_with_what_came_instead() -> None:
    async with hub_for_test() as hub:
        told = hub.collect("a", "b/*")
        await hub.notifications.send_notification({"n": 1}, topic="a")
        with pytest.raises(NothingCame, match=r"only <Collected message \{'n': 1\} to a> of a, b/\*"):
            await told.wait(2, timeout=0.01)


# ---- strict ----


async def test_a_handler_that_fails_fails_the_test_where_it_emits() -> None:
    async with hub_for_test(listeners=SHOP) as hub:
        for name in ("order.created", "order.packed"):
            with pytest.raises(ExceptionGroup, match="event handlers failed") as failed:
                await hub.emit(name, {})
            (error,) = failed.value.exceptions
            assert isinstance(error, KeyError)
            assert name in error.__notes__[0]
            assert "shop_of_tests.Shop" in error.__notes__[0]


async def test_a_handler_that_fails_fails_the_test_at_its_end() -> None:
    with pytest.raises(ExceptionGroup, match="event handlers failed"):
        async with hub_for_test(listeners=SHOP) as hub:
            hub.bus.emit("order.packed", {})


async def test_a_handler_that_fails_ends_a_wait() -> None:
    async with hub_for_test(listeners=SHOP) as hub:
        told = hub.collect()
        asyncio.get_running_loop().call_soon(hub.bus.emit, "order.packed", {})
        with pytest.raises(ExceptionGroup, match="event handlers failed"):
            await told.next(timeout=60)


async def test_the_error_of_the_test_itself_comes_first() -> None:
    async def test() -> None:
        async with hub_for_test(listeners=SHOP) as hub:
            hub.bus.emit("order.created", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await test()


async def test_a_hub_that_is_not_strict_does_as_in_production(caplog: pytest.LogCaptureFixture) -> None:
    async with hub_for_test(listeners=SHOP, strict=False) as hub:
        await hub.emit("order.created", {})
    assert "failed at event order.created" in caplog.text


async def test_a_handler_that_never_ends_is_cancelled_at_the_end_and_has_not_failed() -> None:
    async with hub_for_test(listeners=SHOP) as hub:
        hub.bus.emit("wait")
        with pytest.raises(TimeoutError):
            await hub.settled(timeout=0.01)


async def test_what_is_no_listener_is_an_error_at_once() -> None:
    with pytest.raises(InvalidListener):
        async with hub_for_test(listeners=["no_such_module"]):
            pass


# ---- time ----


async def test_the_clock_lets_keys_and_notifications_expire() -> None:
    async with hub_for_test(retain_age=3_600) as hub:
        first = await hub.notifications.send_notification(1, topic="a", key="k")
        assert await hub.notifications.send_notification(1, topic="a", key="k") == first
        await hub.advance(301)
        second = await hub.notifications.send_notification(1, topic="a", key="k")
        assert second != first
        assert hub.hub.log.bounds().kept == 2
        await hub.advance(3_600)
        assert hub.hub.log.bounds().kept == 0


async def test_the_clock_lets_tokens_and_tickets_expire() -> None:
    text = token("tom", seconds=600, hub={"publish": ["a"], "subscribe": ["a"]})
    async with hub_for_test(served=True, jwt_secret=SECRET) as hub, AsyncHubClient(hub.url, token=text) as client:
        await client.publish(1, topic="a")
        await hub.advance(700)
        with pytest.raises(NotAuthenticated, match="expired"):
            await client.publish(1, topic="a")


def test_a_clock_goes_with_that_of_the_machine_and_never_back() -> None:
    clock = Clock()
    clock.advance(1_000)
    assert time.time() + 990 < clock() < time.time() + 1_010
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)


# ---- over HTTP, and in an application ----


async def test_a_hub_that_is_served_has_clients() -> None:
    async with hub_for_test(listeners=SHOP, served=True) as hub, AsyncHubClient(hub.url) as client:
        async with client.listen("orders") as stream:
            await hub.emit("order.created", {"id": 7})
            received = await anext(stream)
            assert isinstance(received, Received)
            assert (received.data, received.type) == (7, "order.created")
        told = hub.collect("a")
        await client.publish("x", topic="a")
        assert (await told.next()).data == "x"


async def test_handlers_of_an_application_are_tested_with_its_hub() -> None:
    async def order(request: web.Request) -> web.Response:
        await request.app[NOTIFICATIONS].send_notification("ordered", topic="orders")
        return web.Response()

    app = web.Application()
    app.router.add_post("/order", order)
    async with hub_for_test(app=app, served=True) as hub:
        told = hub.collect("orders")
        status = await asyncio.to_thread(_post, f"{hub.url}/order")
    assert (status, told.data) == (200, ["ordered"])


def _post(url: str) -> int:
    import httpx2

    return httpx2.post(url).status_code


# ---- handlers alone ----


class Trail:
    def __init__(self, notifications: NotificationService | None = None) -> None:
        self.heard: list[Event] = []

    @on_event("order.**")
    def note(self, event: Event) -> None:
        self.heard.append(event)


def test_an_event_for_a_handler_that_is_called_directly() -> None:
    trail = Trail()
    trail.note(make_event("order.created", {"id": 7}))
    trail.note(make_event("order.paid", id="one", at=5.0))
    assert [(each.name, each.payload) for each in trail.heard] == [("order.created", {"id": 7}), ("order.paid", None)]
    assert (trail.heard[1].id, trail.heard[1].at) == ("one", 5.0)
    assert trail.heard[0].id != make_event("order.created").id
    with pytest.raises(InvalidEventName):
        make_event("order.*")


# ---- pytest ----


CONFTEST = """
import pytest

pytest_plugins = ["hub.testing.plugin"]

@pytest.fixture
def hub_options():
    return {"listeners": ["shop_of_tests"]}
"""

TESTS = """
import pytest

@pytest.mark.asyncio
async def test_it(hub):
    told = hub.collect("orders")
    await hub.emit("order.created", {"id": 7})
    assert told.data == [7]

@pytest.mark.asyncio
async def test_that_fails(hub):
    hub.bus.emit("order.created", {})
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "strict"])
async def test_the_fixture_works_in_both_modes_of_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_shop.py").write_text(TESTS)
    settings = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"),
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        said = (await process.communicate())[0].decode()
    assert "2 passed, 1 error" in said, said
    assert "KeyError: 'id'" in said
