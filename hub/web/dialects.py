"""How a generation is told to a client: the hub's own events, OpenAI's chunks, or the AI SDK's message stream. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from hub.eventstream import block, compact_json
from hub.generations.generation import Ending, Generation, Phase

DONE = "[DONE]"
CLOSE = "hub.close"


class Dialect(Protocol):
    """What goes out for what happens; each method returns whole SSE blocks."""

    name: ClassVar[str]
    headers: ClassVar[Mapping[str, str]]  # of the answer

    def start(self, stream: Generation, after: int, retry: int) -> bytes:
        """Return what a stream begins with that goes on behind part *after*; *retry* is in milliseconds."""
        ...

    def text(self, stream: Generation, after: int) -> bytes:
        """Return the text behind part *after*, in one piece, with the number of its last part."""
        ...

    def end(self, stream: Generation, ending: Ending) -> bytes:
        """Return all that says how it ended; after this the server ends the answer."""
        ...

    def away(self, reason: str, retry: int) -> bytes:
        """Return the one block that ends a stream which is to go on in *retry* milliseconds; it has no id."""
        ...


def part_id(stream: Generation, number: int) -> str:
    """Return the SSE id of a part: `sessionId.number`."""
    return f"{stream.id}.{number}"


def end_id(stream: Generation) -> str:
    """Return the SSE id of the end: who comes back with it is answered 204, by whatever hub."""
    return f"{stream.id}.{stream.newest}.end"


class Classic:
    """`start`, plain messages with `{"content": …}`, one of `done`, `failed` and `cancelled`, `[DONE]`, `close`."""

    name: ClassVar[str] = "events"
    headers: ClassVar[Mapping[str, str]] = {}

    def start(self, stream: Generation, after: int, retry: int) -> bytes:
        facts = {"sessionId": stream.id, "model": stream.head.model, "createdAt": iso(stream.head.created)}
        return block(compact_json(facts), type="start", id=part_id(stream, after), retry=retry)

    def text(self, stream: Generation, after: int) -> bytes:
        return block(compact_json({"content": stream.text(after)}), id=part_id(stream, stream.newest))

    def end(self, stream: Generation, ending: Ending) -> bytes:
        said = block(compact_json(ending.facts), type=ending.phase)
        if ending.phase is Phase.DONE:
            said += block(DONE)
        # Only the last block has the id of the end: who is cut before it gets all of this again.
        return said + block(compact_json({"phase": ending.phase}), type="close", id=end_id(stream))

    def away(self, reason: str, retry: int) -> bytes:
        return block(compact_json({"reason": reason}), type=CLOSE, retry=retry)


class OpenAI:
    """`chat.completion.chunk` objects and `[DONE]`, as OpenAI's API streams them."""

    name: ClassVar[str] = "openai"
    headers: ClassVar[Mapping[str, str]] = {}

    def start(self, stream: Generation, after: int, retry: int) -> bytes:
        first = self._chunk(stream, {"role": "assistant", "content": ""})
        return block(first, id=part_id(stream, after), retry=retry)

    def text(self, stream: Generation, after: int) -> bytes:
        return block(self._chunk(stream, {"content": stream.text(after)}), id=part_id(stream, stream.newest))

    def end(self, stream: Generation, ending: Ending) -> bytes:
        if ending.phase is Phase.FAILED:
            error = {
                "error": {"message": ending.facts["message"], "type": "server_error", "code": ending.facts["reason"]}
            }
            return block(compact_json(error), id=end_id(stream))
        reason = ending.facts.get("finishReason", "stop")
        said = block(self._chunk(stream, {}, reason))
        usage = ending.facts.get("usage")
        if usage:
            said += block(self._chunk(stream, None, usage=usage))
        return said + block(DONE, id=end_id(stream))

    def away(self, reason: str, retry: int) -> bytes:
        # Its clients read the data of every block, whatever its type, and raise for an error alone.
        error = {"message": _detail(reason), "type": "server_error", "code": reason}
        return block(compact_json({"error": error}), type=CLOSE, retry=retry)

    @staticmethod
    def _chunk(stream: Generation, delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> str:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        return compact_json(
            {
                "id": f"chatcmpl-{stream.id}",
                "object": "chat.completion.chunk",
                "created": int(stream.head.created),
                "model": stream.head.model or "default",
                "choices": choices,
                **more,
            }
        )


class AISDK:
    """The UI message stream of the AI SDK, version 1, as `useChat` reads it."""

    name: ClassVar[str] = "ai-sdk"
    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def start(self, stream: Generation, after: int, retry: int) -> bytes:
        said = _json(type="start", messageId=stream.id), _json(type="start-step"), _json(type="text-start", id="0")
        return block(said[0], retry=retry) + block(said[1]) + block(said[2], id=part_id(stream, after))

    def text(self, stream: Generation, after: int) -> bytes:
        delta = _json(type="text-delta", id="0", delta=stream.text(after))
        return block(delta, id=part_id(stream, stream.newest))

    def end(self, stream: Generation, ending: Ending) -> bytes:
        said = block(_json(type="text-end", id="0")) + block(_json(type="finish-step"))
        if ending.phase is Phase.DONE:
            said += block(_json(type="finish"))
        elif ending.phase is Phase.FAILED:
            said += block(_json(type="error", errorText=ending.facts["message"]))
        else:
            said += block(_json(type="abort"))
        return said + block(DONE, id=end_id(stream))

    def away(self, reason: str, retry: int) -> bytes:
        return block(_json(type="error", errorText=_detail(reason)), type=CLOSE, retry=retry)


DIALECTS: dict[str, Dialect] = {each.name: each for each in (Classic(), OpenAI(), AISDK())}


def _detail(reason: str) -> str:
    return f"there is no stream now ({reason}); come back later"


def _json(**fields: Any) -> str:
    return compact_json(fields)


def iso(at: float) -> str:
    """Return seconds since 1970 as RFC 3339 has them, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"
