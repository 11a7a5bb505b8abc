"""Random rights, streams, publishes, cuts, resumes, revocations and expiries, on a real port, against a model.

Nobody ever holds a notification that the model does not allow, and nobody misses one that it does.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from aiohttp import web

from hub import Identity
from hub.access.grants import covers
from tests.chance import seeds
from tests.spec_decoder import Event
from tests.web.client import LINES, Client
from tests.web.conftest import Serve
from tests.web.rights_model import PATTERNS, TOPICS, Model, Rights, Sent, reach
from tests.web.server import Server

SECRET = "a secret of the tests, which has more than 32 bytes"
NOBODY = ""
BY_LOGIN, BY_TOKEN = ("ann", "bob"), ("a", "b")
STEPS = 100


def test_the_topics_of_the_model_are_enough_to_tell_its_patterns_apart() -> None:
    for grant in PATTERNS:
        for asked in PATTERNS:
            assert (reach(asked) <= reach(grant)) == covers(grant, asked), (grant, asked)


@pytest.fixture(params=["memory", "file"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 12))
async def test_everybody_gets_what_the_rules_allow_and_nothing_else(serve: Serve, home: str, seed: int) -> None:
    walk = Walk(random.Random(seed))
    await walk.begin(serve, home)
    moves = [*walk.moves, *walk.chance.choices(list(walk.moves), list(walk.moves.values()), k=STEPS)]
    walk.chance.shuffle(moves)
    for move in moves:
        await move()
    await walk.end()
    assert walk.seen > 100
    assert walk.refused > 10


@dataclass
class Caller:
    """Somebody who sends requests.

    Attributes:
        name: for the messages of a test that fails.
        headers: what says who it is.
        rights: those that the hub has to see in it; None: nobody known.
        refused: the code with which each request is refused; empty: the rights decide.
        expiring: the rights end so soon that a stream may not begin any more.
    """

    name: str
    headers: dict[str, str]
    rights: Rights | None
    refused: str = ""
    expiring: bool = False


@dataclass
class Reading:
    """One open stream, and what its reader has got.

    Attributes:
        caller: whose it is, with the rights it had when it began.
        asked: the topics and patterns.
        expected: returns what it has to get, in order; the model is asked when all has been sent.
    """

    caller: Caller
    asked: list[str]
    client: Client
    after: int
    first: list[Sent] = field(default_factory=list)
    got: list[Event] = field(default_factory=list)

    def expected(self, model: Model) -> list[Sent]:
        return [*self.first, *model.following(self.caller.rights, self.asked, self.after)]


class Walk:
    """One random walk.

    Users of the login may come back after a revocation, tokens may not; a token is signed once, and rights in the login
    change at any time, but not those of an open stream.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.model = Model(tuple(self.some(["news/**", "news/*", "orders/a", "**/b", "**"], 2)), ("b/a", "news"))
        self.logins: dict[str, Identity] = {}
        self.tokens: list[Caller] = []
        self.open: list[Reading] = []
        self.cursors: list[str] = []
        self.number = 0
        self.seen = self.refused = 0

    def some(self, items: list[str], most: int) -> list[str]:
        return self.chance.sample(items, self.chance.randint(1, most))

    async def begin(self, serve: Serve, home: str) -> None:
        async def login(request: web.Request) -> Identity | None:
            return self.logins.get(request.headers.get("X-User", ""))

        self.server: Server = await serve(
            setup={"authenticate": login, "routes": None},
            log=home,
            heartbeat=0.2,
            jwt_secret=SECRET,
            anonymous_subscribe=self.model.anybody_reads,
            anonymous_publish=self.model.anybody_sends,
        )
        self.logins["root"] = Identity(user="root", admin=True)
        for user in BY_LOGIN:
            self.change(user)
        for user in BY_TOKEN:
            self.sign(user)
        await self.send()

    @property
    def moves(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What may happen, and how often it does."""
        return {
            self.send: 20,
            self.publish: 20,
            self.read: 30,
            self.read_while_it_is_sent: 8,
            self.look_back: 10,
            self.cut: 12,
            self.finish: 8,
            self.revoke_user: 3,
            self.revoke_token: 3,
            self.expire: 1,
            self.give_other_rights: 5,
        }

    async def end(self) -> None:
        while self.open:
            await self.finish()

    # ---- who asks ----

    def change(self, user: str) -> None:
        """Give *user* other rights in the login of the application."""
        self.logins[user] = Identity(
            user=user, subscribe=tuple(self.some(PATTERNS, 4)), publish=tuple(self.some(PATTERNS, 3))
        )

    def sign(self, user: str, *, expired: bool = False) -> None:
        """Add a token of *user*."""
        rights = Rights(user, tuple(self.some(PATTERNS, 4)), tuple(self.some(PATTERNS, 3)))
        now = time.time()
        id = f"t{len(self.tokens)}"
        claims = {
            "sub": user,
            "jti": id,
            "iat": now,
            "exp": now - 60 if expired else now + 86_400,
            "hub": {"subscribe": rights.subscribe, "publish": rights.publish},
        }
        headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}
        self.tokens.append(Caller(id, headers, rights, "token_expired" if expired else ""))

    def caller(self) -> Caller:
        user = self.chance.choice([NOBODY, *BY_LOGIN * 2, *BY_TOKEN, "nobody known"])
        if user in BY_TOKEN:
            return self.chance.choice(self.tokens[-6:])
        return self.as_now(Caller(user, {"X-User": user} if user else {}, None))

    async def ask(self, caller: Caller, method: str, path: str, body: Any = None) -> tuple[str, Any]:
        """Return the verdict and the body of an answer."""
        headers = {**caller.headers, **({} if body is None else {"Content-Type": "application/json"})}
        data = None if body is None else json.dumps(body).encode()
        answer = await self.server.ask(method, path, headers=headers, body=data)
        return verdict(answer.status, answer.body), answer.json() if answer.body else None

    # ---- what is sent ----

    def draft(self) -> dict[str, Any]:
        self.number += 1
        return {
            "data": f"n{self.number}",
            "topics": self.some(TOPICS, 3),
            "private": self.chance.random() < 0.4,
        }

    def note(self, draft: dict[str, Any], id: str) -> None:
        offset = int(id.rpartition("-")[2])
        self.model.history.append(Sent(offset, draft["data"], tuple(draft["topics"]), draft["private"]))
        self.model.history.sort(key=lambda each: each.offset)
        self.cursors.append(id)

    async def send(self) -> None:
        """Let the application send a few."""
        drafts = [self.draft() for _ in range(self.chance.choice([1, 1, 2, 8]))]
        await self._send(drafts)

    async def _send(self, drafts: list[dict[str, Any]]) -> None:
        notifications = self.server.hub.notifications
        receipts = [
            notifications.send_notification(each["data"], topics=each["topics"], private=each["private"])
            for each in drafts
        ]
        for each, receipt in zip(drafts, receipts, strict=True):
            self.note(each, str(await receipt))

    async def publish(self) -> None:
        """Let somebody publish one or a list, which is refused as a whole if one of it is."""
        caller = self.caller()
        drafts = [self.draft() for _ in range(self.chance.choice([1, 1, 3]))]
        if caller.rights is not None and self.chance.random() < 0.7:  # what may be allowed
            own = [topic for topic in TOPICS if any(topic in reach(grant) for grant in caller.rights.publish)]
            for each in drafts:
                each["topics"] = self.some(own, min(len(own), 2)) if own else each["topics"]
        said, answer = await self.ask(
            caller, "POST", "/notifications/publish", drafts if len(drafts) > 1 else drafts[0]
        )
        refusals = [
            refusal
            for each in drafts
            if (refusal := self.model.sending(caller.rights, tuple(each["topics"]), private=each["private"])) != "201"
        ]
        allowed = [f"401 {caller.refused}"] if caller.refused else refusals or ["201"]
        assert said in allowed, (caller, drafts)
        if said != "201":
            self.refused += 1
        else:
            for each, accepted in zip(drafts, answer if len(drafts) > 1 else [answer], strict=True):
                self.note(each, accepted["id"])

    # ---- what is read ----

    async def read(self) -> None:
        caller = self.caller()
        await self._read(
            caller, self.wanted(caller), self.chance.choice(["", "earliest", "latest", *self.cursors[-9:]])
        )

    async def read_while_it_is_sent(self) -> None:
        """Open streams while the application sends: the end of the replay and the live ones join without a seam."""
        callers = [self.caller() for _ in range(3)]
        since = ["", "earliest", self.chance.choice(self.cursors)]
        drafts = [[self.draft() for _ in range(4)] for _ in range(4)]
        await asyncio.gather(
            *(self._send(each) for each in drafts),
            *(self._read(caller, self.wanted(caller), each) for caller, each in zip(callers, since, strict=True)),
        )

    def wanted(self, caller: Caller) -> list[str]:
        """Return what *caller* asks for: mostly something that it may read."""
        asked = self.some(PATTERNS, 3)
        if self.chance.random() < 0.5:
            asked = [each for each in asked if self.model.reading(caller.rights, [each]) == "200"]
            public = [*self.model.anybody_reads, *(caller.rights.subscribe if caller.rights else ())]
            asked = asked or [self.chance.choice(public)]
        return asked

    async def _read(self, caller: Caller, asked: list[str], since: str) -> None:
        said = f"401 {caller.refused}" if caller.refused else self.model.reading(caller.rights, asked)
        way = self.chance.choice(["GET", "GET", "POST", "ticket"])
        query = [("topic", topic) for topic in asked]
        headers = dict(caller.headers)
        body = None
        if way == "ticket":
            # It is bound to these topics, to others, or to whatever the user may read when the stream begins.
            only = self.chance.choice([None, asked, self.wanted(caller)])
            may = said if caller.refused else self.model.reading(caller.rights, only or [])
            may = "401" if caller.rights is None and not caller.refused else may.replace("200", "201")
            verdict, answer = await self.ask(
                caller, "POST", "/notifications/tickets", {} if only is None else {"topics": only}
            )
            assert verdict == may, (caller, only)
            if verdict != "201":
                self.refused += 1
                return
            if only is not None:
                beyond = [each for each in asked if not any(reach(each) <= reach(pattern) for pattern in only)]
                said = f"403 {beyond[0]}" if beyond else said
            query.append(("ticket", answer["ticket"]))
            headers = {}
        if way == "POST":
            body = json.dumps({"topics": asked, **({"lastEventId": since} if since else {})}).encode()
            headers["Content-Type"] = "application/json"
            query = []
        elif since and self.chance.random() < 0.5:
            headers["Last-Event-ID"] = since
        elif since:
            query.append(("lastEventId", since))
        client = await self.server.client()
        client.lines = self.chance.random() < 0.3
        if client.lines:
            headers["Accept"] = LINES
        await client.request(
            "POST" if body else "GET", f"/notifications/subscribe?{urlencode(query)}", headers=headers, body=body
        )
        answered = await begun(client)
        if caller.expiring and answered == "token_expired":
            return
        assert answered == said, (caller, asked, way)
        if said != "200":
            self.refused += 1
            return
        opened = int(client.opened.id.rpartition("-")[2])
        reading = Reading(caller, asked, client, opened)
        if since == "latest":
            reading.first = self.model.newest(caller.rights, asked)
            reading.after = self.model.history[-1].offset
        elif since == "earliest":
            reading.after = 0
        elif since:
            assert client.opened.id == since
        self.open.append(reading)

    async def look_back(self) -> None:
        """Read the history, page by page."""
        caller = self.caller()
        asked = self.wanted(caller)
        after = self.chance.choice(["earliest", *self.cursors])
        begin = 0 if after == "earliest" else int(after.rpartition("-")[2])
        limit = self.chance.choice([2, 1_000])
        found: list[tuple[str, list[str]]] = []
        said = f"401 {caller.refused}" if caller.refused else self.model.reading(caller.rights, asked)
        while after:
            query = urlencode([*(("topic", topic) for topic in asked), ("after", after), ("limit", limit)])
            verdict, page = await self.ask(caller, "GET", f"/notifications/history?{query}")
            assert verdict == said, (caller, asked)
            if verdict != "200":
                self.refused += 1
                return
            found += [(each["data"], each["topics"]) for each in page["notifications"]]
            after = page["next"]
        assert found == [
            (each.name, self.model.shown(caller.rights, each))
            for each in self.model.following(caller.rights, asked, begin)
        ], (caller, asked)

    # ---- how a stream ends ----

    async def cut(self) -> None:
        """Cut a stream anywhere; its client comes back with the id that it has by then."""
        if not self.open:
            return
        reading = self.open.pop(self.chance.randrange(len(self.open)))
        expected = reading.expected(self.model)
        for _ in range(self.chance.randint(0, len(expected))):
            reading.got.append(await reading.client.next())
        reading.got += reading.client.arrived()
        at = reading.client.decoder.last_event_id  # a heartbeat may have moved it
        reading.client.reset()
        self.check_part(reading)
        left = reading.expected(self.model)[len(reading.got) :]
        assert all(each.offset > int(at.rpartition("-")[2]) for each in left), "it would miss them"
        await self._read(self.as_now(reading.caller), reading.asked, at)

    def as_now(self, caller: Caller) -> Caller:
        """Return *caller* with the rights that it has in the login by now."""
        identity = self.logins.get(caller.name)
        if identity is None:
            return caller
        return Caller(caller.name, caller.headers, Rights(identity.user, identity.subscribe, identity.publish))

    async def finish(self) -> None:
        """Send something that a reader sees, and compare all that it has got by then."""
        if not self.open:
            return
        reading = self.open.pop(self.chance.randrange(len(self.open)))
        seen = [topic for topic in TOPICS if any(topic in reach(each) for each in reading.asked)]
        if seen:
            draft = {**self.draft(), "topics": [self.chance.choice(seen)], "private": False}
            await self._send([draft])
        expected = reading.expected(self.model)
        while len(reading.got) < len(expected):
            reading.got.append(await reading.client.next())
        self.check_part(reading)
        assert len(reading.got) == len(expected)
        reading.client.reset()

    def check_part(self, reading: Reading) -> None:
        """Check that a reader has got the beginning of what it may see."""
        self.seen += len(reading.got)
        expected = reading.expected(self.model)
        epoch = self.server.hub.log.epoch
        named = [(each.name, f"{epoch}-{each.offset}") for each in expected]
        assert [(each.data, each.id) for each in reading.got] == named[: len(reading.got)], (
            reading.caller,
            reading.asked,
        )

    async def ended(self, ended: list[Reading], reason: str) -> None:
        """Check that streams end with *reason*, and have got the beginning of what they may see."""
        for reading in ended:
            self.open.remove(reading)
            while (event := await reading.client.event()).type == "message":
                reading.got.append(event)
            assert (event.type, event.json()) == ("hub.close", {"reason": reason})
            assert await reading.client.body()
            self.check_part(reading)

    async def revoke_user(self) -> None:
        user = self.chance.choice([*BY_LOGIN, *BY_TOKEN])
        said, _ = await self.ask(self.root, "DELETE", f"/notifications/users/{user}/connections")
        assert said == "204"
        await self.ended(
            [each for each in self.open if each.caller.rights and each.caller.rights.user == user], "revoked"
        )
        for token in self.tokens:
            if token.rights is not None and token.rights.user == user and not token.refused:
                token.refused = "revoked"
        if user in BY_TOKEN:
            self.sign(user)

    async def revoke_token(self) -> None:
        token = self.chance.choice(self.tokens)
        said, _ = await self.ask(self.root, "DELETE", f"/notifications/tokens/{token.name}")
        assert said == "204"
        await self.ended([each for each in self.open if each.caller.name == token.name], "revoked")
        token.refused = token.refused or "revoked"
        assert token.rights is not None
        self.sign(token.rights.user)

    async def expire(self) -> None:
        """Let the rights of a stream end while it is open, and show a token that has expired."""
        self.sign(self.chance.choice(BY_TOKEN), expired=True)
        user = self.chance.choice(BY_LOGIN)
        identity = self.logins[user]
        self.logins[user] = Identity(
            user=user, subscribe=identity.subscribe, publish=identity.publish, expires=time.time() + 1
        )
        caller = Caller(user, {"X-User": user}, Rights(user, identity.subscribe, identity.publish), expiring=True)
        before = list(self.open)
        await self._read(caller, [self.chance.choice(identity.subscribe)], self.chance.choice(["", "earliest"]))
        self.logins[user] = identity
        await self._send([self.draft()])
        await self.ended([each for each in self.open if each not in before], "token_expired")

    async def give_other_rights(self) -> None:
        self.change(self.chance.choice(BY_LOGIN))
        self.sign(self.chance.choice(BY_TOKEN))

    root = Caller("root", {"X-User": "root"}, None)


def verdict(status: int, body: bytes) -> str:
    """Return the status, and what a refusal names."""
    if status < 400:
        return str(status)
    problem = json.loads(body)
    if status == 401 and problem["code"] != "unauthorized":
        return f"401 {problem['code']}"
    return f"{status} {problem.get('topic', '')}".strip()


async def begun(client: Client) -> str:
    """Return what the answer says; read the first event of a stream that has begun."""
    status = await client.head()
    if status != 200:
        return verdict(status, await client.body())
    event = await client.event()
    if event.type == "hub.close":
        return str(event.json()["reason"])
    assert event.type == "hub.open"
    client.opened = event
    return "200"
