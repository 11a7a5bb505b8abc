"""The query of a request: UTF-8 or nothing, every usual spelling understood, and no typo without a word."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

from aiohttp import web
from multidict import MultiDict, MultiMapping

from hub.errors import InvalidInput
from hub.names import mistyped, plain

MAX_NAME = 64
MOST_JUDGED = 16
"""Of so many names that are not the hub's, the first ones of a query, each is looked at for a typo."""

# `Last-Event-ID`, `last_event_id`, `lastEventID` (Mercure), and what the polyfill of amvtek sends.
_LAST_EVENT_ID = frozenset({"lasteventid", "evslasteventid"})


class Parameters:
    """The parameters that one path knows.

    Others are not the hub's affair (`datastar`, cache busters), unless they are typos of these: then whoever sent them
    would wonder why nothing happens.

    Args:
        names: how they are spelled.
        elsewhere: names that mean something on other paths, and what to do instead here.
    """

    def __init__(self, *names: str, elsewhere: Mapping[str, str] | None = None) -> None:
        self._names = frozenset(names)
        self._elsewhere = dict(elsewhere or {})
        self._meant = lru_cache(maxsize=256)(self._look_up)

    def read(self, request: web.BaseRequest) -> MultiMapping[str]:
        """Return the query of *request*, its parameters under the names that they have here.

        Raises:
            InvalidInput: it is not UTF-8, or a parameter is a typo of one of these.
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
        # `topic[]` and `topic[0]` are how some clients spell lists.
        return mistyped(name.partition("[")[0], [*self._names, *self._elsewhere])


def _check_utf8(raw: str) -> None:
    for pair in raw.split("&"):
        try:
            unquote_to_bytes(pair).decode()
        except UnicodeError:
            name = unquote_plus(pair.partition("=")[0].encode(errors="replace").decode())
            raise InvalidInput(name[:MAX_NAME], "is not UTF-8, percent-encoded") from None
