"""The query of a request: checked for UTF-8, read in all usual spellings, and refused with a hint for typos."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

from aiohttp import web
from multidict import MultiDict, MultiMapping

from hub.errors import InvalidInput
from hub.names import mistyped, plain

MAX_NAME = 64
ON_A_PAGE, MOST_ON_A_PAGE = 100, 1_000
MOST_JUDGED = 16
"""Maximum number of unknown names in a query that are checked for typos."""

# `Last-Event-ID`, `last_event_id`, `lastEventID` (Mercure), and the parameter of the polyfill by amvtek.
_LAST_EVENT_ID = frozenset({"lasteventid", "evslasteventid"})


class Parameters:
    """The query parameters of one path.

    Unknown parameters are ignored (`datastar`, cache busters), unless they are typos of known ones: a client must not
    have to wonder why its parameter has no effect.

    Args:
        names: the names of the parameters.
        elsewhere: names of parameters that only other paths have, with a sentence that says what to do instead.
    """

    def __init__(self, *names: str, elsewhere: Mapping[str, str] | None = None) -> None:
        self._names = frozenset(names)
        self._elsewhere = dict(elsewhere or {})
        self._meant = lru_cache(maxsize=256)(self._look_up)

    def read(self, request: web.BaseRequest) -> MultiMapping[str]:
        """Return the query of *request*, with usual spellings of its parameters replaced by their names.

        Raises:
            InvalidInput: it is not UTF-8, or a parameter is a typo of a known one.
        """
        raw = request.rel_url.raw_query_string
        if not raw:
            return request.query
        if "%" in raw or not raw.isascii():
            _check_utf8(raw)
        query = request.query
        if all(name in self._names for name in query):
            return query
        understood, judged = MultiDict[str](), 0
        for name, text in query.items():
            meant = self._spelled(name)
            if meant not in self._names and judged < MOST_JUDGED:
                judged += 1
                self._refuse_typo(name)
            understood.add(meant, text)
        return understood

    def _spelled(self, name: str) -> str:
        if "lastEventId" in self._names and len(name) <= MAX_NAME and plain(name) in _LAST_EVENT_ID:
            return "lastEventId"
        return name

    def _refuse_typo(self, name: str) -> None:
        if len(name) > MAX_NAME or not (meant := self._meant(name)):
            return
        if meant in self._elsewhere:
            raise InvalidInput(name, self._elsewhere[meant])
        raise InvalidInput(name, f"is no parameter here; did you mean {meant}?")

    def _look_up(self, name: str) -> str:
        # Some clients spell lists as `topic[]` or `topic[0]`.
        return mistyped(name.partition("[")[0], [*self._names, *self._elsewhere])


def page_limit(query: MultiMapping[str], *, default: int = ON_A_PAGE, most: int = MOST_ON_A_PAGE) -> int:
    """Return how many entries the page may have that *query* asks for.

    Raises:
        InvalidInput: `limit` is not a whole number from 1 to *most*.
    """
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise InvalidInput("limit", f"is not a whole number from 1 to {most:,}")
    return int(text)


def _check_utf8(raw: str) -> None:
    for pair in raw.split("&"):
        try:
            unquote_to_bytes(pair).decode()
        except UnicodeError:
            name = unquote_plus(pair.partition("=")[0].encode(errors="replace").decode())
            raise InvalidInput(name[:MAX_NAME], "is not UTF-8, percent-encoded") from None
