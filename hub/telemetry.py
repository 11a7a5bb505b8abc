"""The way of notifications as OpenTelemetry has it: spans, their links, and the figures of streams.

    POST /notifications/publish            a span of the server, in the trace that `traceparent` names
      └─ event order.created               the handlers of an event
           └─ publish                      until the log has confirmed it
                └─ append                  the log's part of that
                     └─ flush              in each process: the batch that it was written with, linked to all publishes

Only the API is needed here; whoever runs the hub sets up an SDK, as `hub serve` does (`hub/cli/telemetry.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hub.notification import Draft, Notification
from hub.tracing import CONTEXT_TAG, Answered, Flushed, with_context, without_context

NAME = "hub"
GIVEN_TAG = "traceparent"
"""A tag with which a publisher that has no other way names its trace."""
MOST_LINKS = 128
"""As many as the SDK keeps of one span."""
LIFETIMES = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)

_w3c = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Traces publishes and flushes, and counts streams.

    A publish that its trace does not sample is not carried along: its flush costs a look-up and no more.

    Args:
        tracer_provider: None: the one that the process has set up.
        meter_provider: likewise.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._open = meter.create_up_down_counter("hub.streams.open", "{stream}", "Open client streams.")
        self._lasted = meter.create_histogram(
            "hub.stream.duration",
            "s",
            "How long a client stream was open.",
            explicit_bucket_boundaries_advisory=LIFETIMES,
        )
        self._gathered: dict[str, None] = {}
        self._notifications = 0

    # ---- what begins a publish ----

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], object]]:
        # An instrumentation of the application may have begun a span for this request already.
        parent = None if trace.get_current_span().get_span_context().is_valid else propagate.extract(headers)
        facts = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}", parent, SpanKind.SERVER, facts, record_exception=False, set_status_on_exception=False
        ) as span:

            def said(status: int) -> None:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))

            yield said

    @contextmanager
    def event(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(f"event {name}", attributes={"hub.event": name}):
            yield

    # ---- a publish ----

    def publish(self, drafts: Sequence[Draft]) -> tuple[Sequence[Draft], Answered]:
        parent, links = _given(drafts)
        facts: dict[str, str | int] = {
            "messaging.system": NAME,
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(drafts),
            **({"messaging.destination.name": drafts[0].topics[0]} if drafts else {}),
        }
        span = self._tracer.start_span("publish", parent, SpanKind.PRODUCER, facts, links)
        if not span.is_recording():
            # Nor by what a publisher has written there: the flush would be traced as if the hub had said so.
            return [_untraced(each) if each.tags and CONTEXT_TAG in each.tags else each for each in drafts], _nothing
        here = trace.set_span_in_context(span, parent)
        carried: dict[str, str] = {}
        _w3c.inject(carried, here)
        append = self._tracer.start_span("append", here)
        traced = [with_context(draft, carried["traceparent"]) for draft in drafts]
        return traced, lambda confirmed: _end(confirmed, append, span)

    # ---- a flush ----

    def gathered(self, notification: Notification) -> None:
        self._notifications += 1
        context = notification.tags.get(CONTEXT_TAG) if notification.tags else None
        if context is not None and len(self._gathered) < MOST_LINKS:
            self._gathered[context] = None  # a list is one publish, with one context

    def flushing(self) -> Flushed | None:
        gathered, number = self._gathered, self._notifications
        self._notifications = 0
        if not gathered:
            return None
        self._gathered = {}
        first, links = None, []
        for context in gathered:
            found = _extracted(context)
            if found is not None:
                first = first or found
                links.append(Link(found))
        if first is None:
            return None
        # A child of the oldest publish, so that it is sampled as that was; linked to all of them.
        parent = trace.set_span_in_context(trace.NonRecordingSpan(first), Context())
        facts: dict[str, str | int] = {"messaging.system": NAME, "messaging.batch.message_count": number}
        span = self._tracer.start_span("flush", parent, SpanKind.CONSUMER, facts, links)

        def flushed(frames: int) -> None:
            span.set_attribute("hub.frames", frames)
            span.end()

        return flushed

    # ---- streams ----

    def stream_opened(self, kind: str) -> None:
        self._open.add(1, {"hub.stream.kind": kind})

    def stream_ended(self, kind: str, reason: str, seconds: float) -> None:
        self._open.add(-1, {"hub.stream.kind": kind})
        self._lasted.record(seconds, {"hub.stream.kind": kind, "hub.stream.reason": reason})


def _given(drafts: Sequence[Draft]) -> tuple[Context | None, list[Link]]:
    """Return in what *drafts* are published (None: what is current), and to what the publish is linked.

    Where nothing is current, the tag of a single draft says it; those of a list are linked.
    """
    named = [each.tags[GIVEN_TAG] for each in drafts[:MOST_LINKS] if each.tags and GIVEN_TAG in each.tags]
    contexts = [found for each in named if (found := _extracted(each)) is not None]
    if len(drafts) == 1 and contexts and not trace.get_current_span().get_span_context().is_valid:
        return trace.set_span_in_context(trace.NonRecordingSpan(contexts[0])), []
    return None, [Link(each) for each in contexts]


def _untraced(draft: Draft) -> Draft:
    return draft._replace(tags=without_context(draft.tags) or None)


def _extracted(text: object) -> SpanContext | None:
    """Return the context that *text* is, as in the header `traceparent`; None: it is none."""
    found = trace.get_current_span(_w3c.extract({"traceparent": str(text)}, Context())).get_span_context()
    return found if found.is_valid else None


def _end(confirmed: bool, *spans: Span) -> None:
    for span in spans:
        if not confirmed:
            span.set_status(Status(StatusCode.ERROR, "the log has not confirmed it"))
        span.end()


def _nothing(confirmed: bool) -> None:
    """Do nothing: the publish is not traced."""
