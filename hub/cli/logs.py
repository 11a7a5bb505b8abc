"""Logging of `hub serve` to stderr, cheap enough for thousands of connects a second."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from hub.proxies import Proxies
from hub.web.links import client_address

# A question mark in the middle of a word: at the end of a sentence nothing follows it.
_QUERY = re.compile(r"""(?<=[\w/.~%\-\])])\?[^\s"'<>]+""")

# What JSON leaves as it is, but ends a line for some readers, or is obeyed by a terminal.
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def log_to_stderr(level: str, format: str = "text", *, process: str = "") -> None:
    """Log what the whole process logs, from *level* on, to stderr.

    Args:
        level: of `HUB_LOG_LEVEL`.
        format: `text`, or `json` for an object in each line.
        process: its name, if there are several.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if format == "json" else LineFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(_NoQuotes())
    # Our lines don't show these facts, and to find them costs time on every line (Logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def redacted(text: str) -> str:
    """Return *text* without the query strings in it, which may hold a token: `/path?…`.

    The hub logs none itself. Libraries do: what they log of a URL is out of its hands.
    """
    return _QUERY.sub("?…", text) if "?" in text else text


class LineFormatter(logging.Formatter):
    """Formats a line as `logging.Formatter` does, without query strings; it computes the time only once a second.

    Args:
        process: the name of the process, which stands before that of the logger; empty: nothing does.
    """

    _second = -1
    _shown = ""

    def __init__(self, process: str = "") -> None:
        self._process = f"[{process}] " if process else ""
        super().__init__(f"%(asctime)s %(levelname)s {self._process.replace('%', '%%')}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*, followed by its traceback if it has one."""
        if record.exc_info or record.stack_info:
            return redacted(super().format(record))
        return redacted(
            f"{self.formatTime(record)} {record.levelname} {self._process}{record.name}: {record.getMessage()}"
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the local time of *record* to the millisecond."""
        second = int(record.created)
        if second != self._second:
            self._second, self._shown = second, time.strftime("%Y-%m-%d %H:%M:%S", self.converter(second))
        return f"{self._shown},{int(record.msecs):03}"


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line, for programs that collect logs; without query strings.

    Its fields: `time` (UTC, RFC 3339), `level`, `logger`, `message`; `worker`, if there are several; `error`, the
    traceback, if there is one.

    Args:
        process: the name of the process, as for `LineFormatter`.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name}
        if self._process:
            line["worker"] = self._process.removeprefix("worker ")
        line["message"] = redacted(record.getMessage())
        error = record.exc_info and self.formatException(record.exc_info)
        if found := "\n".join(each for each in (error, record.stack_info) if each):
            line["error"] = redacted(found)
        text = json.dumps(line, ensure_ascii=False)
        return text if text.isprintable() else _UNSEEN.sub(lambda each: f"\\u{ord(each[0]):04x}", text)


class _NoQuotes(logging.Filter):
    """Logs a malformed request as one line at level info; aiohttp would log a traceback, and the query in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            logging.getLogger("hub").info("a malformed request was refused: %s", type(error).__name__)
            return False
        return True


class AccessLog(AbstractAccessLogger):
    """Logs a line per request, without its query, which may hold a token."""

    proxies = Proxies()

    @classmethod
    def behind(cls, proxies: Proxies) -> type[AccessLog]:
        """Return a subclass for a hub behind *proxies*; aiohttp makes the instances."""
        return type(cls.__name__, (cls,), {"proxies": proxies})

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log *request* and *response*; *time* is in seconds."""
        self.logger.info(
            '%s "%s %s" %d %.1f ms',
            client_address(self.proxies, request),
            request.method,
            request.rel_url.raw_path,  # encoded: a path has no line breaks there
            response.status,
            time * 1e3,
        )
