"""Why a load run cannot take place; each is one clear line and exit status 2.

CannotRun
├── BadTarget          the URL names nothing that may be loaded
├── HubUnreachable     nothing listens there
├── HubRefused         somebody answers, but not with a stream (or not to a publish)
├── NotAllConnected    some subscribers never got their stream
├── TooFewFiles        the file limit is below the connections asked for
├── NoSuchProcess      `--pid` names no process
└── ReportNotWritable  the report cannot be written where it was asked for
"""

from __future__ import annotations

import json


class CannotRun(Exception):  # named after what happened, like every error of the hub
    """The run cannot take place; its text is the line for the user."""


class BadTarget(CannotRun):
    """The caller named a target that cannot or may not be loaded."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url, self.why = url, why

    def __str__(self) -> str:
        return f"{self.url} {self.why}"


class HubUnreachable(CannotRun):
    """Nothing accepts connections at the target."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url, self.why = url, why

    def __str__(self) -> str:
        return f"no hub reachable at {self.url}: {self.why}"


class HubRefused(CannotRun):
    """The target answered a request in a way that can never become a run; status 0 is no HTTP at all."""

    def __init__(self, request: str, status: int, detail: str = "") -> None:
        super().__init__(request, status, detail)
        self.request, self.status, self.detail = request, status, detail

    @classmethod
    def of(cls, request: str, status: int, body: bytes) -> HubRefused:
        """Return the refusal that the *body* of an answer explains, if it is a problem document (RFC 9457)."""
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
        detail = problem.get("detail") if isinstance(problem, dict) else None
        return cls(request, status, detail[:300] if isinstance(detail, str) else "")

    def __str__(self) -> str:
        answer = f"with {self.status}" if self.status else "in something that is not HTTP/1.1"
        return f"{self.request} was answered {answer}: {self.detail or 'is this a hub?'}"


class NotAllConnected(CannotRun):
    """Some subscribers did not get their stream in time, so there is nothing to measure."""

    def __init__(self, opened: int, asked: int, seconds: float, why: str) -> None:
        super().__init__(opened, asked, seconds, why)
        self.opened, self.asked, self.seconds, self.why = opened, asked, seconds, why

    def __str__(self) -> str:
        return f"only {self.opened:,} of {self.asked:,} subscribers connected within {self.seconds:.0f} s: {self.why}"


class TooFewFiles(CannotRun):
    """The file limit does not allow as many connections as asked for."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(needed, limit)
        self.needed, self.limit = needed, limit

    def __str__(self) -> str:
        return f"needs {self.needed:,} open files, the limit (ulimit -Hn) is {self.limit:,}: ask for fewer connections"


class NoSuchProcess(CannotRun):
    """The caller named a process that is not there or cannot be looked at."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"--pid {self.pid}: no such process, or no right to look at it"


class ReportNotWritable(CannotRun):
    """The report cannot be written to the path that was asked for."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"--report {self.path}: {self.why}"
