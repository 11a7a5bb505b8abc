"""`/ai/chat/stream`: begin a generation, watch it from anywhere, resume it in the middle, stop it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from hub.connections.holders import Holder
from hub.encoding import Limit
from hub.errors import (
    GenerationExpired,
    InvalidInput,
    LogUnavailable,
    ShuttingDown,
    StateUnavailable,
    TooManyGenerations,
    TooManyStreams,
    UnknownGeneration,
)
from hub.generations.generation import MODEL_LENGTH, Ending, Generation, Head, Phase
from hub.generations.providers.provider import Prompt
from hub.hub import Hub
from hub.web.access import Access
from hub.web.body import read_json
from hub.web.dialects import DIALECTS, Dialect, iso, part_id
from hub.web.endpoint import Handler, check_site, cors, opens_stream
from hub.web.limits import holder_of, refused
from hub.web.links import link
from hub.web.query import Parameters
from hub.web.stream import HEADERS, MEDIA_TYPE, Away, EventStream, come_back, first_retry, is_chunked, sent_away
from hub.web.viewer import GenerationViewer

PATH = "/ai/chat/stream"
MAX_MESSAGES = 1_000
MAX_KEY_LENGTH = 256

_ID = re.compile(r"(?P<session>[A-Za-z0-9_~-]{1,64})\.(?P<part>0|[1-9][0-9]{0,9})(?P<end>\.end)?", re.ASCII)
_BEGIN_BY_GET = Parameters("message", "format", "lastEventId")
_BEGIN_BY_POST = Parameters("format", elsewhere={"message": "a POST has its message in the body"})
_WATCH = Parameters("format", "lastEventId")
_PROMPT = frozenset({"message", "messages", "model"})


def routes(hub: Hub) -> dict[str, dict[str, Handler]]:
    """Return the handlers, by path and method.

    Without a provider there are none; or only those to watch and to stop what the application begins itself, if the
    settings say that it does.
    """
    watching: dict[str, dict[str, Handler]] = {
        PATH + "/{sessionId}": {"GET": watch, "DELETE": cancel},
        PATH + "/{sessionId}/cancel": {"POST": cancel, "DELETE": cancel},
    }
    if hub.provider is None:
        return watching if hub.settings.ai_provider == "application" else {}
    return {
        PATH: {"GET": generate_and_watch, "POST": generate_on_the_post},
        PATH + "/init": {"POST": init},
        **watching,
    }


async def init(hub: Hub, request: web.Request) -> web.Response:
    """Begin a generation, detached from this request, and return where it can be watched."""
    await _owner(request)  # before the body is read
    generation, new = await _begin(hub, request, _prompt(await read_json(request)))
    where = _place(hub, request, generation, up=1)
    expires = generation.head.created + hub.generations.limits.whole + hub.generations.limits.keep
    facts = {
        "sessionId": generation.id,
        "streamUrl": where,
        "cancelUrl": where + "/cancel",
        "expiresAt": iso(expires),
    }
    return web.json_response(facts, status=201 if new else 200, headers={"Location": where})


async def generate_on_the_post(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Begin a generation and stream it in this response, whose `Content-Location` is where it can be resumed."""
    dialect = _dialect(_BEGIN_BY_POST.read(request))
    if (ending := refused(hub, request, await _holder(hub, request))) is not None:
        hub.metrics.refused += 1
        raise TooManyStreams(ending.limit or "max_connections")
    generation, _ = await _begin(hub, request, _prompt(await read_json(request)))
    place = {"Content-Location": _place(hub, request, generation)}
    return await _respond(hub, request, generation, dialect, 0, **place)


@opens_stream
async def generate_and_watch(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Begin a generation and stream it; a request with the id of an earlier one resumes that, and begins none."""
    query = _BEGIN_BY_GET.read(request)
    dialect, asked = _dialect(query), _asked(request, query)
    match = _ID.fullmatch(asked)
    if match is not None and match["end"]:
        return web.Response(status=204)
    if not asked:
        check_site(hub, request)
    away = sent_away(hub, request, await _holder(hub, request), dialect.away)
    if away is not None:
        return away
    if not asked:
        prompt = _prompt({"message": query.get("message", "")})
        try:
            generation, _ = await _begin(hub, request, prompt)
        except (LogUnavailable, StateUnavailable):
            return come_back(Away.LOG_UNAVAILABLE, dialect.away)
        except ShuttingDown:
            return come_back(Away.DRAINING, dialect.away)
        except TooManyGenerations as error:
            return come_back(Away.CAPACITY, dialect.away, Limit(error.limit))
        place = {"Content-Location": _place(hub, request, generation)}
        return await _respond(hub, request, generation, dialect, 0, **place)
    try:
        generation = await _find(hub, request, match["session"] if match is not None else "")
    except (UnknownGeneration, GenerationExpired):
        return _lost(dialect, match)
    except (LogUnavailable, StateUnavailable):
        return come_back(Away.LOG_UNAVAILABLE, dialect.away)
    return await _respond(hub, request, generation, dialect, _cursor(generation, asked))


@opens_stream
async def watch(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Stream a generation: what follows the asked id, then what comes; or return its state as JSON."""
    id, query = request.match_info["sessionId"], _WATCH.read(request)
    dialect, asked = _dialect(query), _asked(request, query)
    match = _ID.fullmatch(asked)
    if match is not None and match["end"] and match["session"] == id:
        return web.Response(status=204)  # without looking it up: it may be gone
    if _wants_snapshot(request, query):
        generation = await _find(hub, request, id)
        return web.json_response(_snapshot(generation), headers={"Cache-Control": "no-store"})
    away = sent_away(hub, request, await _holder(hub, request), dialect.away)
    if away is not None:
        return away
    try:
        generation = await _find(hub, request, id)
    except (LogUnavailable, StateUnavailable):
        return come_back(Away.LOG_UNAVAILABLE, dialect.away)
    return await _respond(hub, request, generation, dialect, _cursor(generation, asked))


async def _holder(hub: Hub, request: web.Request) -> Holder:
    """Return the holder of the stream that *request* asks for, with the rights that end it."""
    return holder_of(hub, request, await Access.of(request).known(request))


async def _owner(request: web.Request) -> str | None:
    """Return the user whose generations *request* may begin, watch and stop; None where nobody is known."""
    identity = await Access.of(request).known(request)
    return None if identity is None else identity.user


async def _find(hub: Hub, request: web.Request, id: str) -> Generation:
    return await hub.generations.find(id, owner=await _owner(request))


async def _respond(
    hub: Hub, request: web.Request, generation: Generation, dialect: Dialect, cursor: int, **headers: str
) -> web.StreamResponse:
    """Stream *generation* to the client of *request*, from what follows part *cursor* to its end."""
    response = EventStream(request)
    response.headers.update(cors(request, hub.settings.cors_origins))
    response.headers.update(dialect.headers)
    response.headers.update(headers)
    response.headers["Connection"] = "close"  # as it will be, at the end of the response
    viewer = GenerationViewer(
        generation,
        dialect,
        cursor,
        chunked=is_chunked(request),
        retry=first_retry(request, 1, 3),
        registry=hub.connections,
        holder=await _holder(hub, request),
    )
    await response.hand_over(request, viewer)
    return response


async def cancel(hub: Hub, request: web.Request) -> web.Response:
    """Stop a generation, and its provider, at once; one that has ended stays as it is."""
    check_site(hub, request)
    generation = await _find(hub, request, request.match_info["sessionId"])
    await hub.generations.cancel(generation)
    return web.json_response({"sessionId": generation.id, "phase": generation.phase})


async def _begin(hub: Hub, request: web.Request, prompt: Prompt) -> tuple[Generation, bool]:
    if hub.draining:
        raise ShuttingDown
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidInput("Idempotency-Key", f"is not a string of 1 to {MAX_KEY_LENGTH} characters")
    provider = hub.provider
    assert provider is not None  # or there was no route
    owner = await _owner(request)
    return await hub.generations.start(
        lambda: provider.stream(prompt), owner=owner, model=prompt.model, key=key, asked=prompt.digest
    )


def _prompt(body: object) -> Prompt:
    """Return the prompt in *body*: one `message` or OpenAI's `messages`, and further fields for the provider."""
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
    """Tell whether the client asks for JSON. OpenAI's client sends `Accept: application/json` for streams, too."""
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and MEDIA_TYPE not in accept and "format" not in query


def _cursor(generation: Generation, asked: str) -> int:
    """Return the part after which to go on: 0, the beginning, if *asked* is not an id of *generation*."""
    match = _ID.fullmatch(asked)
    known = match is not None and match["session"] == generation.id and int(match["part"]) <= generation.newest
    return int(match["part"]) if match is not None and known else 0


def _dialect(query: MultiMapping[str]) -> Dialect:
    name = query.get("format", "events")
    if name not in DIALECTS:
        raise InvalidInput("format", f"is none of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def _place(hub: Hub, request: web.Request, generation: Generation, up: int = 0) -> str:
    return link(hub, request, up=up, path=f"/{generation.id}")


def _snapshot(generation: Generation) -> dict[str, Any]:
    facts = dict(generation.ending.facts) if generation.ending is not None else {}
    return {
        "sessionId": generation.id,
        "phase": generation.phase,
        "text": generation.text(),
        "lastEventId": part_id(generation, generation.newest),
        "model": generation.head.model,
        "createdAt": iso(generation.head.created),
        **facts,
    }


def _lost(dialect: Dialect, match: re.Match[str] | None) -> web.Response:
    """Return a stream with nothing but the end of a generation that is gone: an `EventSource` can't read a status."""
    generation = Generation(Head(match["session"] if match is not None else "lost", None, None, time.time()))
    ending = Ending(Phase.FAILED, {"reason": "lost", "message": "the answer is no longer kept"})
    headers = {**HEADERS, **dialect.headers, "Content-Type": MEDIA_TYPE}
    return web.Response(body=dialect.end(generation, ending), headers=headers)
