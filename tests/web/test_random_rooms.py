"""Random joins, leaves, publishes, streams, cuts, resumes and restarts, on a real port, against a model of rooms.

Nobody ever gets a notification of a room that is not inside a present membership, and nobody misses one that is.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from hub import Identity
from hub.connections.client_stream import ClientStream
from hub.errors import Forbidden
from hub.log.receipt import Receipt
from tests.chance import seeds
from tests.web.client import LINES, PATIENCE, Client, StreamEnded
from tests.web.conftest import Serve
from tests.web.rooms_model import GRANTED, PUBLIC, ROOMS, USERS, Asked, Model, Sent
from tests.web.server import Server

STEPS = 90
ROOT = {"X-User": "root"}


@pytest.fixture(params=["memory", "file", "memory beside a file"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    file = None if request.param == "memory" else tmp_path / "hub.db"
    return Home(file, in_memory=request.param != "file")


@pytest.mark.slow
@pytest.mark.parametrize("asks", [False, True], ids=["", "the application says who belongs"])
@pytest.mark.parametrize("seed", seeds(1, 6))
async def test_everybody_gets_what_present_memberships_cover(
    serve: Serve, home: Home, seed: int, *, asks: bool
) -> None:
    walk = Walk(random.Random(f"{seed} {asks}"), serve, home, asks=asks)
    await walk.begin()
    moves = [*walk.moves, *walk.chance.choices(list(walk.moves), list(walk.moves.values()), k=STEPS)]
    walk.chance.shuffle(moves)
    for move in moves:
        walk.steps.append(move.__name__)
        await move()
    await walk.end()
    assert walk.seen > 20


@dataclass
class Home:
    """Where the hub keeps what it has.

    Attributes:
        file: that of the log, beside which the state is; None: neither is kept.
        in_memory: the log is, and only the state is kept, if there is a file.
    """

    file: Path | None
    in_memory: bool

    @property
    def settings(self) -> dict[str, Any]:
        log = "memory://" if self.in_memory else f"sqlite:///{self.file}"
        return {"log": log, **({} if self.file is None else {"state": self.file.with_suffix(".state.db")})}


@dataclass(eq=False)
class Reading:
    """One open stream, and what its client has got.

    Attributes:
        asked: what it has asked for, as it is now.
        wanted: what it has to get, by name.
        waiting: what it may get still, though it left the room: each with how often the client has to be told of the
            loss of a topic before it may not come any more.
        exact: how often that has to be is known.
        told: the topics that the client knows of.
        losses: how often the client was told of the loss of each topic.
    """

    asked: Asked
    client: Client
    wanted: dict[str, Sent] = field(default_factory=dict)
    waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    exact: bool = True
    told: set[str] = field(default_factory=set)
    losses: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    got: set[str] = field(default_factory=set)
    newest: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    ended: str = ""

    @property
    def id(self) -> str:
        return str(self.client.opened.json()["connection"])

    @property
    def cursor(self) -> str:
        return self.client.decoder.last_event_id


class Walk:
    """One random walk."""

    def __init__(self, chance: random.Random, serve: Serve, home: Home, *, asks: bool) -> None:
        self.chance, self.serve, self.home, self.asks = chance, serve, home, asks
        self.model = Model()
        self.everything: dict[str, Sent] = {}
        self.database: dict[str, dict[str, bool]] = {user: {} for user in USERS}
        self.open: list[Reading] = []
        self.racing: list[Reading] | None = None  # streams that open while other things happen
        self.unconfirmed: list[tuple[Sent, Receipt]] = []
        self.cursors: list[str] = []
        self.backup: tuple[str, int] | None = None
        self.ends: dict[str, int] = {}  # of earlier epochs that the log knows
        self.number = self.seen = 0
        self.steps: list[str] = []

    @property
    def moves(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What may happen, and how often it does."""
        return {
            self.send: 22,
            self.send_and_go_on: 16,
            self.join: 14,
            self.leave: 10,
            self.publish: 8,
            self.read: 16,
            self.race: 14,
            self.cut: 12,
            self.finish: 8,
            self.look_back: 8,
            self.ask_for_members: 4,
            self.join_with_a_stream: 8,
            self.leave_with_a_stream: 5,
            self.change_topics: 8,
            self.restart: 2,
            **({self.change_database: 8} if self.asks else {}),
            **({} if self.home.in_memory else {self.go_back_to_a_backup: 2, self.make_a_backup: 3}),
        }

    # ---- the hub ----

    async def begin(self) -> None:
        async def login(request: web.Request) -> Identity | None:
            user = request.headers.get("X-User", "")
            if user == "root":
                return Identity(user=user, admin=True)
            return Identity(user=user, subscribe=GRANTED[user]) if user in USERS else None

        async def rooms_of(identity: Identity) -> list[tuple[str, bool]]:
            return list(self.database.get(identity.user, {}).items())

        hooks = {"authenticate": login, **({"rooms_of": rooms_of} if self.asks else {})}
        self.server: Server = await self.serve(
            setup={**hooks, "routes": None},
            **self.home.settings,
            heartbeat=0.2,
            anonymous_subscribe=[PUBLIC],
        )

    @property
    def epoch(self) -> str:
        return self.server.hub.log.epoch

    def place_of(self, id: str) -> int:
        """Return the offset beyond which everything follows that is kept, for a client that comes back with *id*."""
        epoch, offset = id.rpartition("-")[0], offset_of(id)
        return offset if epoch == self.epoch or offset <= self.ends.get(epoch, 0) else 0

    async def stop(self) -> None:
        """Stop the hub; the clients read their streams to the end."""
        await self.confirmed()
        await self.server.aclose_server()
        for reading in self.open:
            await self.read_to_its_end(reading)
            self.check_cursor(reading)

    async def restart(self) -> None:
        """Stop the hub and start it again; most clients come back."""
        await self.stop()
        epoch = self.epoch
        if self.home.file is None:
            self.model.members.clear()
        if self.home.in_memory:
            self.model.rewind(0)
            self.backup, self.ends = None, {}
        await self.begin()
        assert (self.epoch == epoch) is not self.home.in_memory
        await self.come_back()

    async def make_a_backup(self) -> None:
        await self.stop()
        assert self.home.file is not None
        shutil.copy2(self.home.file, self.home.file.with_suffix(".backup"))
        self.backup = self.epoch, len(self.model.history)
        await self.begin()
        await self.come_back()

    async def go_back_to_a_backup(self) -> None:
        """Start the hub with the log as it was, and the state as it is."""
        if self.backup is None:
            return
        await self.stop()
        assert self.home.file is not None
        (epoch, kept), self.backup = self.backup, None
        assert epoch == self.epoch
        shutil.copy2(self.home.file.with_suffix(".backup"), self.home.file)
        last = self.model.history[kept - 1].offset if kept else 0
        lost = len(self.model.history) - kept
        self.model.rewind(kept)
        await self.begin()
        assert self.epoch != epoch or not lost
        self.ends = {each: min(end, last) for each, end in self.ends.items()} | {epoch: last}
        await self.come_back()

    async def come_back(self) -> None:
        readings, self.open = self.open, []
        for reading in readings:
            if self.chance.random() < 0.8:
                await self.open_again(reading)

    async def end(self) -> None:
        while self.open:
            await self.finish()
        await self.ask_for_members()

    # ---- what is sent ----

    def post(self) -> Receipt:
        """Send one, and do not wait for its confirmation."""
        self.number += 1
        topics = self.chance.sample([PUBLIC, *(f"room/{room}" for room in ROOMS)], self.chance.choice([1, 1, 1, 2, 3]))
        private = self.chance.random() < 0.3
        sent = Sent(f"n{self.number}", tuple(topics), private, len(self.model.history))
        self.model.history.append(sent)
        self.everything[sent.name] = sent
        self.steps.append(f"  {sent.name} to {topics}{' privately' if private else ''}")
        receipt = self.server.hub.notifications.send_notification(sent.name, topics=topics, private=private)
        self.unconfirmed.append((sent, receipt))
        for reading in self.open:
            if self.model.through(reading.asked, sent):
                reading.wanted[sent.name] = sent
        return receipt

    async def confirmed(self) -> None:
        """Wait until everything that was sent is confirmed."""
        waiting, self.unconfirmed = self.unconfirmed, []
        for sent, receipt in waiting:
            position = await receipt
            sent.offset = position.offset
            self.cursors.append(str(position))

    async def send(self) -> None:
        for _ in range(self.chance.choice([1, 1, 2, 8])):
            self.post()
        await self.confirmed()

    async def send_and_go_on(self) -> None:
        """Send some that are confirmed while something else happens."""
        for _ in range(self.chance.choice([1, 2, 4])):
            self.post()

    async def publish(self) -> None:
        """Let a user publish to a room, which a member may who has that right."""
        user, room = self.somebody()
        member = self.model.members.get((room, user))
        await self.confirmed()
        self.number += 1
        sent = Sent(f"n{self.number}", (f"room/{room}",), self.chance.random() < 0.3, len(self.model.history))
        draft = {"topic": sent.topics[0], "data": sent.name, "private": sent.private}
        answer = await self.server.post("/notifications/publish", draft, X_User=user)
        assert answer.status == (201 if member is not None and member.publish else 403)
        if answer.status == 201:
            self.model.history.append(sent)
            self.everything[sent.name] = sent
            sent.offset = offset_of(answer.json()["id"])
            for reading in self.open:
                if self.model.through(reading.asked, sent):
                    reading.wanted[sent.name] = sent

    # ---- who belongs ----

    def somebody(self) -> tuple[str, str]:
        return self.chance.choice(USERS), self.chance.choice(ROOMS)

    async def join(self) -> None:
        await self._join(over_http=self.chance.random() < 0.5)

    async def _join(self, *, over_http: bool = False) -> None:
        user, room = self.somebody()
        publish = self.chance.random() < 0.5
        self.steps.append(f"  {user} joins {room}")
        self.model.join(user, room, publish=publish)
        if over_http:
            body = json.dumps({"publish": publish}).encode()
            headers = {**ROOT, "Content-Type": "application/json"}
            answer = await self.server.ask("PUT", member_path(room, user), headers=headers, body=body)
            assert answer.status == 204
        else:
            await self.server.hub.rooms.join(user, room, publish=publish)

    async def leave(self) -> None:
        await self._leave(over_http=self.chance.random() < 0.5)

    async def _leave(self, *, over_http: bool = False) -> None:
        user, room = self.somebody()
        was_there = (room, user) in self.model.members
        if was_there and over_http and self.chance.random() < 0.7:
            await self.confirmed()
            for reading in self.streams_of(user):
                await self.settle(reading)
        self.leaves(user, room)
        if over_http:
            assert (await self.server.ask("DELETE", member_path(room, user), headers=ROOT)).status == 204
        else:
            await self.server.hub.rooms.leave(user, room)
        if self.racing is None:
            await self.see_the_end()

    def leaves(self, user: str, room: str) -> None:
        """End a membership in the model, for all streams of the user."""
        topic = f"room/{room}"
        if (room, user) not in self.model.members:
            return
        self.steps.append(f"  {user} leaves {room}")
        streams = self.streams_of(user)
        had = [reading for reading in streams if topic in self.model.topics(reading.asked)]
        self.model.leave(user, room)
        for reading in streams:
            reading.asked.without.discard(topic)
            if topic not in GRANTED[user]:
                reading.asked.named.discard(topic)
        self.loses(had, topic)

    def loses(self, readings: list[Reading], topic: str) -> None:
        """What *readings* have not got yet, and see no more, may come until they are told that *topic* is lost."""
        for reading in readings:
            reading.left[topic] = reading.left.get(topic, 0) + 1
            for name, sent in list(reading.wanted.items()):
                if name not in reading.got and not self.model.through(reading.asked, sent):
                    del reading.wanted[name]
                    reading.waiting[name] = {
                        each: reading.left.get(each, 0) for each in sent.topics if each in reading.told | {topic}
                    }

    async def see_the_end(self) -> None:
        """Read to their ends the streams that have no topic left."""
        for reading in list(self.open):
            if not reading.asked.follow and not self.model.topics(reading.asked):
                self.open.remove(reading)
                await self.read_to_its_end(reading)
                assert reading.ended == "revoked"
                self.check_cursor(reading)

    def streams_of(self, user: str) -> list[Reading]:
        return [reading for reading in self.open if reading.asked.user == user]

    async def change_database(self) -> None:
        """Let the application's own database change, and a stream begin, for which it is asked."""
        user = self.chance.choice(USERS)
        rooms = self.chance.sample(ROOMS, self.chance.randint(0, 2))
        self.database[user] = {room: self.chance.random() < 0.5 for room in rooms}
        await self.confirmed()
        await self._read(Asked(user, follow=True, named={PUBLIC}), "")

    def load(self, user: str) -> None:
        """Do in the model what the answer of the application does when a stream begins."""
        if self.asks:
            for room, publish in self.database[user].items():
                there = self.model.members.get((room, user))
                if there is None or there.loaded:
                    self.model.join(user, room, publish=publish, loaded=True)
            for room in self.model.rooms_of(user):
                if self.model.members[room, user].loaded and room not in self.database[user]:
                    self.leaves(user, room)

    async def ask_for_members(self) -> None:
        for user in USERS:
            there = await self.server.hub.rooms.rooms_of(user)
            assert [each.room for each in there] == self.model.rooms_of(user)
        for room in ROOMS:
            answer = await self.server.ask("GET", f"/notifications/rooms/{room}/members", headers=ROOT)
            assert {each["id"]: each["publish"] for each in answer.json()["members"]} == {
                user: member.publish for (of, user), member in self.model.members.items() if of == room
            }

    # ---- streams that join by themselves ----

    def hub_end(self, reading: Reading) -> ClientStream:
        stream = self.server.hub.connections.get(reading.id)
        assert stream is not None
        return stream

    async def join_with_a_stream(self) -> None:
        if self.open:
            reading, room = self.chance.choice(self.open), self.chance.choice(ROOMS)
            topic = f"room/{room}"
            if topic not in reading.asked.without:
                self.steps.append(f"  {reading.id} joins {room}")
                reading.asked.own.setdefault(topic, len(self.model.history))
                await self.server.hub.rooms.join(self.hub_end(reading), room)

    async def leave_with_a_stream(self) -> None:
        reading = self.chance.choice([each for each in self.open if each.asked.own] or [None])
        if reading is not None:
            topic = self.chance.choice(sorted(reading.asked.own))
            del reading.asked.own[topic]
            self.steps.append(f"  {reading.id} leaves {topic}")
            self.loses([reading], topic)
            await self.server.hub.rooms.leave(self.hub_end(reading), topic.removeprefix("room/"))
            await self.see_the_end()

    # ---- what is read ----

    async def read(self) -> None:
        user = self.chance.choice(USERS)
        follow = self.chance.random() < 0.6
        named = self.chance.sample([PUBLIC, *(f"room/{room}" for room in ROOMS)], self.chance.randint(0, 2))
        since = self.chance.choice(["", "earliest", "latest", *self.cursors[-12:], *self.cursors[:3]])
        await self._read(Asked(user, follow, set(named) if named or follow else {PUBLIC}), since)

    async def _read(self, asked: Asked, since: str) -> None:
        """Open a stream that begins *since* an id."""
        if since == "latest":
            await self.confirmed()
        self.load(asked.user)
        client = await self.server.client()
        await self.request(client, asked, since)
        refused = next((each for each in sorted(asked.named) if not self.model.may_name(asked.user, each)), None)
        status = await client.head()
        if refused is not None:
            assert status == 403
            await client.aclose()
            return
        assert status == 200
        client.opened = await client.next("hub.open")
        await self.confirmed()
        reading = Reading(asked, client, told=set(client.opened.json()["topics"]))
        assert reading.told == self.model.topics(asked)
        self.steps.append(f"  {asked} opens {reading.id} since {since}")
        self.expect(reading, since)
        self.open.append(reading)

    async def request(self, client: Client, asked: Asked, since: str) -> None:
        """Ask for a stream, of events or of lines, that begins *since* an id."""
        client.lines = self.chance.random() < 0.3
        headers = {"X-User": asked.user, **({"Last-Event-ID": since} if since else {})}
        headers |= {"Accept": LINES} if client.lines else {}
        await client.request("GET", f"/notifications/subscribe?{query_of(asked)}", headers=headers)

    def expect(self, reading: Reading, since: str) -> None:
        """Say what a stream that begins *since* an id has to get."""
        after = offset_of(reading.client.opened.id)
        if since == "latest":
            reading.wanted = {each.name: each for each in self.model.newest(reading.asked)}
            reading.newest = set(reading.wanted)
            return
        if since:
            after = self.place_of(since)
        reading.wanted = {each.name: each for each in self.model.following(reading.asked, after)}

    async def open_again(self, reading: Reading) -> None:
        """Let the client of a stream that has ended come back as an `EventSource` does: with the same URL."""
        asked = reading.asked
        again = Asked(asked.user, asked.follow, {each for each in asked.named if self.model.may_name(asked.user, each)})
        if again.named or again.follow:
            await self._read(again, reading.cursor)

    async def race(self) -> None:
        """Let many things happen at once; then each stream gets what the outcome says, and nobody else gets more."""
        former = len(self.model.former)
        names = [self.burst, self._join, self._join, self._leave, self.burst, self._leave]
        begun: list[tuple[Reading, str]] = []
        opening = [] if self.asks else [self.open_in_a_race(begun) for _ in range(2)]
        moves = [move() for move in self.chance.sample(names, 5)] + opening
        self.chance.shuffle(moves)
        self.racing = []
        await asyncio.gather(*moves)
        self.racing = None
        await self.confirmed()
        for reading, since in begun:
            self.expect(reading, since)
            after = offset_of(reading.client.opened.id)
            for name, sent in list(reading.wanted.items()):  # by a grant, but of a room that it follows since a join
                if self.model.before_joining(reading.asked, sent):
                    reading.waiting[name] = {}
                    del reading.wanted[name]
            for each in self.model.history:
                if each.offset > after and self.model.once_seen(reading.asked, each, former):
                    reading.waiting.setdefault(each.name, {})
            self.open.append(reading)
        await self.see_the_end()

    async def burst(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            self.post()
            if self.chance.random() < 0.5:
                await asyncio.sleep(0)

    async def open_in_a_race(self, begun: list[tuple[Reading, str]]) -> None:
        named = {PUBLIC} if self.chance.random() < 0.5 else set()
        asked = Asked(self.chance.choice(USERS), follow=True, named=named)
        since = self.chance.choice(["", "earliest", *self.cursors[-9:]])
        client = await self.server.client()
        await self.request(client, asked, since)
        assert await client.head() == 200
        client.opened = await client.next("hub.open")
        begun.append((Reading(asked, client, exact=False, told=set(client.opened.json()["topics"])), since))

    async def change_topics(self) -> None:
        """Add topics to an open stream, or remove some."""
        if not self.open:
            return
        await self.confirmed()
        reading, hub = self.chance.choice(self.open), self.server.hub
        asked, present = reading.asked, self.model.topics(reading.asked)
        topic = self.chance.choice([PUBLIC, *(f"room/{room}" for room in ROOMS)])
        if topic in asked.own:
            return
        if topic in present:
            if present == {topic} and not asked.follow:
                return
            await self.settle(reading)
            self.steps.append(f"  {reading.id} removes {topic}")
            await hub.change_topics(reading.id, remove=[topic])
            asked.named.discard(topic)
            if asked.follow and (topic.removeprefix("room/"), asked.user) in self.model.members:
                asked.without.add(topic)
            reading.left[topic] = reading.left.get(topic, 0) + 1
            return
        after = self.chance.choice([None, "earliest", *self.cursors[-9:], *self.cursors[:2]])
        self.steps.append(f"  {reading.id} adds {topic} after {after}")
        adding = hub.change_topics(reading.id, add=[topic], after=after)
        if not self.model.may_name(asked.user, topic):
            with pytest.raises(Forbidden):
                await adding
            return
        before = Asked(asked.user, asked.follow, {*asked.named}, {**asked.own}, {*asked.without})
        await adding
        asked.named.add(topic)
        asked.without.discard(topic)
        if after is not None:
            # What the stream had by topics that it has no more, or as the newest of a topic, comes again.
            for name in reading.got | reading.waiting.keys():
                if not self.model.through(before, self.everything[name]) or name in reading.newest:
                    reading.again.add(name)
            begin = self.place_of(after)
            alone = Asked(asked.user, follow=False, named={topic})
            for sent in self.model.following(alone, begin):
                if sent.name not in reading.wanted:
                    reading.wanted[sent.name] = sent
                    reading.added.add(sent.name)

    async def look_back(self) -> None:
        """Read the history, page by page."""
        await self.confirmed()
        asked = Asked(
            self.chance.choice(USERS),
            follow=False,
            named=set(self.chance.sample([PUBLIC, "room/a", "room/b", "room/c"], 2)),
        )
        after = self.chance.choice(["earliest", *self.cursors])
        begin = self.place_of(after)
        allowed = all(self.model.may_name(asked.user, topic) for topic in asked.named)
        limit = self.chance.choice([2, 1_000])
        found: list[tuple[str, list[str]]] = []
        while after:
            query = urlencode([*(("topic", each) for each in sorted(asked.named)), ("after", after), ("limit", limit)])
            answer = await self.server.ask("GET", f"/notifications/history?{query}", headers={"X-User": asked.user})
            assert answer.status == (200 if allowed else 403)
            if not allowed:
                return
            page = answer.json()
            found += [(each["data"], each["topics"]) for each in page["notifications"]]
            after = page["next"]
        assert found == [(each.name, self.model.shown(asked, each)) for each in self.model.following(asked, begin)]

    # ---- what has come ----

    def take(self, reading: Reading) -> None:
        """Look at what has arrived."""
        for event in reading.client.arrived():
            if event.type == "message":
                self.take_notification(reading, event.data)
            elif event.type == "hub.topics":
                topics = set(event.json()["topics"])
                for topic in reading.told - topics:
                    reading.losses[topic] = reading.losses.get(topic, 0) + 1
                reading.told = topics
            elif event.type == "hub.close":
                reading.ended = event.json()["reason"]
            else:
                assert event.type == "hub.gap", event

    def story(self, reading: Reading, what: str, *sent: Sent) -> str:
        """Return what a failure is about."""
        facts = [f"{reading.id} {what}: {sent}", str(reading.asked), f"told {reading.told}", str(self.model.members)]
        return "\n".join([*self.steps, *facts])

    def take_notification(self, reading: Reading, name: str) -> None:
        self.seen += 1
        sent = self.everything[name]
        if name in reading.got:
            assert name in reading.again, self.story(reading, "comes twice", sent)
            reading.again.remove(name)
            return
        reading.got.add(name)
        assert reading.told & set(sent.topics), self.story(reading, "asks for no topic of", sent)
        if name in reading.wanted:
            return
        assert name in reading.waiting, self.story(reading, "nothing covers", sent)
        if reading.exact:
            lost = reading.waiting[name]
            gone = [topic for topic, number in lost.items() if reading.losses.get(topic, 0) >= number > 0]
            assert len(gone) < len(lost), self.story(reading, "left before", sent)

    async def read_on(self, reading: Reading, reached: Callable[[], bool]) -> None:
        """Read until something is reached."""
        self.take(reading)
        with suppress(TimeoutError, StreamEnded):
            async with asyncio.timeout(PATIENCE):
                while not reached() and await reading.client.more():
                    self.take(reading)
        self.take(reading)
        assert reached(), self.story(reading, "misses", *missing(reading))

    async def read_to_its_end(self, reading: Reading) -> None:
        await self.read_on(reading, lambda: bool(reading.ended))

    async def settle(self, reading: Reading) -> None:
        """Read all that a stream has to get; everything is confirmed."""
        newest = self.server.hub.fanout.newest.offset
        await self.read_on(reading, lambda: offset_of(reading.cursor) >= newest and not missing(reading))

    def check_cursor(self, reading: Reading) -> None:
        """Check that the client, should it come back, misses nothing of what it has to get."""
        at = offset_of(reading.cursor)
        lost = [each for each in missing(reading) if 0 < each.offset <= at and each.name not in reading.added]
        assert not lost, self.story(reading, "would miss", *lost)

    async def cut(self) -> None:
        """Cut a stream anywhere; its client comes back with the id that it has by then."""
        if self.open:
            reading = self.open.pop(self.chance.randrange(len(self.open)))
            self.take(reading)
            if missing(reading):
                await reading.client.more()
                self.take(reading)
            await self.confirmed()
            self.check_cursor(reading)
            reading.client.reset()
            await self.open_again(reading)

    async def finish(self) -> None:
        """Compare all that a stream has got, up to the heartbeat that says that there is nothing more."""
        if self.open:
            await self.confirmed()
            reading = self.open.pop(self.chance.randrange(len(self.open)))
            await self.settle(reading)
            heartbeats = len(reading.client.decoder.comments)
            await self.read_on(reading, lambda: len(reading.client.decoder.comments) > heartbeats)
            assert reading.told == self.model.topics(reading.asked), self.story(reading, "knows other topics")
            reading.client.reset()


def missing(reading: Reading) -> list[Sent]:
    """Return what a stream has to get, and has not got."""
    return [sent for name, sent in reading.wanted.items() if name not in reading.got]


def offset_of(id: str) -> int:
    return int(id.rpartition("-")[2]) if id[-1:].isdigit() else 0


def member_path(room: str, user: str) -> str:
    return f"/notifications/rooms/{room}/members/{user}"


def query_of(asked: Asked) -> str:
    return urlencode([*(("topic", topic) for topic in sorted(asked.named)), *([("rooms", 1)] if asked.follow else [])])
