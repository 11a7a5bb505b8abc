"""What the application decides itself: the hooks that it may give, how they are asked, and what counts as an answer."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import ParamSpec, TypeVar

from aiohttp import web

from hub.access.identity import Identity
from hub.errors import AuthUnavailable, Forbidden, InvalidInput, Unauthorized
from hub.notification import Draft

logger = logging.getLogger("hub.access")

HOOK_SECONDS = 5.0

Authenticate = Callable[[web.Request], Awaitable[Identity | None]]
"""Returns who sends a request, or None if nobody known does. What it raises means that it can't tell."""
AuthorizeSubscribe = Callable[[Identity | None, Sequence[str]], Awaitable[bool]]
"""Returns whether the identity may read all of these topics and patterns; it may only allow less than the grants."""
AuthorizePublish = Callable[[Identity | None, Draft], Awaitable[bool]]
"""Returns whether the identity may send this draft; it may only allow less than the grants."""
Recheck = Callable[[Identity], Awaitable[Identity | None]]
"""Returns the present rights of an identity with open streams, or None if they have ended."""
RoomsOf = Callable[[Identity], Awaitable[Iterable[str | tuple[str, bool]]]]
"""Returns the rooms to which the application says that an identity belongs; True beside one: it may publish there."""
AuthorizeJoin = Callable[[Identity, str, bool], Awaitable[bool]]
"""Returns whether the identity may join the room by itself; the last argument says whether to publish there, too."""


T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the application decides itself."""

    authenticate: Authenticate | None = None
    authorize_subscribe: AuthorizeSubscribe | None = None
    authorize_publish: AuthorizePublish | None = None
    recheck: Recheck | None = None
    rooms_of: RoomsOf | None = None
    authorize_join: AuthorizeJoin | None = None

    def __post_init__(self) -> None:
        """Check that no hook is a plain function: it would be called, and fail, at the first request.

        Other callables are not looked into; they may return something that can be awaited.

        Raises:
            InvalidInput: one is a plain function.
        """
        for each in fields(self):
            hook = getattr(self, each.name)
            if hook is not None and _is_plain(hook):
                why = f"is a plain function ({hook.__qualname__}); write it with `async def`, for it is awaited"
                raise InvalidInput(each.name, why)


def _is_plain(hook: object) -> bool:
    """Return whether *hook* is a function, or a method, that can't be awaited, as far as that can be told."""
    function = inspect.unwrap(hook) if callable(hook) else hook
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function) or function.__name__ == "<lambda>" or inspect.iscoroutinefunction(function):
        return False
    if function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:  # @types.coroutine
        return False
    says = str(function.__annotations__.get("return", ""))
    return not any(word in says for word in ("Awaitable", "Coroutine", "Future", "Task"))


async def called(hook: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Return the answer of *hook*: also what it raises before there is anything to await comes when that is awaited."""
    return await hook(*args, **options)


async def bounded(name: str, answer: Awaitable[T]) -> T:
    """Return the answer of the application's hook *name*.

    Raises:
        Unauthorized, Forbidden: the hook raised it, or `web.HTTPUnauthorized` or `web.HTTPForbidden`.
        AuthUnavailable: it failed, or gave no answer within 5 seconds.
    """
    try:
        async with asyncio.timeout(HOOK_SECONDS):
            return await answer
    except (Unauthorized, Forbidden):
        raise
    except web.HTTPUnauthorized:  # as handlers of aiohttp say it
        raise Unauthorized("unauthorized", "you are not logged in: send a token, or log in") from None
    except web.HTTPForbidden:
        raise Forbidden("", "the application does not let you") from None
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


async def allowed(hook: AuthorizePublish, identity: Identity | None, drafts: Sequence[Draft]) -> None:
    """Ask *hook* about each of *drafts*.

    Raises:
        Forbidden: it refuses one.
    """
    for draft in drafts:
        if not await hook(identity, draft):
            raise Forbidden(draft.topics[0], "the application does not let you publish this")


def rooms_in(answer: object) -> dict[str, bool]:
    """Return what the hook `rooms_of` has answered: rooms, and whether the user may publish there.

    Raises:
        AuthUnavailable: it is no answer.
    """
    rooms: dict[str, bool] = {}
    try:
        if not isinstance(answer, Iterable) or isinstance(answer, str):
            raise TypeError(answer)  # noqa: TRY301 - as for what it yields
        for each in answer:
            room, publish = each if isinstance(each, tuple) else (each, False)
            if not isinstance(room, str) or not isinstance(publish, bool):
                raise TypeError(each)  # noqa: TRY301 - as if it could not be unpacked
            rooms[room] = publish
    except (TypeError, ValueError) as error:
        logger.error("the hook rooms_of returned something else than names of rooms: %s", str(error)[:200])
        raise AuthUnavailable from error
    return rooms
