"""What went wrong in the last hour, as the loggers of the hub say it: the sentence and how often, and no more."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import NamedTuple

MOST = 200
LONGEST = 300
SECONDS = 3600.0

# Libraries log URLs, and a query may hold a ticket. A JSON Web Token is three runs of base64url, the first an object.
_SECRETS = re.compile(r"""(?<=[\w/.~%\-\])])\?[^\s"'<>]+|\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|(?i:(?<=bearer )\S+)""")


class Failure(NamedTuple):
    """What was logged, once or again and again.

    Attributes:
        logger: which part of the hub says so.
        level: `warning`, `error` or `critical`.
        text: the last of the sentences, without query strings and tokens, cut to 300 characters.
        times: how often.
        first: when it was logged first, in seconds since 1970.
        last: when it was logged last.
    """

    logger: str
    level: str
    text: str
    times: int
    first: float
    last: float


class Failures(logging.Handler):
    """Keeps the warnings and errors that the loggers of the hub log: at most 200 different ones, for an hour.

    Two are the same if one line of the program logged both. Tracebacks are not kept.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: dict[tuple[str, str, str], Failure] = {}  # the one that was logged last is the last

    def open(self) -> None:
        """Listen to the loggers `hub` and `hub.…`."""
        logging.getLogger("hub").addHandler(self)

    def close(self) -> None:
        """Listen no more."""
        logging.getLogger("hub").removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*."""
        try:
            text = _SECRETS.sub("…", record.getMessage())
        except Exception:
            self.handleError(record)
            return
        key = (record.name, record.levelname, str(record.msg))
        before = self._kept.pop(key, None)
        if before is not None and record.created - before.first > SECONDS:
            before = None
        self._kept[key] = Failure(
            record.name,
            record.levelname.lower(),
            text if len(text) <= LONGEST else text[: LONGEST - 1] + "…",
            1 if before is None else before.times + 1,
            record.created if before is None else before.first,
            record.created,
        )
        if len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]

    def since(self, oldest: float) -> list[Failure]:
        """Return what was logged after *oldest*, in seconds since 1970; the last one first."""
        return [each for each in reversed(tuple(self._kept.values())) if each.last >= oldest]


def merged(failures: Iterable[Failure]) -> list[Failure]:
    """Return the *failures* of several processes as those of one, the last one first."""
    found: dict[tuple[str, str, str], Failure] = {}
    for each in sorted(failures, key=lambda each: each.last):
        key = (each.logger, each.level, each.text)
        same = found.get(key)
        found[key] = each if same is None else _added(same, each)
    return sorted(found.values(), key=lambda each: -each.last)


def _added(former: Failure, latter: Failure) -> Failure:
    return latter._replace(times=former.times + latter.times, first=min(former.first, latter.first))
