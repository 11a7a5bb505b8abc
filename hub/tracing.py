"""What the hub tells of the way of a notification, to whoever traces it; `hub/telemetry.py` does so.

Where nobody does, there is no `Tracing`, and nothing is called. The context of a publish travels with its notifications
as a tag, through every kind of log, so that the flush of another process belongs to the same trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from hub.notification import MAX_TAGS, Draft, Notification

CONTEXT_TAG = "hub.traceparent"
"""The tag that a publish is traced with; pages of the history do not show it."""

Answered = Callable[[bool], object]
"""Is told whether the log has confirmed a publish, once."""
Flushed = Callable[[int], object]
"""Is told how many frames a flush has given to transports, once."""


class Tracing(Protocol):
    """Notes what happens to notifications. No call waits, and none raises."""

    def request(
        self, method: str, route: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[int], object]]:
        """Return the time in which a request is answered; whoever enters it says the status of the answer.

        What is published meanwhile belongs to the request, and the request to the trace that its *headers* name.
        """
        ...

    def event(self, name: str) -> AbstractContextManager[object]:
        """Return the time in which the handlers of an event are called; what they ever publish is part of it."""
        ...

    def publish(self, drafts: Sequence[Draft]) -> tuple[Sequence[Draft], Answered]:
        """Note that *drafts* are about to be appended; return them with the context of this, and whom to tell."""
        ...

    def gathered(self, notification: Notification) -> None:
        """Note that the next flush writes *notification*."""
        ...

    def flushing(self) -> Flushed | None:
        """Note that a flush begins that writes all that was gathered; None: nobody wants to know of it."""
        ...

    def stream_opened(self, kind: str) -> None:
        """Note that a client stream began."""
        ...

    def stream_ended(self, kind: str, reason: str, seconds: float) -> None:
        """Note that a client stream ended after so many *seconds*."""
        ...


def with_context(draft: Draft, context: str) -> Draft:
    """Return *draft* with the *context* of its publish, if there is room for one more tag."""
    tags = draft.tags or {}
    if len(tags) >= MAX_TAGS and CONTEXT_TAG not in tags:
        return draft
    return draft._replace(tags={**tags, CONTEXT_TAG: context})


def without_context(tags: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Return *tags* without the context of a publish."""
    if not tags or CONTEXT_TAG not in tags:
        return tags
    return {name: value for name, value in tags.items() if name != CONTEXT_TAG}
