"""The formats of a generation on the wire: the hub's events, OpenAI's chunks, the AI SDK's messages, HTML. Pure."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from hub.encoding import End, closing
from hub.eventstream import block, compact_json
from hub.generations.generation import Ending, Generation, Phase

DONE = "[DONE]"
CLOSE = "hub.close"


class Dialect(Protocol):
    """A format of a generation; each method returns complete SSE blocks."""

    name: ClassVar[str]
    headers: ClassVar[Mapping[str, str]]  # of the response

    def start(self, generation: Generation, after: int, retry: int) -> bytes:
        """Return the first blocks of a stream that goes on after part *after*; *retry* is in milliseconds."""
        ...

    def text(self, generation: Generation, after: int) -> bytes:
        """Return the text after part *after*, in one piece, with the id of its last part."""
        ...

    def end(self, generation: Generation, ending: Ending) -> bytes:
        """Return the last blocks, which say how the generation ended; then the server ends the stream."""
        ...

    def away(self, end: End) -> bytes:
        """Return the only block, without an id, of a stream that the client should open again later."""
        ...


def part_id(generation: Generation, number: int) -> str:
    """Return the SSE id of a part: `sessionId.number`."""
    return f"{generation.id}.{number}"


def end_id(generation: Generation) -> str:
    """Return the SSE id of the end: a client that comes back with it gets 204, from any hub."""
    return f"{generation.id}.{generation.newest}.end"


class Classic:
    """`start`, plain messages with `{"content": …}`, one of `done`, `failed` and `cancelled`, `[DONE]`, `close`."""

    name: ClassVar[str] = "events"
    headers: ClassVar[Mapping[str, str]] = {}

    def start(self, generation: Generation, after: int, retry: int) -> bytes:
        facts = {"sessionId": generation.id, "model": generation.head.model, "createdAt": iso(generation.head.created)}
        return block(compact_json(facts), type="start", id=part_id(generation, after), retry=retry)

    def text(self, generation: Generation, after: int) -> bytes:
        return block(compact_json({"content": generation.text(after)}), id=part_id(generation, generation.newest))

    def end(self, generation: Generation, ending: Ending) -> bytes:
        said = block(compact_json(ending.facts), type=ending.phase)
        if ending.phase is Phase.DONE:
            said += block(DONE)
        # Only the last block has the id of the end: a client that is cut before it gets all of this again.
        return said + block(compact_json({"phase": ending.phase}), type="close", id=end_id(generation))

    def away(self, end: End) -> bytes:
        return closing(end)


class OpenAI:
    """`chat.completion.chunk` objects and `[DONE]`, as OpenAI's API streams them."""

    name: ClassVar[str] = "openai"
    headers: ClassVar[Mapping[str, str]] = {}

    def start(self, generation: Generation, after: int, retry: int) -> bytes:
        first = self._chunk(generation, {"role": "assistant", "content": ""})
        return block(first, id=part_id(generation, after), retry=retry)

    def text(self, generation: Generation, after: int) -> bytes:
        return block(
            self._chunk(generation, {"content": generation.text(after)}), id=part_id(generation, generation.newest)
        )

    def end(self, generation: Generation, ending: Ending) -> bytes:
        if ending.phase is Phase.FAILED:
            error = {
                "error": {"message": ending.facts["message"], "type": "server_error", "code": ending.facts["reason"]}
            }
            return block(compact_json(error), id=end_id(generation))
        reason = ending.facts.get("finishReason", "stop")
        said = block(self._chunk(generation, {}, reason))
        usage = ending.facts.get("usage")
        if usage:
            said += block(self._chunk(generation, None, usage=usage))
        return said + block(DONE, id=end_id(generation))

    def away(self, end: End) -> bytes:
        # Its clients read the data of every block, whatever its type, and raise only for an error.
        error = {"message": _detail(end), "type": "server_error", "code": end.reason}
        return block(compact_json({"error": error}), type=CLOSE, retry=end.retry)

    @staticmethod
    def _chunk(generation: Generation, delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> str:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        return compact_json(
            {
                "id": f"chatcmpl-{generation.id}",
                "object": "chat.completion.chunk",
                "created": int(generation.head.created),
                "model": generation.head.model or "default",
                "choices": choices,
                **more,
            }
        )


class AISDK:
    """The UI message stream of the AI SDK, version 1, as `useChat` reads it."""

    name: ClassVar[str] = "ai-sdk"
    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def start(self, generation: Generation, after: int, retry: int) -> bytes:
        said = _json(type="start", messageId=generation.id), _json(type="start-step"), _json(type="text-start", id="0")
        return block(said[0], retry=retry) + block(said[1]) + block(said[2], id=part_id(generation, after))

    def text(self, generation: Generation, after: int) -> bytes:
        delta = _json(type="text-delta", id="0", delta=generation.text(after))
        return block(delta, id=part_id(generation, generation.newest))

    def end(self, generation: Generation, ending: Ending) -> bytes:
        said = block(_json(type="text-end", id="0")) + block(_json(type="finish-step"))
        if ending.phase is Phase.DONE:
            said += block(_json(type="finish"))
        elif ending.phase is Phase.FAILED:
            said += block(_json(type="error", errorText=ending.facts["message"]))
        else:
            said += block(_json(type="abort"))
        return said + block(DONE, id=end_id(generation))

    def away(self, end: End) -> bytes:
        return block(_json(type="error", errorText=_detail(end)), type=CLOSE, retry=end.retry)


class HTML:
    """The events of `Classic` with HTML as their data, for htmx: plain messages hold the text, escaped.

    What a page swaps in has to be without `[DONE]`. A piece is an element, because HTML libraries trim bare text.
    """

    name: ClassVar[str] = "html"
    headers: ClassVar[Mapping[str, str]] = {}

    def start(self, generation: Generation, after: int, retry: int) -> bytes:
        return block(html.escape(generation.id), type="start", id=part_id(generation, after), retry=retry)

    def text(self, generation: Generation, after: int) -> bytes:
        escaped = html.escape(generation.text(after))
        return block(f"<span>{escaped}</span>", id=part_id(generation, generation.newest))

    def end(self, generation: Generation, ending: Ending) -> bytes:
        said = ending.facts.get("message") or ending.facts.get("finishReason") or ending.phase
        # As in `Classic`: the id of the end comes last.
        return block(html.escape(str(said)), type=ending.phase) + block(
            ending.phase, type="close", id=end_id(generation)
        )

    def away(self, end: End) -> bytes:
        return closing(end)


DIALECTS: dict[str, Dialect] = {each.name: each for each in (Classic(), OpenAI(), AISDK(), HTML())}


def _detail(end: End) -> str:
    why = end.reason if end.limit is None else f"{end.reason}: {end.limit}"
    return f"there is no stream now ({why}); come back later"


def _json(**fields: Any) -> str:
    return compact_json(fields)


def iso(at: float) -> str:
    """Return seconds since 1970 as RFC 3339 has them, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"
