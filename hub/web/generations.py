"""`/ai/chat/stream`: a generation is begun, watched from anywhere, resumed in the middle and stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from hub.errors import (
    GenerationExpired,
    InvalidInput,
    LogUnavailable,
    ShuttingDown,
    TooManyGenerations,
    TooManyStreams,
    UnknownGeneration,
)
from hub.generations.generation import MODEL_LENGTH, Ending, Generation, Head, Phase
from hub.generations.providers.provider import Prompt
from hub.hub import Hub
from hub.web.body import read_json
from hub.web.dialects import DIALECTS, Dialect, iso, part_id
from hub.web.endpoint import Handler, check_site, cors
from hub.web.links import link
from hub.web.query import Parameters
from hub.web.stream import HEADERS, MEDIA_TYPE, Away, EventStream, come_back, is_chunked, sent_away
from hub.web.viewer import GenerationViewer

PATH = "/ai/chat/stream"
MAX_MESSAGES = 1_000
MAX_KEY_LENGTH = 256

_ID = re.compile(r"(?P<session>[A-Za-z0-9_~-]{1,64})\.(?P<part>0|[1-9][0-9]{0,9})(?P<end>\.end)?", re.ASCII)
_BEGIN_BY_GET = Parameters("message", "format", "lastEventId")
_BEGIN_BY_POST = Parameters("format", elsewhere={"message": "a POST has its message in the body"})
_WATCH = Parameters("format", "lastEventId")
_PROMPT = frozenset({"message", "messages", "model"})


def routes() -> dict[str, dict[str, Handler]]:
    """Return the handlers, by path and method."""
    return {
        PATH: {"GET": generate_and_watch, "POST": generate_on_the_post},
        PATH + "/init": {"POST": init},
        PATH + "/{sessionId}": {"GET": watch, "DELETE": cancel},
        PATH + "/{sessionId}/cancel": {"POST": cancel, "DELETE": cancel},
    }


async def init(hub: Hub, request: web.Request) -> web.Response:
    """Begin a generation, at once and detached from this request, and say where it can be watched."""
    stream, new = await _begin(hub, request, _prompt(await read_json(request)))
    where = _place(hub, request, stream, up=1)
    expires = stream.head.created + hub.generations.limits.whole + hub.generations.limits.keep
    answer = {
        "sessionId": stream.id,
        "streamUrl": where,
        "cancelUrl": where + "/cancel",
        "expiresAt": iso(expires),
    }
    return web.json_response(answer, status=201 if new else 200, headers={"Location": where})


async def generate_on_the_post(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Begin a generation and stream it on this very answer, which names the place where it can be resumed."""
    dialect = _dialect(_BEGIN_BY_POST.read(request))
    if hub.connections.full:
        raise TooManyStreams(hub.max_connections)
    stream, _ = await _begin(hub, request, _prompt(await read_json(request)))
    place = {"Content-Location": _place(hub, request, stream)}
    return await _watch(hub, request, stream, dialect, 0, **place)


async def generate_and_watch(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Begin a generation and stream it; a request that comes back with an id never begins one."""
    query = _BEGIN_BY_GET.read(request)
    dialect, asked = _dialect(query), _asked(request, query)
    match = _ID.fullmatch(asked)
    if match is not None and match["end"]:
        return web.Response(status=204)
    if not asked:
        check_site(hub, request)
    away = sent_away(hub, dialect.away)
    if away is not None:
        return away
    if not asked:
        prompt = _prompt({"message": query.get("message", "")})
        try:
            stream, _ = await _begin(hub, request, prompt)
        except LogUnavailable:
            return come_back(Away.LOG_UNAVAILABLE, dialect.away)
        except TooManyGenerations:
            return come_back(Away.CAPACITY, dialect.away)
        place = {"Content-Location": _place(hub, request, stream)}
        return await _watch(hub, request, stream, dialect, 0, **place)
    try:
        stream = await hub.generations.find(match["session"] if match is not None else "")
    except (UnknownGeneration, GenerationExpired):
        return _lost(dialect, match)
    except LogUnavailable:
        return come_back(Away.LOG_UNAVAILABLE, dialect.away)
    return await _watch(hub, request, stream, dialect, _cursor(stream, asked))


async def watch(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Stream a generation: what there is behind the asked id, then what comes; or tell where it stands, as JSON."""
    id, query = request.match_info["sessionId"], _WATCH.read(request)
    dialect, asked = _dialect(query), _asked(request, query)
    match = _ID.fullmatch(asked)
    if match is not None and match["end"] and match["session"] == id:
        return web.Response(status=204)  # without a look at what is kept: it may be long gone
    if _wants_snapshot(request, query):
        stream = await hub.generations.find(id)
        return web.json_response(_snapshot(stream), headers={"Cache-Control": "no-store"})
    away = sent_away(hub, dialect.away)
    if away is not None:
        return away
    try:
        stream = await hub.generations.find(id)
    except LogUnavailable:
        return come_back(Away.LOG_UNAVAILABLE, dialect.away)
    return await _watch(hub, request, stream, dialect, _cursor(stream, asked))


async def _watch(
    hub: Hub, request: web.Request, stream: Generation, dialect: Dialect, cursor: int, **headers: str
) -> web.StreamResponse:
    """Answer *request* with what *stream* says behind part *cursor*, until its end."""
    response = EventStream(request)
    response.headers.update(cors(request, hub.settings.cors_origins))
    response.headers.update(dialect.headers)
    response.headers.update(headers)
    response.headers["Connection"] = "close"  # as it will be, at the end of the answer
    viewer = GenerationViewer(stream, dialect, cursor, chunked=is_chunked(request), registry=hub.connections)
    await response.hand_over(request, viewer)
    return response


async def cancel(hub: Hub, request: web.Request) -> web.Response:
    """Stop a generation, and its provider, at once; to stop what has ended changes nothing."""
    check_site(hub, request)
    stream = await hub.generations.find(request.match_info["sessionId"])
    stream.cancel()
    await stream.ended()
    return web.json_response({"sessionId": stream.id, "phase": stream.phase})


async def _begin(hub: Hub, request: web.Request, prompt: Prompt) -> tuple[Generation, bool]:
    if hub.draining:
        raise ShuttingDown
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidInput("Idempotency-Key", f"is not a string of 1 to {MAX_KEY_LENGTH} characters")
    return await hub.generations.start(
        lambda: hub.provider.stream(prompt), model=prompt.model, key=key, asked=prompt.digest
    )


def _prompt(body: object) -> Prompt:
    """Return what is asked: one `message`, or OpenAI's `messages`, and what else the provider may understand."""
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    message, messages, model = (body.get(name) for name in ("message", "messages", "model"))
    if (message is None) == (messages is None):
        raise InvalidInput("message", "is required, or messages in its place")
    if messages is None:
        if not isinstance(message, str) or not message.strip():
            raise InvalidInput("message", "is not a string with something in it")
        messages = [{"role": "user", "content": message}]
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidInput("messages", f"is not a list of 1 to {MAX_MESSAGES:,} messages")
    for place, each in enumerate(messages):
        if not isinstance(each, Mapping) or not isinstance(each.get("role"), str):
            raise InvalidInput(f"messages[{place}].role", "is not a string")
        if not isinstance(each.get("content"), str | list) and not each.get("tool_calls"):
            raise InvalidInput(f"messages[{place}].content", "is neither a string nor a list of parts")
    if model is not None and not (isinstance(model, str) and len(model) <= MODEL_LENGTH and _is_text(model)):
        raise InvalidInput("model", f"is not a string of at most {MODEL_LENGTH} characters")
    prompt = Prompt(messages, model, {name: value for name, value in body.items() if name not in _PROMPT})
    try:
        _ = prompt.digest
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidInput("body", "has half a character, which UTF-8 can't carry") from None
    except ValueError:
        raise InvalidInput("body", "has a number that is not finite") from None
    return prompt


def _is_text(value: str) -> bool:
    """Tell whether UTF-8 can carry *value*: JSON can hold half a character."""
    return value.isascii() or value.encode(errors="ignore").decode() == value


def _asked(request: web.Request, query: MultiMapping[str]) -> str:
    return request.headers.get("Last-Event-ID") or query.get("lastEventId", "")


def _wants_snapshot(request: web.Request, query: MultiMapping[str]) -> bool:
    """Tell whether JSON is asked for; OpenAI's client says that it takes JSON, and nothing else, for streams too."""
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and MEDIA_TYPE not in accept and "format" not in query


def _cursor(stream: Generation, asked: str) -> int:
    """Return the part behind which to go on; what is not an id of this generation begins at the beginning."""
    match = _ID.fullmatch(asked)
    known = match is not None and match["session"] == stream.id and int(match["part"]) <= stream.newest
    return int(match["part"]) if match is not None and known else 0


def _dialect(query: MultiMapping[str]) -> Dialect:
    name = query.get("format", "events")
    if name not in DIALECTS:
        raise InvalidInput("format", f"is none of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def _place(hub: Hub, request: web.Request, stream: Generation, up: int = 0) -> str:
    return link(hub, request, up=up, path=f"/{stream.id}")


def _snapshot(stream: Generation) -> dict[str, Any]:
    facts = dict(stream.ending.facts) if stream.ending is not None else {}
    return {
        "sessionId": stream.id,
        "phase": stream.phase,
        "text": stream.text(),
        "lastEventId": part_id(stream, stream.newest),
        "model": stream.head.model,
        "createdAt": iso(stream.head.created),
        **facts,
    }


def _lost(dialect: Dialect, match: re.Match[str] | None) -> web.Response:
    """Tell an `EventSource` that what it comes back for is gone, so that it ends instead of asking for it again."""
    stream = Generation(Head(match["session"] if match is not None else "lost", None, None, time.time()))
    ending = Ending(Phase.FAILED, {"reason": "lost", "message": "the answer is no longer kept"})
    headers = {**HEADERS, **dialect.headers, "Content-Type": MEDIA_TYPE}
    return web.Response(body=dialect.end(stream, ending), headers=headers)
