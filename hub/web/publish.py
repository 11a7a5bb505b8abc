"""The endpoints `/notifications/publish` and `/events/{name}`: notifications and events over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from urllib.parse import quote

from aiohttp import web

from hub.errors import Forbidden, InvalidDraft, InvalidInput, LogUnavailable, ShuttingDown, TooLarge, Unauthorized
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.log.receipt import Receipt
from hub.notification import Draft, Position
from hub.web.access import Access
from hub.web.body import read_json
from hub.web.denials import PUBLISH, note_denial
from hub.web.limits import check_publish, publisher
from hub.web.links import link

MAX_DRAFTS = 1_000


async def publish(hub: Hub, request: web.Request) -> web.Response:
    """Publish one draft, or a list of them, and return the positions that the log has confirmed."""
    try:
        return await _publish(hub, request)
    except (Unauthorized, Forbidden) as error:
        note_denial(hub, request, PUBLISH, error)
        raise


async def _publish(hub: Hub, request: web.Request) -> web.Response:
    if hub.draining:
        raise ShuttingDown
    access = Access.of(request)
    identity = await access.identity(request)
    access.policy.check_may_publish(identity)
    who = publisher(hub, request, identity)
    check_publish(hub, who)  # before the body is read
    body = await read_json(request)
    if isinstance(body, list):
        drafts = _drafts(body)
        check_publish(hub, who, len(drafts))
        receipts = hub.notifications.publish(await access.publish(request, drafts))
        text = f"[{','.join(await _all_accepted(receipts))}]"
        return _answer(text, repeated=all(receipt.repeated for receipt in receipts))
    draft = Draft.from_json(body)
    check_publish(hub, who, 1)
    (receipt,) = hub.notifications.publish(await access.publish(request, (draft,)))
    position = await receipt
    where = {} if receipt.repeated else {"Location": link(hub, request, up=1, path=_place(receipt.topics[0], position))}
    return _answer(_accepted(receipt, position), repeated=receipt.repeated, **where)


def _answer(text: str, *, repeated: bool, **headers: str) -> web.Response:
    headers |= {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(body=text.encode(), status=200 if repeated else 201, headers=headers)


_quoted = lru_cache(maxsize=4096)(partial(quote, safe="/"))


def _place(topic: str, position: Position) -> str:
    """Return the path and query of the history page that has just this notification, the next one of *topic*."""
    return f"/history?topic={_quoted(topic)}&after={position.epoch}-{position.offset - 1}&limit=1"


async def _all_accepted(receipts: Sequence[Receipt]) -> list[str]:
    """Return the JSON for each receipt. All receipts are awaited, even after one has failed."""
    answers: list[str] = []
    failure: LogUnavailable | None = None
    for receipt in receipts:
        try:
            answers.append(_accepted(receipt, await receipt))
        except LogUnavailable as error:
            failure = error
    if failure is not None:
        raise failure
    return answers


# Most notifications have one topic. A cache for lists of up to 16 could grow by megabytes.
_one_as_json = lru_cache(maxsize=4096)(compact_json)


def _accepted(receipt: Receipt, position: Position) -> str:
    as_json = _one_as_json if len(receipt.topics) == 1 else compact_json
    return f'{{"id":"{position.epoch}-{position.offset}","topics":{as_json(receipt.topics)}}}'


def _drafts(body: list[object]) -> list[Draft]:
    if not 1 <= len(body) <= MAX_DRAFTS:
        raise InvalidDraft("body", f"is not a list of 1 to {MAX_DRAFTS:,} drafts")
    drafts = []
    for place, fields in enumerate(body):
        try:
            drafts.append(Draft.from_json(fields))
        except (InvalidInput, TooLarge) as error:
            error.field = f"[{place}].{error.field}"
            raise
    return drafts


async def emit(hub: Hub, request: web.Request) -> web.Response:
    """Emit an event on the bus, with the JSON body as its payload."""
    if hub.draining:
        raise ShuttingDown
    await Access.of(request).administer(request)
    payload = await read_json(request)
    await Access.of(request).administer(request)  # the rights may have ended while the body came
    event = hub.bus.emit(request.match_info["name"], payload)
    return web.json_response({"id": event.id, "name": event.name}, status=202)
