"""Who is there, as open streams say it: in their bytes, on the bus, and to the application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hub.access.identity import Identity
from hub.access.visibility import EVERYTHING
from hub.connections.client_stream import CloseReason
from hub.connections.connection import Change, Connection, PresenceView, Subscription
from hub.connections.holders import NOBODY, Holder
from hub.errors import InvalidTopic
from hub.events.bus import EventBus
from hub.events.event import Event
from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.presence.lifecycle import Lifecycle
from hub.presence.presence import GRACE
from hub.presence.service import MOST_INFO, PresenceService
from hub.presence.watchers import GATHER
from tests.connections.test_connection import Client, quiet
from tests.connections.test_connection import Desk as Streams
from tests.fakes import FakeTransport, SlowLog
from tests.presence.clock import Clock


class Desk(Streams):
    """A hub without sockets that knows who is there. Its clock is moved by hand."""

    def __init__(self, log: Log | None = None, **options: Any) -> None:
        super().__init__(log, **options)
        self.clock = Clock()
        self.bus = EventBus()
        self.bus.open()
        self.heard: list[Event] = []
        self.presence = PresenceService(
            self.streams,
            Lifecycle(self.bus, self.fanout),
            most_bytes=1 << 18,
            now=self.clock,
            clock=lambda: 1_700_000_000 + self.clock.now,
        )

    def join(
        self,
        user: str | None,
        *topics: str,
        view: PresenceView = PresenceView.NOTHING,
        last_event_id: str | None = None,
        info: Mapping[str, Any] | None = None,
        **transport: Any,
    ) -> Client:
        holder = NOBODY if user is None else Holder(user, identity=Identity(user=user, info=info or {}))
        subscription = Subscription(topics or ("t",), last_event_id, presence=view)
        connection = Connection(subscription, self.wiring, holder=holder)
        client = Client(connection, FakeTransport(connection, **transport))
        connection.connection_made(client.transport)
        return client

    def wait(self, seconds: float) -> None:
        """Let time pass, as the timer of the loop does."""
        end = self.clock.now + seconds
        while self.presence._timer is not None and self.presence._waking <= end:
            self.clock.now = max(self.presence._waking, self.clock.now)
            self.presence._timer.cancel()
            self.presence._wake()
        self.clock.now = end

    def hear(self, *names: str) -> None:
        self.bus.on(names, self.heard.append)

    async def events(self) -> list[tuple[str, Any]]:
        """Return what was heard since the last call."""
        await quiet()
        heard = [(event.name, event.payload) for event in self.heard]
        self.heard.clear()
        return heard


def told(client: Client) -> list[tuple[str, Any]]:
    """Return what *client* was told of who is there."""
    return [
        (block.type.removeprefix("hub."), json.loads(block.data or ""))
        for block in client.blocks
        if block.type in {"hub.presence", "hub.join", "hub.leave"}
    ]


def there(desk: Desk, topic: str) -> list[str]:
    return [user.id for user in desk.presence.users(topic)]


# ---- streams are counted ----


async def test_users_are_on_the_topics_of_their_streams_and_unknown_readers_are_not():
    desk = Desk()
    ann = [desk.join("ann", "a", "b/*"), desk.join("ann", "a")]
    desk.join("bob", "a", "c", info={"name": "Bob"})
    desk.join(None, "a")
    assert (there(desk, "a"), there(desk, "c"), desk.presence.count("a")) == (["ann", "bob"], ["bob"], 2)
    assert desk.presence.users("c")[0].info == {"name": "Bob"}
    assert (desk.presence.is_online("ann"), desk.presence.is_online("eve"), desk.presence.online) == (True, False, 2)
    assert [facts.id for facts in desk.presence.connections_of("ann")] == [each.connection.id for each in ann]
    for client in ann:
        client.transport.lose()
    assert desk.presence.connections_of("ann") == []
    assert there(desk, "a") == ["ann", "bob"]
    desk.wait(GRACE)
    assert (there(desk, "a"), desk.presence.is_online("ann")) == (["bob"], False)


async def test_a_stream_that_is_refused_is_nobody():
    desk = Desk()
    desk.streams.per_user = 1
    desk.hear("connection.*", "user.*")
    for _ in range(2):
        desk.join("ann", "a")
    desk.streams.draining = True
    eve = desk.join("eve", "a")
    assert (there(desk, "a"), desk.presence.is_online("eve")) == (["ann"], False)
    eve.transport.lose()
    desk.wait(GRACE)
    assert [name for name, _ in await desk.events()] == ["connection.opened", "user.online"][::-1]


async def test_a_pattern_is_no_topic_that_somebody_can_be_on():
    desk = Desk()
    for ask in (desk.presence.count, desk.presence.users):
        with pytest.raises(InvalidTopic, match="is a pattern"):
            ask("a/*")


async def test_topics_that_change_on_an_open_stream_change_who_is_there():
    desk = Desk()
    ann = desk.join("ann", "a", "b", view=PresenceView.NAMES)
    desk.wait(GATHER)
    ann.transport.received.clear()
    ann.connection.change(Change(frozenset({"b", "c"}), EVERYTHING, frozenset({"c"})))
    desk.wait(GATHER)
    assert [block.type for block in ann.blocks] == ["hub.topics", "hub.presence"]
    assert [(facts["topic"], facts["count"]) for _, facts in told(ann)] == [("c", 1)]
    desk.wait(GRACE)
    assert (there(desk, "a"), there(desk, "b"), there(desk, "c")) == ([], ["ann"], ["ann"])
    ann.transport.lose()
    desk.wait(GRACE)
    assert (desk.presence._presence._places, len(desk.presence._watchers)) == ({}, 0)


async def test_what_can_not_be_told_of_a_user_is_left_out(caplog: pytest.LogCaptureFixture):
    desk = Desk()
    for user, info in (("ann", {"x": object()}), ("bob", {"x": "y" * MOST_INFO}), ("eve", {"x": "\ud800"})):
        desk.join(user, "a", info=info)
    reader = desk.join(None, "a", view=PresenceView.NAMES)
    desk.wait(GATHER)
    ((_, facts),) = told(reader)
    assert [(user["id"], user["info"]) for user in facts["users"]] == [("ann", {}), ("bob", {}), ("eve", {})]
    assert len(caplog.records) == 3


# ---- streams are told ----


async def test_a_stream_is_told_who_is_there_after_its_beginning_itself_included():
    desk = Desk()
    ann = desk.join("ann", "a", view=PresenceView.NAMES)
    plain = desk.join("bob", "a")
    desk.wait(GATHER)
    assert [block.type for block in ann.blocks] == ["hub.open", "hub.presence"]
    ((_, facts),) = told(ann)
    assert [user["id"] for user in facts["users"]] == ["ann", "bob"]
    desk.join("eve", "a")
    desk.wait(GATHER)
    plain.transport.lose()
    desk.wait(GRACE + GATHER)
    assert [(what, facts["user"]) for what, facts in told(ann)[1:]] == [("join", "eve"), ("leave", "bob")]
    assert told(plain) == []
    assert {block.id for block in ann.blocks[1:]} == {""}, "nothing moves the cursor"


async def test_a_reader_without_the_right_is_told_numbers():
    desk = Desk()
    desk.join("ann", "a")
    reader = desk.join(None, "a", view=PresenceView.NUMBERS)
    desk.wait(GATHER)
    assert told(reader) == [("presence", {"topic": "a", "count": 1})]


async def test_a_stream_that_replays_is_told_when_it_is_live():
    log = SlowLog(MemoryLog(epoch="e"))
    desk = Desk(log)
    for _ in range(3):
        desk.send("a")
    ann = desk.join("ann", "a", view=PresenceView.NAMES, last_event_id="e-1")
    desk.wait(GATHER)
    assert told(ann) == []
    while log.pending:
        log.answer()
        await quiet()
    assert ann.offsets == [2, 3]
    desk.wait(GATHER)
    assert [block.type for block in ann.blocks][-1] == "hub.presence"


async def test_a_stream_whose_reader_is_slow_keeps_no_queue_of_who_comes_and_goes():
    desk = Desk()
    ann = desk.join("ann", "a", view=PresenceView.NAMES)
    desk.wait(GATHER)
    ann.transport.capacity, ann.transport.high = 0, 10
    desk.send("a", data="x" * 100)
    await quiet()
    assert ann.transport.paused
    unsent = len(ann.transport.unsent)
    for user in ("bob", "eve"):
        desk.join(user, "a")
        desk.wait(GATHER)
    assert (len(ann.transport.unsent), ann.connection._waiting) == (unsent, 0)
    ann.transport.read(10**6)
    await quiet()
    desk.wait(GATHER)
    assert [(what, facts["count"]) for what, facts in told(ann)] == [("presence", 1), ("presence", 3)]


async def test_being_told_does_not_put_the_heartbeat_off():
    desk = Desk()
    ann = desk.join("ann", "a", view=PresenceView.NAMES)
    touched = ann.connection._touched
    desk.wait(GATHER)
    assert told(ann)
    assert ann.connection._touched == touched


async def test_a_stream_that_has_left_is_told_nothing_more():
    desk = Desk()
    ann = desk.join("ann", "a", view=PresenceView.NAMES, capacity=0, high=1)
    desk.wait(GATHER)
    ann.connection.end(CloseReason.REVOKED, 1_000)
    desk.join("bob", "a")
    desk.wait(GATHER)
    ann.transport.lose()
    desk.wait(1)
    assert len(desk.presence._watchers) == 0


# ---- the bus ----


async def test_streams_are_events_with_how_they_ended():
    desk = Desk()
    desk.hear("connection.*")
    ann = desk.join("ann", "a")
    desk.send("a")
    await quiet()
    ann.transport.lose()
    about = {
        "connection": ann.connection.id,
        "kind": "subscription",
        "user": "ann",
        "address": "",
        "topics": ["a"],
    }
    (opened, closed) = await desk.events()
    assert opened == ("connection.opened", about)
    duration = closed[1].pop("duration")
    assert 0 <= duration < 60
    assert closed == ("connection.closed", about | {"reason": "client", "delivered": 1, "dropped": 0})


async def test_a_user_comes_online_with_the_first_tab_and_goes_offline_after_the_last():
    desk = Desk()
    desk.hear("user.**")
    tabs = [desk.join("ann", "a", info={"name": "Ann"}) for _ in range(3)]
    assert await desk.events() == [("user.online", {"user": "ann", "info": {"name": "Ann"}})]
    for tab in tabs:
        tab.transport.lose()
    desk.wait(GRACE / 2)
    again = desk.join("ann", "a")
    desk.wait(GRACE * 2)
    assert await desk.events() == []
    again.transport.lose()
    desk.wait(GRACE)
    assert [name for name, _ in await desk.events()] == ["user.offline"]


async def test_a_topic_is_occupied_from_the_first_stream_to_the_last_of_any_reader():
    desk = Desk()
    desk.hear("topic.*")
    first, second = desk.join(None, "a", "b/*"), desk.join("ann", "a", "c")
    assert sorted((name, facts["topic"]) for name, facts in await desk.events()) == [
        ("topic.occupied", "a"),
        ("topic.occupied", "c"),
    ]
    first.transport.lose()
    assert await desk.events() == []
    second.transport.lose()
    assert {(name, facts["topic"]) for name, facts in await desk.events()} == {
        ("topic.vacated", "a"),
        ("topic.vacated", "c"),
    }


async def test_a_topic_whose_only_reader_is_replaced_at_once_was_occupied_all_the_time():
    desk = Desk()
    first = desk.join(None, "a")
    await quiet()
    desk.hear("topic.*")
    first.transport.lose()
    desk.join(None, "a")
    assert await desk.events() == []


async def test_what_a_handler_publishes_when_a_topic_is_occupied_reaches_the_stream_once():
    desk = Desk()
    desk.bus.on("topic.occupied", lambda event: desk.send(event.payload["topic"]))
    desk.bus.on("user.online", lambda event: desk.send("a"))
    desk.send("a")
    resumed, fresh = desk.join("ann", "a", last_event_id="e-0"), desk.join("bob", "a")
    await quiet()
    assert resumed.offsets == [1, 2, 3, 4]
    assert fresh.offsets == [2, 3, 4]


async def test_what_nobody_hears_is_not_made(monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    made: list[str] = []
    monkeypatch.setattr(desk.bus, "emit", lambda name, payload: made.append(name))
    monkeypatch.setattr(Connection, "facts", lambda self: made.append("facts"))
    desk.join("ann", "a").transport.lose()
    desk.wait(GRACE)
    await quiet()
    assert made == []


async def test_a_bus_that_is_closed_is_told_nothing():
    desk = Desk()
    desk.hear("**")
    await desk.bus.aclose()
    desk.join("ann", "a").transport.lose()
    assert await desk.events() == []


async def test_the_timer_of_the_loop_tells_in_time_and_stops(monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    loop, delays = asyncio.get_running_loop(), list[float]()

    def call_later(delay: float, call: Callable[[], object]) -> asyncio.Handle:
        delays.append(delay)
        desk.clock.now += delay
        return loop.call_soon(call)

    monkeypatch.setattr(loop, "call_later", call_later)
    ann = desk.join("ann", "a", view=PresenceView.NAMES)
    await quiet()
    assert (delays, len(told(ann))) == ([GATHER], 1)
    desk.join("bob", "a").transport.lose()
    desk.presence.stop()
    await quiet()
    assert len(told(ann)) == 1
