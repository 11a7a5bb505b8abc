"""The OpenAPI document: of the operations that one application has mounted, as they are there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from hub.errors import (
    AuthUnavailable,
    CrossSite,
    Forbidden,
    HubError,
    InvalidInput,
    TooLarge,
    TooManyRefusals,
    TooSlow,
    TryLater,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
    WrongHost,
)
from hub.web.endpoint import Handler
from hub.web.openapi.messages import MESSAGES
from hub.web.openapi.operations import TAGS, Answer, Content, Operation, Parameter, Rights, operation_of
from hub.web.openapi.schemas import PLAIN_PROBLEM, SCHEMAS, problem, ref, used

VERSION = "3.2.0"
PROBLEM = "application/problem+json"

_ABOUT = """Push events from a Python backend to browsers and other HTTP clients over Server-Sent Events.

Errors are problems (RFC 9457). Each path answers `OPTIONS`; a method that it does not have is a 405 with `Allow`.

After a status other than 200 an `EventSource` never connects again. So a `GET` for a stream whose `Accept` names
`text/event-stream`, and that has no `Authorization`, is refused with a 200 and the event `hub.close`, unless the hub is
told to answer with statuses.
"""


class Terms(NamedTuple):
    """What decides which refusals there are.

    Attributes:
        guarded: users are known.
        tokens: tokens are accepted.
        trusted: whoever reaches the hub may do everything.
        hosts: only some names in `Host` are answered.
    """

    guarded: bool = True
    tokens: bool = True
    trusted: bool = False
    hosts: bool = True


def document(mounted: Mapping[str, Mapping[str, Handler]], terms: Terms, server: str) -> dict[str, Any]:
    """Return the document.

    Args:
        mounted: the handlers by path and method.
        terms: what decides which refusals there are.
        server: the path under which a client sees the paths.
    """
    there = {
        path: {method: operation_of(path, method, handler) for method, handler in handlers.items()}
        for path, handlers in mounted.items()
    }
    paths = {
        path: {method.lower(): _operation(method, each, terms) for method, each in operations.items()}
        for path, operations in there.items()
    }
    tags = {each.tag for operations in there.values() for each in operations.values()}
    return {
        "openapi": VERSION,
        "info": {
            "title": "Broadcast Hub",
            "version": _version(),
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server or "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in tags],
        "paths": paths,
        "components": {
            "schemas": used(paths, SCHEMAS | MESSAGES | _problems(there, terms)),
            **({"securitySchemes": _SCHEMES} if terms.tokens else {}),
        },
    }


def _version() -> str:
    try:
        return version("broadcast-hub")
    except PackageNotFoundError:
        return "unknown"


_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "hub_token",
        "description": "the token; over TLS the name is `__Host-hub_token`",
    },
}


def _operation(method: str, operation: Operation, terms: Terms) -> dict[str, Any]:
    rights = operation.rights.value if terms.guarded else ""
    described = " ".join(each for each in (operation.description, rights) if each)
    found: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        **({"description": described} if described else {}),
    }
    if operation.parameters:
        found["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body is not None:
        found["requestBody"] = {
            "required": operation.needs_body,
            "content": {"application/json": _content("application/json", operation.body)},
        }
    found["responses"] = {
        **{str(status): _answer(answer) for status, answer in operation.answers.items()},
        **_refusals(errors_of(operation, terms)),
    }
    if terms.tokens and operation.rights is not Rights.EVERYBODY:
        # Beside tokens there may be a login, and topics that anybody may read: nothing is also a way in.
        anybody: list[dict[str, Any]] = [{}] if operation.rights in {Rights.GRANTED, Rights.READER} else []
        found["security"] = [{"token": []}, {"cookie": []}, *anybody]
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        **({"required": True} if parameter.place == "path" else {}),
        "schema": parameter.schema,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    if answer.content:
        found["content"] = {media: _content(media, each) for media, each in answer.content.items()}
    return found


def _content(media: str, content: Content) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if content.schema is not None:
        found["schema"] = content.schema
    if content.item is not None:
        found["itemSchema"] = content.item
    if content.example is not None:
        kind = "value" if media == "application/json" else "serializedValue"
        found["examples"] = {"example": {kind: content.example}}
    return found


# ---- problems ----


def errors_of(operation: Operation, terms: Terms) -> tuple[type[HubError], ...]:
    """Return the errors that *operation* may be answered with."""
    errors = [*operation.problems, UnsupportedEncoding]
    if terms.hosts:
        errors.append(WrongHost)
    if operation.body is not None:
        errors += [InvalidInput, TooLarge, TooSlow, UnsupportedMediaType]
    if terms.guarded:
        errors += operation.guarded
        if operation.rights is not Rights.EVERYBODY:
            errors += [TooManyRefusals, CrossSite]
    if not terms.trusted and operation.rights is not Rights.EVERYBODY:
        errors += [Unauthorized, Forbidden, AuthUnavailable]
    return tuple(dict.fromkeys(errors))


def _refusals(errors: Iterable[type[HubError]]) -> dict[str, Any]:
    by_status: dict[int, list[type[HubError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    found = {status: _refusal(some) for status, some in by_status.items()}
    if 400 not in found:  # a request that breaks the rules of HTTP
        found[400] = _plain("a request that breaks the rules of HTTP")
    found[417] = _plain("an expectation other than `100-continue`")
    return {str(status): found[status] for status in sorted(found)}


def _refusal(errors: list[type[HubError]]) -> dict[str, Any]:
    shown = [ref(each.__name__) for each in errors]
    if errors[0].status == 400:
        shown.append(ref(PLAIN_PROBLEM))
    schema = shown[0] if len(shown) == 1 else {"oneOf": shown}
    found: dict[str, Any] = {
        "description": "; ".join(_sentence(each) for each in errors),
        "content": {PROBLEM: {"schema": schema}},
    }
    if issubclass(errors[0], TryLater):
        found["headers"] = {"Retry-After": _header("seconds after which it may succeed", "integer")}
    elif errors[0] is Unauthorized:
        found["headers"] = {"WWW-Authenticate": _header("`Bearer`", "string")}
    return found


def _header(description: str, type: str) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": type}}


def _sentence(error: type[HubError]) -> str:
    return problem(error)["description"].rstrip(".")  # type: ignore[no-any-return]  # it is a string


def _plain(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM: {"schema": ref(PLAIN_PROBLEM)}}}


def _problems(there: Mapping[str, Mapping[str, Operation]], terms: Terms) -> dict[str, Any]:
    errors = {
        error
        for operations in there.values()
        for operation in operations.values()
        for error in errors_of(operation, terms)
    }
    return {error.__name__: problem(error) for error in sorted(errors, key=lambda each: (each.status, each.__name__))}
