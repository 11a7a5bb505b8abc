"""Ann and Bo, the two users of the demo: how they log in, what is theirs, and the room in which they meet.

This is an example of the hooks of `setup_hub`. Only one thing must not be copied: the demo has no passwords, so whoever
comes is believed. What everybody could do without a login, everybody still can, except with `user/ann`, `user/bo` and
`room/tea`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from aiohttp import web

from hub.access.identity import Identity
from hub.access.policy import NO_ROOMS, Policy, Rooms
from hub.access.visibility import Visibility
from hub.connections.client_stream import CloseReason
from hub.connections.holders import Holder
from hub.errors import Forbidden, InvalidInput, Unauthorized
from hub.hub import Hub
from hub.notification import Draft
from hub.topics import is_pattern, topic_of
from hub.web.access import Access
from hub.web.body import read_json
from hub.web.dashboard.dashboard import Dashboard
from hub.web.endpoint import Handler, check_site

NAMES = {"ann": "Ann", "bo": "Bo"}
COOKIE = "hub_demo_login"
TYPE = "message.private"
ROOM = "tea"
"""The room that both may join; what is said there is for its members only."""
MAX_LENGTH = 300
SECONDS = 86_400

SHARED = ("**", "ai/**")
"""What everybody may read, private or not; a wildcard in the first segment does not reach `ai`, `user` and `room`."""
EVERYTHING = (*SHARED, "user/**", "room/**")
"""What everybody may read as far as it is public, and send to."""
VISITOR = Identity(user="visitor", subscribe=SHARED, publish=EVERYTHING, admin=True)
"""Whoever comes, where somebody has to be known: statistics, events, and the answers of the AI, which all share."""
_OPEN = re.compile(r"/(?:metrics|notifications/(?:stats|check)|events/[^/]+|ai/.*)")
_DASHBOARD = re.compile(
    r"(?:GET|POST) /dashboard/.*|GET /notifications/rooms/[^/]+/members|(?:GET|DELETE) /notifications/connections.*"
    r"|DELETE /notifications/(?:users/[^/]+/connections|tokens/[^/]+)"
)
"""What the dashboard asks for: the demo shows it to everybody, if it is there."""
_STREAM = re.compile(r"/notifications/connections/[^/]+")
_LOGIN = re.compile(rf"({'|'.join(NAMES)})\.([A-Za-z0-9_-]{{12}})", re.ASCII)
_OWNERS = {topic_of("user", user): user for user in NAMES}
_ROOM = topic_of("room", ROOM)


# ---- the hooks of setup_hub ----


async def authenticate(request: web.Request) -> Identity | None:
    """Return who is logged in."""
    if _OPEN.fullmatch(request.path) or _is_of_dashboard(request):
        return VISITOR
    identity = logged_in(request)
    if identity is None:
        # Only whoever has opened a stream knows its id; what it may be given is decided by the rights of its holder.
        return VISITOR if request.method == "PATCH" and _STREAM.fullmatch(request.path) else None
    return replace(identity, subscribe=SHARED, publish=EVERYTHING)


def _is_of_dashboard(request: web.Request) -> bool:
    here = _DASHBOARD.fullmatch(f"{request.method} {request.path}")
    return here is not None and Dashboard.KEY in request.config_dict


async def authenticate_by_tokens_too(request: web.Request) -> Identity | None:
    """Return who is logged in, with no other rights: tokens say who has them."""
    return logged_in(request)


async def authorize_subscribe(identity: Identity | None, topics: Sequence[str]) -> bool:
    """Allow the topics of Ann and of Bo to themselves only. Patterns do not show them: the messages are private."""
    return _check(identity, topics, "you may not read it")


async def authorize_publish(identity: Identity | None, draft: Draft) -> bool:
    """Allow them to nobody: `send_message` says who a message is from, a publish could say anything.

    What is said in the room has to be private, so that patterns do not show it, and to say truly who it is from.
    """
    _check(None if identity is None else VISITOR, draft.topics, "you may not publish to it")
    if _ROOM in draft.topics and not (draft.private and identity is not None and _is_from(identity, draft)):
        raise Forbidden(_ROOM, 'what is said here is private, and its data are {"from": your user id, "message": …}')
    return True


async def authorize_join(identity: Identity, room: str, publish: bool) -> bool:
    """Allow the room to Ann and Bo, who may also speak there."""
    return room == ROOM and identity.user in NAMES


class Open(Policy):
    """The rules of the demo: whoever is not logged in reads what visitors may, but counts as nobody for the limits."""

    def read(self, identity: Identity | None, topics: Iterable[str], rooms: Rooms = NO_ROOMS) -> Visibility:
        """Return what *identity* sees of *topics* and patterns."""
        topics = tuple(topics)
        _check_member(identity, topics, rooms)
        return super().read(_reader(identity, topics), topics, rooms)

    def shown(
        self, identity: Identity | None, topics: tuple[str, ...], *, private: bool, rooms: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Return those of *topics*, of a notification that *identity* may see, that it may read."""
        return super().shown(_reader(identity, topics), topics, private=private, rooms=rooms)

    def granted(self, identity: Identity | None, topic: str) -> bool:
        """Return whether *identity* may read *topic* without being a member of anything."""
        return super().granted(_reader(identity, (topic,)), topic)

    def publish(
        self, identity: Identity | None, topics: Iterable[str], *, private: bool = False, rooms: Collection[str] = ()
    ) -> None:
        """Check that *identity* may publish to each of *topics*."""
        topics = tuple(topics)
        _check_member(identity, topics, rooms)
        super().publish(identity or VISITOR, topics, private=private, rooms=rooms)


def _reader(identity: Identity | None, topics: Iterable[str]) -> Identity:
    """Return *identity*, or a visitor, with those of *topics* that are of users without a login, or of other rooms."""
    known = identity or VISITOR
    named = (topic for topic in topics if topic.startswith(("user/", "room/")) and not is_pattern(topic))
    shared = (topic for topic in named if topic not in _OWNERS and topic != _ROOM)
    return replace(known, subscribe=(*known.subscribe, *shared))


def _check_member(identity: Identity | None, topics: Collection[str], rooms: Collection[str]) -> None:
    """Raise if the room is among *topics*, but not among the *rooms* of *identity*."""
    if _ROOM in topics and _ROOM not in rooms:
        if identity is None:
            raise Unauthorized("unauthorized", "log in on the page of the demo, and join the room")
        raise Forbidden(_ROOM, "join it on the page of the demo")


def _is_from(identity: Identity, draft: Draft) -> bool:
    """Return whether *draft* is a message, and says that it is from *identity*."""
    data = json.loads(draft.text) if draft.is_json else None
    if not isinstance(data, dict) or data.keys() != {"from", "message"} or data["from"] != identity.user:
        return False
    return _is_message(data["message"])


def _is_message(message: object) -> bool:
    return isinstance(message, str) and 1 <= len(message) <= MAX_LENGTH


def _check(identity: Identity | None, topics: Iterable[str], why: str) -> bool:
    for topic in topics:
        owner = _OWNERS.get(topic)
        if owner is not None and identity is None:
            raise Unauthorized("unauthorized", f"log in as {NAMES[owner]} on the page of the demo")
        if owner is not None and identity is not None and identity.user != owner:
            raise Forbidden(topic, why)
    return True


def logged_in(request: web.Request) -> Identity | None:
    """Return the user that the cookie of *request* names; None: nobody is logged in."""
    login = _LOGIN.fullmatch(request.cookies.get(COOKIE, ""))
    if login is None:
        return None
    return Identity(user=login[1], session=login[2], presence=True, info={"name": NAMES[login[1]]})


# ---- the routes ----


async def who(hub: Hub, request: web.Request) -> web.Response:
    """Return who is logged in."""
    identity = logged_in(request)
    return web.json_response({"user": None if identity is None else identity.user})


async def log_in(hub: Hub, request: web.Request) -> web.Response:
    """Log in as the user in the body: `{"user": "ann"}`."""
    check_site(hub, request, by_cookie=True)
    user = _user(await read_json(request), "user")
    _end_streams(hub, request)
    answer = web.json_response({"user": user})
    answer.set_cookie(
        COOKIE,
        f"{user}.{secrets.token_urlsafe(9)}",  # the second part tells the logins of a user apart
        max_age=SECONDS,
        path="/",
        httponly=True,
        secure=Access.of(request).is_secure(request),
        samesite="Lax",
    )
    return answer


async def log_out(hub: Hub, request: web.Request) -> web.Response:
    """Log out: the streams of this login, in other tabs too, end at once."""
    check_site(hub, request, by_cookie=True)
    _end_streams(hub, request)
    answer = web.json_response({"user": None})
    answer.del_cookie(COOKIE, path="/")
    return answer


async def send_message(hub: Hub, request: web.Request) -> web.Response:
    """Send `{"to": "bo", "message": "…"}` to this user and nobody else, from the user who is logged in."""
    check_site(hub, request, by_cookie=True)
    sender = logged_in(request)
    if sender is None:
        raise Unauthorized("unauthorized", "log in on the page of the demo")
    body = await read_json(request)
    to = _user(body, "to")
    message = body.get("message") if isinstance(body, dict) else None
    if not _is_message(message):
        raise InvalidInput("message", f"is not a text of 1 to {MAX_LENGTH} characters")
    data = {"from": sender.user, "to": to, "message": message}
    position = await hub.notifications.send_to_user(to, data, type=TYPE, private=True)
    return web.json_response({"id": str(position), "to": to}, status=201)


ROUTES: dict[str, dict[str, Handler]] = {
    "/login": {"GET": who, "POST": log_in, "DELETE": log_out},
    "/messages": {"POST": send_message},
}


def _user(body: object, field: str) -> str:
    user = body.get(field) if isinstance(body, dict) else None
    if not isinstance(user, str) or user not in NAMES:
        raise InvalidInput(field, f"is none of {', '.join(NAMES)}")
    return user


def _end_streams(hub: Hub, request: web.Request) -> None:
    """End the streams of the login of *request*."""
    identity = logged_in(request)
    if identity is None:
        return

    def same(holder: Holder) -> bool:
        held = holder.identity
        return held is not None and (held.user, held.session) == (identity.user, identity.session)

    hub.connections.end_of(CloseReason.REVOKED, same)
