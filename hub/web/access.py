"""Who sends a request, and whether it may: the one place in which the web edge asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, ParamSpec, TypeVar

from aiohttp import web

from hub.access.grants import covers
from hub.access.identity import Identity
from hub.access.policy import Policy
from hub.access.tickets import SECONDS, no_ticket
from hub.access.visibility import Visibility
from hub.connections.holders import Holder
from hub.errors import AuthUnavailable, Forbidden, InvalidInput, NotThere, TooManyRefusals, Unauthorized
from hub.hub import Hub
from hub.notification import Draft
from hub.state.state import State
from hub.state.tickets import Admission, Tickets
from hub.topics import check_wanted
from hub.web.access_log import shows_queries, warn_of_queries
from hub.web.body import read_json
from hub.web.endpoint import check_site
from hub.web.limits import IDENTITY, check_refusals, count_ticket
from hub.web.links import is_secure
from hub.web.verifier import Verifier

logger = logging.getLogger("hub.access")

HOOK_SECONDS = 5.0
COOKIE = "hub_token"
SECURE_COOKIE = "__Host-hub_token"

NOBODY_IS_KNOWN = "nobody is known here: the hub has neither a login (authenticate) nor keys for tokens"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Authenticate = Callable[[web.Request], Awaitable[Identity | None]]
"""Returns who sends a request, or None if nobody known does. What it raises means that it can't tell."""
AuthorizeSubscribe = Callable[[Identity | None, Sequence[str]], Awaitable[bool]]
"""Returns whether the identity may read all of these topics and patterns; it may only allow less than the grants."""
AuthorizePublish = Callable[[Identity | None, Draft], Awaitable[bool]]
"""Returns whether the identity may send this draft; it may only allow less than the grants."""
Recheck = Callable[[Identity], Awaitable[Identity | None]]
"""Returns the present rights of an identity with open streams, or None if they have ended."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the application decides itself."""

    authenticate: Authenticate | None = None
    authorize_subscribe: AuthorizeSubscribe | None = None
    authorize_publish: AuthorizePublish | None = None
    recheck: Recheck | None = None


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
        self.tickets = None if state is None else Tickets(state, time.time, covers)
        self._warned = False  # of an access log that shows tickets
        self._asks = hooks.authenticate is not None or verifier is not None

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
            CrossSite: a page of another site wants to change something in the name of the user.
            AuthUnavailable: the application's hook fails, or does not answer within 5 seconds.
        """
        if not self._asks:
            return None
        known: Identity | None = request.get(IDENTITY)
        if known is None:
            known = await self._identify(request)
            if known is None:
                return None
            if request.method not in _SAFE:
                self._check_site(request)
            request[IDENTITY] = known
            check_refusals(self._hub, request, known)
        if self.state is not None and self.state.revoked(known):
            raise Unauthorized("revoked", "your rights have been revoked: log in again")
        return known

    async def reader(self, request: web.Request) -> Identity | None:
        """Return who sends *request*, which asks for a stream: as `known`, and as far as its page may open one.

        Raises:
            Unauthorized: nobody known does.
            CrossSite: a page of another site does, in the name of the user.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.known(request)
        self.check_reader(request, identity)
        return identity

    def check_reader(self, request: web.Request, identity: Identity | None) -> None:
        """Check that no page of another site opens a stream in the name of *identity*.

        The page could not read it, but the stream would count among those that the user may have.

        Raises:
            CrossSite: one does.
        """
        if identity is not None:
            self._check_site(request)

    def _check_site(self, request: web.Request) -> None:
        """Check the origin of *request*, unless it says by itself who sends it: cookies are sent by any page."""
        if "Authorization" not in request.headers:
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
        now = time.time()
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
        if not isinstance(body, dict) or body.keys() - {"topics"}:
            raise InvalidInput("body", 'is not a JSON object such as {"topics": ["orders"]}, and not empty')
        topics = body.get("topics")
        if topics is not None:
            if not isinstance(topics, list):
                raise InvalidInput("topics", "is not a list of topics")
            await self._readable(identity, topics := check_wanted(topics))
        count_ticket(self._hub, identity)
        if not self._warned and shows_queries(request):
            self._warned = True
            warn_of_queries()
        text = await self.tickets.mint(identity, topics)
        return {"ticket": text, "expires_in": int(SECONDS)}

    async def admit(self, request: web.Request, ticket: str, topics: Sequence[str]) -> tuple[Admission, Visibility]:
        """Return the admission of a stream of *topics* whose request shows *ticket*, and what its reader may see.

        Raises:
            Unauthorized, Forbidden: the ticket is not valid, or no longer gives the right to one of the topics.
            CrossSite: a page of another site shows it, which could not read the stream; the ticket is not used up.
            StateUnavailable: that can't be told now.
        """
        if self.tickets is None:
            raise no_ticket()
        self._check_site(request)
        self._check_address(request)
        admission = await self.tickets.admit(ticket, request.cookies, topics, secure=self.is_secure(request))
        if admission.ticket is None and not admission.identity.by_token:
            admission = replace(admission, identity=await self._again(request, admission.identity))
        return admission, await self._readable(admission.identity, topics)

    async def _again(self, request: web.Request, identity: Identity) -> Identity:
        """Return the present rights of *identity*, whom the login knew when its ticket was given.

        Raises:
            Unauthorized: the login knows the user no longer.
            AuthUnavailable: that can't be told now.
        """
        now = time.time()  # not that of the answer: what is revoked while the application thinks counts
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

    async def read(self, request: web.Request, topics: Sequence[str]) -> tuple[Identity | None, Visibility]:
        """Return who sends *request*, and what of *topics* and patterns that reader may see.

        Raises:
            Unauthorized, Forbidden: the reader may not read one of them; names the first.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.identity(request)
        return identity, await self._readable(identity, topics)

    async def presence(self, request: web.Request, topic: str) -> bool:
        """Return whether the sender of *request* may know who is on *topic*; else only how many are.

        Raises:
            Unauthorized, Forbidden: the sender may not read *topic*, and is no administrator.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.identity(request)
        if identity is None or not identity.admin:
            await self._readable(identity, (topic,))
        return self.names(identity)

    def names(self, identity: Identity | None) -> bool:
        """Return whether *identity* may know who is on the topics that it may read; else only how many are."""
        return self.policy.trusted or (identity is not None and (identity.presence or identity.admin))

    async def readable(self, holder: Holder, topics: Sequence[str], added: Sequence[str]) -> Visibility:
        """Return what the *holder* of an open stream sees of *topics*, to which *added* belong, which it did not have.

        Raises:
            Unauthorized, Forbidden: the holder may not read one of them; names the first.
            AuthUnavailable: that can't be told now.
        """
        for topic in added if holder.within is not None else ():
            if not any(covers(each, topic) for each in holder.within or ()):
                raise Forbidden(topic, "is not among the topics of the ticket")
        identity = await self._present(holder.identity) if added else holder.identity
        # Those that the stream has come last: if their rights have ended, the next check ends it.
        for topic in (*added, *(topics if identity is not holder.identity else ())):
            try:
                self.policy.read(identity, [topic])
            except (Unauthorized, Forbidden):  # also if nobody knows the holder: whoever asks for the change is known
                raise Forbidden(topic, "the holder of the stream may not read it") from None
        if added:
            await self._ask_hook(identity, added)
        return self.policy.read(identity, topics)

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
            raise Forbidden("", "the rights of the holder of the stream have ended")
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

    def check_added(self, sender: Identity | None, holder: Holder, added: Iterable[str]) -> None:
        """Check that the *sender* of a change, whom `changer` returned, may read today what is *added* to a stream.

        The login has just said what the sender may, and of the *holder* only what was so when the stream began. That
        is the only answer of today where the application has no `recheck`.

        Raises:
            Forbidden: the sender may not.
        """
        held = holder.identity
        if sender is not None and held is not None and sender.user == held.user:
            if not (sender.by_token or held.by_token):
                self.policy.read(sender, added)

    async def _readable(self, identity: Identity | None, topics: Sequence[str]) -> Visibility:
        """Return what *identity* may see of *topics*, by its grants and by the application's hook."""
        visibility = self.policy.read(identity, topics)
        await self._ask_hook(identity, topics)
        return visibility

    async def _ask_hook(self, identity: Identity | None, topics: Sequence[str]) -> None:
        hook = self.hooks.authorize_subscribe
        if hook is not None and not await bounded("authorize_subscribe", called(hook, identity, topics)):
            raise Forbidden(topics[0] if len(topics) == 1 else "", "the application does not let you read it")

    async def publish(self, request: web.Request, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """Return *drafts*, which the sender of *request* may publish, with keys that are the sender's own.

        Raises:
            Unauthorized, Forbidden: the sender may not publish to one of their topics; names the first.
            AuthUnavailable: that can't be told now.
        """
        identity = await self.identity(request)
        if self.policy.trusted and self.hooks.authorize_publish is None:
            return drafts
        if len(drafts) == 1:
            self.policy.publish(identity, drafts[0].topics, private=drafts[0].private)
        else:
            for private in (False, True):
                self.policy.publish(identity, _topics_of(drafts, private=private), private=private)
        if self.hooks.authorize_publish is not None:
            await bounded("authorize_publish", _allowed(self.hooks.authorize_publish, identity, drafts))
            self.check(identity)
        return drafts if self.policy.trusted else [_own_key(identity, draft) for draft in drafts]

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


async def _allowed(hook: AuthorizePublish, identity: Identity | None, drafts: Sequence[Draft]) -> None:
    """Ask *hook* about each of *drafts*.

    Raises:
        Forbidden: it refuses one.
    """
    for draft in drafts:
        if not await hook(identity, draft):
            raise Forbidden(draft.topics[0], "the application does not let you publish this")


async def asked(name: str, answer: Awaitable[Identity | None]) -> Identity | None:
    """Return the identity that the application's hook *name* answers; None: nobody, or no rights any more.

    Raises:
        Unauthorized, Forbidden: the hook raised it.
        AuthUnavailable: it failed, gave no answer in time, or one that is none.
    """
    found: object = await bounded(name, answer)
    if found is None or isinstance(found, Identity):
        return found
    logger.error("the hook %s returned %s, not an Identity or None", name, type(found).__name__)
    raise AuthUnavailable


def _own_key(identity: Identity | None, draft: Draft) -> Draft:
    """Return *draft* with a key that no other user can repeat; those of unknown senders are one user's."""
    if draft.key is None:
        return draft
    owner = "-" if identity is None else f"{len(identity.user)}:{identity.user}"
    return draft._replace(key=f"{owner}:{draft.key}")


async def called(hook: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Return the answer of *hook*: also what it raises before there is anything to await comes when that is awaited."""
    return await hook(*args, **options)


async def bounded(name: str, answer: Awaitable[T]) -> T:
    """Return the answer of the application's hook *name*.

    Raises:
        Unauthorized, Forbidden: the hook raised it.
        AuthUnavailable: it failed, or gave no answer within 5 seconds.
    """
    try:
        async with asyncio.timeout(HOOK_SECONDS):
            return await answer
    except (Unauthorized, Forbidden):
        raise
    except TimeoutError:
        logger.error("the hook %s did not answer within %g s", name, HOOK_SECONDS)
        raise AuthUnavailable from None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        logger.exception("the hook %s was cancelled", name)  # something that it waited for was
        raise AuthUnavailable from error
    except Exception as error:
        logger.exception("the hook %s failed", name)
        raise AuthUnavailable from error


def token_cookie_name(*, secure: bool) -> str:
    """Return the name of the cookie that carries a token; *secure*: over TLS.

    There no other host, not even a subdomain, can have set a cookie whose name begins with `__Host-`.
    """
    return SECURE_COOKIE if secure else COOKIE
