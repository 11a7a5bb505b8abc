"""The description of the API as a judge: whether an answer is one that it describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from tests.web.client import StreamEnded
from tests.web.server import Answer, Site

PROBLEM = "application/problem+json"
STREAM = "text/event-stream"
LINES = "application/x-ndjson"


async def described(site: Site, **headers: str) -> Description:
    """Return the description that *site* gives of itself."""
    answer = await site.ask("GET", f"{site.prefix}/openapi.json", headers=headers)
    assert answer.status == 200, answer.body
    return Description(answer.json())


async def beginning(site: Site, method: str, path: str, **said: Any) -> Answer:
    """Return the answer to a request; of a stream, what there is up to the end of its first block or line."""
    client = await site.client()
    await client.request(method, path, **said)
    await client.head()
    if client.headers.get("Content-Type") == STREAM:
        try:
            await client.block()
        except StreamEnded:
            raise AssertionError("a stream without a block") from None
        body = bytes(client.received).rpartition(b"\n\n")[0] + b"\n\n"
    elif client.status == 101:
        body = b""
    elif client.headers.get("Content-Type") == LINES and path.startswith("/notifications/subscribe"):
        while b"\n" not in client.received:
            assert await client.more(), "a stream without a line"
        body = bytes(client.received).rpartition(b"\n")[0] + b"\n"
    else:
        body = await client.body()
    await client.aclose()
    return Answer(client.status, client.headers, body)


class Description:
    """An OpenAPI document.

    Attributes:
        document: all of it.
        operations: what it says of each operation, by method and path.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.operations = {
            (method.upper(), path): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }

    def operation(self, method: str, path: str) -> Any:
        """Return what there is about *method* on *path*, which is relative to the server; None: nothing."""
        plain = urlsplit(path).path
        exact = self.operations.get((method, plain))
        return exact if exact is not None else self._templated(method, plain)

    def _templated(self, method: str, path: str) -> Any:
        for (its_method, its_path), operation in self.operations.items():
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(its_path))
            if its_method == method and re.fullmatch(pattern, path):
                return operation
        return None

    def fault(self, method: str, path: str, answer: Answer) -> str:
        """Return why *answer* is not among those that are described; empty if it is."""
        operation = self.operation(method, path)
        if operation is None:
            return "nothing is said of it"
        said = operation["responses"].get(str(answer.status))
        if said is None:
            return f"{answer.status} is not described"
        missing = {
            name
            for name, header in said.get("headers", {}).items()
            if header.get("required") and name not in answer.headers
        }
        return f"has no {missing}" if missing else self._content_fault(said.get("content", {}), answer)

    def _content_fault(self, content: Mapping[str, Any], answer: Answer) -> str:
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        if not content:
            return "has a body" if answer.body else ""
        if media not in content:
            return f"{media} is not described"
        said = content[media]
        if media == STREAM:
            return next(filter(None, (self._event_fault(said["itemSchema"], each) for each in events(answer.body))), "")
        if media == LINES:
            lines = [json.loads(each) for each in answer.body.splitlines()]
            return next(filter(None, (self._why(said["itemSchema"], each) for each in lines)), "")
        if media.endswith("json"):
            return self._why(said["schema"], json.loads(answer.body))
        return ""

    def _why(self, schema: Mapping[str, Any], value: object) -> str:
        validator = Draft202012Validator(
            {"components": self.document["components"], **schema},
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        return "; ".join(f"{error.json_path}: {error.message}" for error in validator.iter_errors(value))

    def _event_fault(self, schema: Mapping[str, Any], event: Mapping[str, Any]) -> str:
        """Return why *event* is none of the alternatives of *schema*, with the JSON in its data."""
        faults = [self._alternative_fault(each, event) for each in self._alternatives(schema)]
        return "" if "" in faults else f"{event} is no event that is described: {faults}"

    def _alternative_fault(self, schema: Mapping[str, Any], event: Mapping[str, Any]) -> str:
        if why := self._why(schema, event):
            return why
        data = schema["properties"]["data"]
        if "contentSchema" not in data:
            return ""
        try:
            return self._why(data["contentSchema"], json.loads(event["data"]))
        except ValueError:
            return "its data is not JSON"

    def _alternatives(self, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if "$ref" in schema:
            yield from self._alternatives(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        elif "oneOf" in schema or "anyOf" in schema:
            for each in schema.get("oneOf") or schema["anyOf"]:
                yield from self._alternatives(each)
        else:
            yield schema

    def problems(self) -> set[tuple[str, int, str]]:
        """Return the problems that are described: the operation, the status and the type."""
        return {
            (operation["operationId"], int(status), self._schema(each)["properties"]["type"]["const"])
            for operation in self.operations.values()
            for status, answer in operation["responses"].items()
            if PROBLEM in answer.get("content", {})
            for each in _either(answer["content"][PROBLEM]["schema"])
        }

    def successes(self) -> set[tuple[str, int, str]]:
        """Return the other answers that are described: the operation, the status and the media type."""
        return {
            (operation["operationId"], int(status), media)
            for operation in self.operations.values()
            for status, answer in operation["responses"].items()
            if PROBLEM not in answer.get("content", {})
            for media in answer.get("content", {"": {}})
        }

    def _schema(self, reference: Mapping[str, str]) -> Any:
        return self.document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]


def _either(schema: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return schema.get("oneOf") or [schema]


def events(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream with their fields as they are on the wire; blocks without data are no events."""
    for block in body.decode().split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
        event: dict[str, Any] = {name: value for name, _, value in lines if name != "data"}
        if any(name == "data" for name, _, _ in lines):
            event["data"] = "\n".join(value for name, _, value in lines if name == "data")
            yield event | ({"retry": int(event["retry"])} if "retry" in event else {})
