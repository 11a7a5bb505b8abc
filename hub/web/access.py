"""Who sends a request, and whether it may: the one place in which the web edge asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import ClassVar, NamedTuple

from aiohttp import web

from hub.access.grants import covers
from hub.access.identity import Identity
from hub.access.policy import NO_ROOMS, Policy
from hub.access.tickets import SECONDS, no_ticket
from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.changes import Sees
from hub.connections.connection import Connection
from hub.connections.holders import Holder
from hub.errors import (
    AuthUnavailable,
    Forbidden,
    InvalidInput,
    LogUnavailable,
    NotThere,
    StateUnavailable,
    TooManyMemberships,
    TooManyRefusals,
    Unauthorized,
)
from hub.hub import Hub
from hub.notification import Draft, Position
from hub.presence.rooms import NOBODY_IS_KNOWN, Held
from hub.state.state import State
from hub.state.tickets import Admission, Tickets
from hub.topics import check_wanted, room_of, topic_of
from hub.web.access_log import shows_queries, warn_of_queries
from hub.web.body import check_fields, read_json
from hub.web.endpoint import check_site
from hub.web.hooks import Hooks, RoomsOf, allowed, asked, bounded, called, rooms_in
from hub.web.limits import IDENTITY, check_refusals, count_ticket
from hub.web.links import is_secure
from hub.web.verifier import Verifier

logger = logging.getLogger("hub.access")

COOKIE = "hub_token"
SECURE_COOKIE = "__Host-hub_token"

_OF_TICKETS = ("topics",)


class Reading(NamedTuple):
    """What somebody may read.

    Attributes:
        identity: who; None: nobody known.
        topics: topics and patterns.
        visibility: what is seen of them.
        held: the rooms of the identity, up to date; None: none of them matters.
        listed: how much had happened to these when those that are among the topics were listed.
        number: how much had happened when *visibility* was true.
    """

    identity: Identity | None
    topics: tuple[str, ...]
    visibility: Visibility
    held: Held | None = None
    listed: int = 0
    number: int = 0

    @property
    def stands(self) -> bool:
        """Whether nothing has happened to the rooms."""
        return self.held is None or self.held.number == self.number


class Access:
    """Identities and rights for one application.

    Args:
        hub: the hub of the application.
        policy: the rules.
        hooks: what the application decides itself.
        verifier: what reads tokens; None: tokens are not accepted.
        state: knows what was revoked; None where nobody is known.
    """

    KEY: ClassVar[web.AppKey[Access]]

    def __init__(
        self,
        hub: Hub,
        policy: Policy,
        hooks: Hooks,
        verifier: Verifier | None = None,
        state: State | None = None,
    ) -> None:
        self._hub = hub
        self.policy = policy
        self.hooks = hooks
        self._verifier = verifier
        self.state = state
        self.tickets = None if state is None else Tickets(state, hub.clock, covers)
        self._warned = False  # of an access log that shows tickets
        self._asks = hooks.authenticate is not None or verifier is not None

    @property
    def asks(self) -> bool:
        """Whether somebody can be asked who sends a request."""
        return self._asks

    @classmethod
    def of(cls, request: web.Request) -> Access:
        """Return the access of the application that got *request*, or of the one around it."""
        # `config_dict` looks into all of them, and takes five times as long.
        access = request.app.get(cls.KEY)
        return request.config_dict[cls.KEY] if access is None else access

    async def open(self) -> None:
        """Begin, on the running loop.

        Raises:
            StateUnavailable: what was revoked can't be read.
        """
        if self.state is not None:
            await self.state.open()
        if self._verifier is not None:
            await self._verifier.open()

    async def aclose(self) -> None:
        """End what is under way."""
        if self._verifier is not None:
            await self._verifier.aclose()
        if self.state is not None:
            await self.state.aclose()

    async def identity(self, request: web.Request) -> Identity | None:
        """Return who sends *request*; None: nobody known.

        Raises:
            Unauthorized: a token that is not valid, or rights that have ended or were revoked.
            TooManyRefusals: too much of its user or address was refused lately.
            CrossSite: a page of another site asks in the name of the user.
            AuthUnavailable: the application's hook fails, or does not answer within 5 seconds.
        """
        if not self._asks:
            return None
        known: Identity | None = request.get(IDENTITY)
        if known is None:
            known = await self._identify(request)
            if known is None:
                return None
            self._check_site(request)
            request[IDENTITY] = known
            check_refusals(self._hub, request, known)
        elif known.expires is not None and known.expires + self._leeway(known) <= self._hub.clock():
            # They have ended while a body came.
            raise Unauthorized("token_expired", "your rights have ended: log in again")
        if self.state is not None and self.state.revoked(known):
            raise Unauthorized("revoked", "your rights have been revoked: log in again")
        return known

    def _leeway(self, identity: Identity) -> float:
        """Return for how many seconds a request of *identity* counts after its rights have ended: clocks may differ."""
        return self._hub.settings.jwt_leeway if identity.by_token else 0.0

    def _check_site(self, request: web.Request) -> None:
        """Check the origin of *request*, unless it says by itself who sends it: cookies are sent by any page.

        A link that a user follows is not a page that asks.
        """
        follows = request.method == "GET" and request.headers.get("Sec-Fetch-Dest") == "document"
        if "Authorization" not in request.headers and not follows:
            check_site(self._hub, request, by_cookie=True)

    async def _identify(self, request: web.Request) -> Identity | None:
        token = self._token(request)
        if token is not None and self._verifier is not None:
            self._check_address(request, token)
            return await self._verifier.verify(token)
        if self.hooks.authenticate is None:
            return None
        self._check_address(request)
        # Of now: whoever is asked for after a revocation is known again.
        now = self._hub.clock()
        identity = await asked("authenticate", called(self.hooks.authenticate, request))
        if identity is None:
            return None
        if identity.expires is not None and identity.expires <= now:
            raise Unauthorized("token_expired", "your rights have ended: log in again")
        return identity if identity.issued is not None else replace(identity, issued=now)

    def _token(self, request: web.Request) -> str | None:
        """Return the token of *request*: from `Authorization: Bearer`, else from the cookie; None: there is none."""
        said = request.headers.get("Authorization", "")
        scheme, _, token = said.partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        return request.cookies.get(token_cookie_name(secure=self.is_secure(request)))

    def is_secure(self, request: web.Request) -> bool:
        """Return whether the client sent *request* over TLS, as far as the hub and trusted proxies know."""
        return is_secure(self._hub.proxies, request)

    def _check_address(self, request: web.Request, token: str | None = None) -> None:
        """Raise if nothing of the address of *request* is looked at now, for too much of it was refused.

        So whoever guesses, or floods the hub with tokens to verify or the login with questions, has to wait. Whoever
        shows a *token* that was verified before is not kept waiting by others at the same address.
        """
        try:
            check_refusals(self._hub, request)
        except TooManyRefusals:
            if token is None or self._verifier is None or not self._verifier.knows(token):
                raise

    async def ticket(self, request: web.Request) -> dict[str, object]:
        """Return a new ticket for the sender of *request*, for the topics in its body or for all that it may read.

        Raises:
            Unauthorized: nobody known asks.
            TooManyTickets: the user has asked for too many.
            Forbidden: a topic in the body may not be read; names the first.
            InvalidInput: the body breaks a rule.
        """
        identity = await self.known(request)
        if identity is None or self.tickets is None:
            raise NotThere("ticket", NOBODY_IS_KNOWN)
        body = await read_json(request) if request.body_exists else {}
        if not isinstance(body, dict):
            raise InvalidInput("body", 'is not a JSON object such as {"topics": ["orders"]}, and not empty')
        check_fields(body, _OF_TICKETS)
        topics = body.get("topics")
        if topics is not None:
            if not isinstance(topics, list):
                raise InvalidInput("topics", "is not a list of topics")
            await self.reading(identity, topics := check_wanted(topics))
        count_ticket(self._hub, identity)
        if not self._warned and shows_queries(request):
            self._warned = True
            warn_of_queries()
        text = await self.tickets.mint(identity, topics)
        return {"ticket": text, "expires_in": int(SECONDS)}

    async def admit(
        self, request: web.Request, ticket: str, topics: Sequence[str], *, rooms: bool = False
    ) -> tuple[Admission, Reading]:
        """Return the admission of a stream of *topics* whose request shows *ticket*, and what its reader may see.

        With *rooms* these are the rooms of the user, too, as far as the ticket is for them.

        Raises:
            Unauthorized, Forbidden: the ticket is not valid, or no longer gives the right to one of the topics.
            CrossSite: a page of another site shows it, which could not read the stream; the ticket is not used up.
            StateUnavailable: that can't be told now.
        """
        if self.tickets is None:
            raise no_ticket()
        self._check_site(request)
        self._check_address(request)
        secure = self.is_secure(request)
        admission = await self.tickets.admit(ticket, request.cookies, topics, secure=secure, rooms=rooms)
        if admission.ticket is None and not admission.identity.by_token:
            admission = replace(admission, identity=await self._again(request, admission.identity))
        within = admission.within
        return admission, await self.reading(admission.identity, topics, rooms=rooms, opens=True, within=within)

    async def _again(self, request: web.Request, identity: Identity) -> Identity:
        """Return the present rights of *identity*, whom the login knew when its ticket was given.

        Raises:
            Unauthorized: the login knows the user no longer.
            AuthUnavailable: that can't be told now.
        """
        now = self._hub.clock()  # not that of the answer: what is revoked while the application thinks counts
        if self.hooks.recheck is not None:
            present = await asked("recheck", called(self.hooks.recheck, identity))
        elif self.hooks.authenticate is not None:
            present = await asked("authenticate", called(self.hooks.authenticate, request))
        else:
            present = None
        if present is None or present.user != identity.user:
            raise Unauthorized("revoked", "the login that the ticket was given to has ended: log in again")
        return replace(present, issued=now)

    def check(self, identity: Identity | None) -> None:
        """Check once more, behind everything that waits, that the rights of *identity* go on.

        Raises:
            Unauthorized: they have ended, or were revoked meanwhile.
        """
        if identity is None:
            return
        if self.state is not None and self.state.revoked(identity):
            raise Unauthorized("revoked", "your rights have been revoked: log in again")

    async def read(
        self, request: web.Request, topics: Sequence[str], *, rooms: bool = False, opens: bool = False
    ) -> Reading:
        """Return who sends *request*, and what of *topics* and patterns that reader may see.

        Args:
            request: any request.
            topics: topics and patterns.
            rooms: the rooms of the reader, too.
            opens: a stream, so that the application is asked for the rooms of the reader.

        Raises:
            Unauthorized, Forbidden: the reader may not read one of them; names the first.
            AuthUnavailable: that can't be told now.
        """
        return await self.reading(await self.identity(request), topics, rooms=rooms, opens=opens)

    async def token_identity(self, token: str) -> Identity:
        """Return the identity that *token* proves, which a client has sent over an open connection.

        Raises:
            Unauthorized: it is not valid, tokens are not accepted, or its rights were revoked.
            AuthUnavailable: that can't be told now.
        """
        if self._verifier is None:
            raise Unauthorized("token_invalid", "tokens are not accepted here")
        identity = await self._verifier.verify(token)
        self.check(identity)
        return identity

    async def presence(self, identity: Identity | None, topic: str) -> bool:
        """Return whether *identity* may know who is on *topic*; else only how many are.

        Raises:
            Unauthorized, Forbidden: it may not read *topic*, and is no administrator.
            AuthUnavailable: that can't be told now.
        """
        if identity is None or not identity.admin:
            await self.reading(identity, (topic,))
        return self.names(identity)

    def granted(self, identity: Identity | None, topic: str) -> bool:
        """Return whether a grant of *identity* covers *topic*: then it is read without a floor."""
        return self.policy.granted(identity, topic)

    def names(self, identity: Identity | None) -> bool:
        """Return whether *identity* may know who is on the topics that it may read; else only how many are."""
        return self.policy.trusted or (identity is not None and (identity.presence or identity.admin))

    async def readable(self, stream: Connection, topics: Sequence[str], added: Sequence[str]) -> Sees:
        """Return what the reader of *stream* sees of *topics*, to which *added* belong, which it did not have.

        Raises:
            Unauthorized, Forbidden: the holder may not read one of them; names the first.
            AuthUnavailable: that can't be told now.
        """
        holder, held = stream.holder, await self._held(stream.holder.identity, topics)

        def sees(topics: Collection[str]) -> Visibility:
            return self.policy.read(identity, topics, self._hub.rooms.floors(stream, held, topics))

        for topic in added if holder.within is not None else ():
            if not any(covers(each, topic) for each in holder.within or ()):
                raise Forbidden(topic, "is not among the topics of the ticket")
        identity = await self._present(holder.identity) if added else holder.identity
        # Those that the stream has come last: if their rights have ended, the next check ends it.
        for topic in (*added, *(topics if identity is not holder.identity else ())):
            try:
                sees([topic])
            except (Unauthorized, Forbidden):  # also if nobody knows the holder: whoever asks for the change is known
                raise Forbidden(topic, "may not be read with the rights of this stream") from None
        if added:
            await self.ask(identity, added)
        return sees

    async def _present(self, identity: Identity | None) -> Identity | None:
        """Return the rights of today of *identity*, which holds a stream: a token has those it had when that began.

        Raises:
            Forbidden: the login knows the user no longer.
            AuthUnavailable: that can't be told now.
        """
        if identity is None or identity.by_token or self.hooks.recheck is None:
            return identity
        try:
            present = await asked("recheck", called(self.hooks.recheck, identity))
        except (Unauthorized, Forbidden):
            present = None
        if present is None or present.user != identity.user:
            raise Forbidden("", "the rights of this stream have ended")
        return present

    async def changer(self, request: web.Request, holder: Callable[[], Holder]) -> Identity | None:
        """Return who may change the stream of *holder*, and sends *request*: its own user, or an administrator.

        Raises:
            Unauthorized, Forbidden: somebody else does; what *holder* raises if there is no such stream.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.known(request)
        user = holder().user
        if identity is not None and not identity.admin and user != identity.user:
            raise Forbidden("", "this is another one's stream")
        return identity

    async def check_added(self, sender: Identity | None, holder: Holder, added: Sequence[str]) -> None:
        """Check that the *sender* of a change, whom `changer` returned, may read today what is *added* to a stream.

        The login has just said what the sender may, and of the *holder* only what was so when the stream began. That
        is the only answer of today where the application has no `recheck`.

        Raises:
            Forbidden: the sender may not.
        """
        held = holder.identity
        if sender is None or held is None or sender.user != held.user or sender.by_token or held.by_token:
            return
        rooms = await self._held(sender, added)
        self.policy.read(sender, added, NO_ROOMS if rooms is None else rooms.floors(added))

    async def reading(
        self,
        identity: Identity | None,
        topics: Sequence[str],
        *,
        rooms: bool = False,
        opens: bool = False,
        within: Collection[str] | None = None,
    ) -> Reading:
        """Return what *identity* may see of *topics*, by its grants, its rooms and the application's hook.

        Args:
            identity: who asks; None: nobody known.
            topics: topics and patterns.
            rooms: the rooms of *identity*, too; as far as they are *within*, if that is not None.
            opens: a stream, so that the application is asked for the rooms of *identity*.
            within: topics and patterns.

        Raises:
            Unauthorized, Forbidden: it may not read one of *topics*; names the first.
            AuthUnavailable: that can't be told now.
        """
        if rooms and identity is None:
            raise Unauthorized("unauthorized", "only a user who is known has rooms: log in, or send a token")
        held = await self._held(identity, topics, rooms=rooms, opens=opens)
        if held is None:
            visibility = self.policy.read(identity, topics)
            await self.ask(identity, topics)
            return Reading(identity, tuple(topics), visibility)
        following = [each for each in held.topics() if each not in topics and _is_within(each, within)] if rooms else []
        listed = held.number
        self.policy.read(identity, topics, held.floors(topics))
        following = await self._ask_with(identity, topics, following)
        return self.again(Reading(identity, (*topics, *following), EVERYTHING, held, listed), topics)

    async def _ask_with(self, identity: Identity | None, topics: Sequence[str], rooms: list[str]) -> list[str]:
        """Ask the application whether *identity* may read *topics*; return those of its *rooms* that it may read, too.

        Raises:
            Unauthorized, Forbidden: it may not read *topics*.
            AuthUnavailable: that can't be told now.
        """
        if not rooms or self.hooks.authorize_subscribe is None:
            await self.ask(identity, topics)
            return rooms
        try:
            await self.ask(identity, [*topics, *rooms])
        except (Unauthorized, Forbidden):
            await self.ask(identity, topics)
        else:
            return rooms
        allowed = []
        for room in rooms:
            with suppress(Unauthorized, Forbidden):
                await self.ask(identity, [room])
                allowed.append(room)
        return allowed

    def again(self, reading: Reading, asked: Collection[str] | None = None) -> Reading:
        """Return what is left of *reading* now: rooms that its reader has left since are not among its topics.

        Raises:
            Unauthorized, Forbidden: one of the topics that were *asked* for (None: all) may not be read any more.
        """
        identity, topics, _, held, listed, _ = reading
        if held is None:
            return reading
        floors = held.floors(topics)
        kept = topics
        if asked is not None:
            asked = frozenset(asked)
            kept = tuple(each for each in topics if each in asked or self._may_read(identity, each, floors))
        return Reading(identity, kept, self.policy.read(identity, kept, floors), held, listed, held.number)

    def settle(self, stream: Connection, reading: Reading) -> None:
        """Have *stream*, which is about to take its socket over, begin with what is left of *reading* now."""
        if not reading.stands:
            left = self.again(reading, ())
            stream.settle(left.topics, left.visibility)

    def _may_read(self, identity: Identity | None, topic: str, floors: Mapping[str, Position]) -> bool:
        try:
            self.policy.read(identity, [topic], floors)
        except (Unauthorized, Forbidden):
            return False
        return True

    async def _held(
        self, identity: Identity | None, topics: Iterable[str], *, rooms: bool = False, opens: bool = False
    ) -> Held | None:
        """Return the rooms of *identity* that matter: those among *topics*, or all if *rooms*; None: none does.

        If a stream *opens*, the application is asked first for the rooms of *identity*.

        Raises:
            AuthUnavailable: that can't be told now.
        """
        if identity is None or self.state is None:
            return None
        if opens and self.hooks.rooms_of is not None:
            await self._load(identity, self.hooks.rooms_of)
        named = None if rooms else [room for topic in topics if (room := room_of(topic)) is not None]
        if named is not None and not named:
            return None
        with telling_rooms():
            return await self._hub.rooms.held(identity.user, named)

    async def _load(self, identity: Identity, hook: RoomsOf) -> None:
        """Have *identity* belong to the rooms that the application says now."""
        service = self._hub.rooms
        question = service.asking(identity.user)
        rooms = rooms_in(await bounded("rooms_of", hook(identity)))
        try:
            with telling_rooms():
                await service.load(identity.user, question, rooms)
        except (InvalidInput, TooManyMemberships) as error:
            logger.error("what the hook rooms_of returned for the user %r can't be kept: %s", identity.user, error)
            raise AuthUnavailable from error

    async def ask(self, identity: Identity | None, topics: Sequence[str]) -> None:
        """Ask the application whether *identity* may read *topics*.

        Raises:
            Unauthorized, Forbidden: it may not.
            AuthUnavailable: that can't be told now.
        """
        if not topics:
            return
        hook = self.hooks.authorize_subscribe
        if hook is not None and not await bounded("authorize_subscribe", called(hook, identity, topics)):
            raise Forbidden(topics[0] if len(topics) == 1 else "", "the application does not let you read it")

    async def publish(self, request: web.Request, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """Return *drafts*, which the sender of *request* may publish, with keys that are the sender's own.

        Raises:
            Unauthorized, Forbidden: the sender may not publish to one of their topics; names the first.
            AuthUnavailable: that can't be told now.
        """
        return await self.publish_as(await self.identity(request), drafts)

    async def publish_as(self, identity: Identity | None, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """Return *drafts*, which *identity* may publish, with keys that are its own. Raises as `publish`."""
        if self.policy.trusted and self.hooks.authorize_publish is None:
            return drafts
        as_member = await self.check_publish(identity, drafts)
        if self.hooks.authorize_publish is not None:
            await bounded("authorize_publish", allowed(self.hooks.authorize_publish, identity, drafts))
            self.check(identity)
            if as_member:  # who may have left in the meantime
                await self.check_publish(identity, drafts)
        return drafts if self.policy.trusted else [_own_key(identity, draft) for draft in drafts]

    async def check_publish(self, identity: Identity | None, drafts: Sequence[Draft]) -> bool:
        """Check that *identity* may publish *drafts* by its grants or as a member; return whether as a member.

        Raises:
            Unauthorized, Forbidden: it may not publish to one of their topics; names the first.
            AuthUnavailable: that can't be told now.
        """
        rooms = await self._publishable(identity, drafts)
        if len(drafts) == 1:
            self.policy.publish(identity, drafts[0].topics, private=drafts[0].private, rooms=rooms)
        else:
            for private in (False, True):
                self.policy.publish(identity, _topics_of(drafts, private=private), private=private, rooms=rooms)
        return bool(rooms)

    async def _publishable(self, identity: Identity | None, drafts: Sequence[Draft]) -> Collection[str]:
        """Return the topics of *drafts* to which *identity* may publish as a member."""
        if identity is None or self.state is None:
            return ()
        topics = {topic for draft in drafts for topic in draft.topics if topic.startswith("room/")}
        if not topics:
            return ()
        with telling_rooms():
            return await self._hub.rooms.publishable(identity.user, topics)

    async def member(self, request: web.Request, user: str) -> Identity | None:
        """Return who sends *request*, which joins or leaves a room in the name of *user*: an administrator, or *user*.

        Raises:
            Unauthorized, Forbidden: somebody else does, or the application lets nobody join by himself.
            NotThere: nobody is known here.
            AuthUnavailable: that can't be told now.
        """
        return self.check_member(await self.known(request), user)

    def check_member(self, identity: Identity | None, user: str) -> Identity:
        """Return *identity*, which joins or leaves a room in the name of *user*. Raises as `member`."""
        if identity is None or self.state is None:
            raise NotThere("user", NOBODY_IS_KNOWN)
        if not identity.admin:
            if identity.user != user:
                raise Forbidden("", "this is another one's membership")
            if self.hooks.authorize_join is None:
                raise Forbidden("", "the application lets nobody join or leave by himself")
        return identity

    async def check_join(self, identity: Identity | None, room: str, *, publish: bool) -> None:
        """Check that *identity* may join *room* by itself; administrators may.

        Raises:
            Unauthorized, Forbidden: it may not.
            AuthUnavailable: that can't be told now.
        """
        hook = self.hooks.authorize_join
        if identity is None or identity.admin or hook is None:
            return
        if not await bounded("authorize_join", hook(identity, room, publish)):
            raise Forbidden(topic_of("room", room), "the application does not let you join it")
        self.check(identity)

    async def administer(self, request: web.Request) -> Identity | None:
        """Return who sends *request*, an administrator.

        Raises:
            Unauthorized, Forbidden: somebody else does.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.identity(request)
        self.policy.administer(identity)
        return identity

    async def known(self, request: web.Request) -> Identity | None:
        """Return who sends *request*: somebody known, or anybody where nobody can be asked who they are.

        Raises:
            Unauthorized: nobody known does.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.identity(request)
        self.policy.known(identity)
        return identity


Access.KEY = web.AppKey("access", Access)


def _topics_of(drafts: Sequence[Draft], *, private: bool) -> Iterable[str]:
    """Return the topics of the *private* or the public ones of *drafts*, each once: most of a list have the same."""
    return dict.fromkeys(topic for draft in drafts if draft.private is private for topic in draft.topics)


@contextmanager
def telling_rooms() -> Iterator[None]:
    """Raise `AuthUnavailable` if the state, or the log, can't tell now who belongs to a room."""
    try:
        yield
    except (StateUnavailable, LogUnavailable) as error:
        raise AuthUnavailable from error


def _is_within(topic: str, within: Collection[str] | None) -> bool:
    return within is None or any(covers(each, topic) for each in within)


def _own_key(identity: Identity | None, draft: Draft) -> Draft:
    """Return *draft* with a key that no other user can repeat; those of unknown senders are one user's."""
    if draft.key is None:
        return draft
    owner = "-" if identity is None else f"{len(identity.user)}:{identity.user}"
    return draft._replace(key=f"{owner}:{draft.key}")


def token_cookie_name(*, secure: bool) -> str:
    """Return the name of the cookie that carries a token; *secure*: over TLS.

    There no other host, not even a subdomain, can have set a cookie whose name begins with `__Host-`.
    """
    return SECURE_COOKIE if secure else COOKIE
