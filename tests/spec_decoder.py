"""A decoder of the event stream format that follows WHATWG HTML 9.2.5 and 9.2.6 step by step.

It is independent of `hub.eventstream`, so that the two can be compared.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any

_END_OF_LINE = re.compile("[\r\n]")


@dataclass(frozen=True)
class Event:
    """An event that an `EventSource` dispatches."""

    type: str
    data: str
    id: str

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class SpecDecoder:
    """An `EventSource` without a network.

    Attributes:
        last_event_id: the value that it would send as `Last-Event-ID` if the connection were lost now.
        retry: its reconnection time in milliseconds, once the server has sent one.
        comments: the comment lines, which a browser ignores.
        unknown: the names of unknown fields, which a browser ignores; a hub has no reason to send one.
        blocks: the number of blocks so far (of empty lines).
    """

    last_event_id: str = ""
    retry: int | None = None
    comments: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    blocks: int = 0

    def __post_init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = True
        self._after_cr = False
        self._line: list[str] = []
        self._data = ""
        self._type = ""
        self._id = self.last_event_id

    def feed(self, received: bytes) -> list[Event]:
        """Return the events that *received* completes."""
        events: list[Event] = []
        text = self._utf8.decode(received)
        if text and self._first:
            self._first = False
            text = text.removeprefix("\ufeff")
        place = 0
        while place < len(text):
            # end-of-line = ( cr lf / cr / lf ): a CR ends the line at once; an LF directly after it is skipped.
            if self._after_cr:
                self._after_cr = False
                if text[place] == "\n":
                    place += 1
                    continue
            end = _END_OF_LINE.search(text, place)
            if end is None:
                self._line.append(text[place:])
                break
            line, self._line = "".join([*self._line, text[place : end.start()]]), []
            self._after_cr = end[0] == "\r"
            place = end.end()
            events += self._process(line)
        return events

    def _process(self, line: str) -> list[Event]:
        if line == "":
            return self._dispatch()
        if line.startswith(":"):
            self.comments.append(line[1:])
        elif ":" in line:
            name, value = line.split(":", 1)
            self._take(name, value.removeprefix(" "))
        else:
            self._take(line, "")
        return []

    def _take(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._type = value
            case "data":
                self._data += value + "\n"
            case "id":
                if "\0" not in value:
                    self._id = value
            case "retry":
                if value and all(character in "0123456789" for character in value):
                    self.retry = int(value)
            case _:
                self.unknown.append(name)

    def _dispatch(self) -> list[Event]:
        self.blocks += 1
        self.last_event_id = self._id
        data, type = self._data, self._type
        self._data = self._type = ""
        if data == "":
            return []
        return [Event(type or "message", data.removesuffix("\n"), self.last_event_id)]
