"""OpenTelemetry's SDK for `hub serve`, set up as the environment says (`OTEL_…`).

An application that embeds the hub sets up its own. What is read: the resource (`OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`), the sampler and the limits, by the SDK itself; `OTEL_TRACES_EXPORTER` and
`OTEL_METRICS_EXPORTER`, comma-separated, here; and where to (`OTEL_EXPORTER_OTLP_…`), by the exporter.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from hub.errors import InvalidSettings

logger = logging.getLogger("hub")

SHUTDOWN_SECONDS = 5.0
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


class Telemetry:
    """The providers of traces and metrics of this process, from its making to `aclose`.

    Args:
        name: names this process, unless the environment does.

    Raises:
        InvalidSettings: what is asked for is not installed.
    """

    def __init__(self, name: str) -> None:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        named = {"service.instance.id": name}
        if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            named["service.name"] = "hub"
        resource = Resource.create(named)
        traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters("traces"):
            traces.add_span_processor(BatchSpanProcessor(exporter))
        readers = [PeriodicExportingMetricReader(exporter) for exporter in exporters("metrics")]
        self._providers: list[Any] = [traces, MeterProvider(readers, resource, shutdown_on_exit=False)]
        trace.set_tracer_provider(traces)
        metrics.set_meter_provider(self._providers[1])

    async def aclose(self) -> None:
        """Send what waits to be sent, for a bounded time."""
        closing = asyncio.gather(*(asyncio.to_thread(each.shutdown) for each in self._providers))
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await asyncio.shield(closing)
        except TimeoutError:
            logger.warning("the last traces and metrics could not be sent within %g s", SHUTDOWN_SECONDS)


def exporters(signal: str) -> Iterator[Any]:
    """Yield an exporter of each kind that the environment names for *signal*, which is `traces` or `metrics`.

    Raises:
        InvalidSettings: one of them is not installed.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    for name in (os.environ.get(variable) or "otlp").split(","):
        kind = name.strip()
        if kind == "none":
            continue
        if kind == "otlp":
            protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or os.environ.get(_PROTOCOL)
            kind = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
        found = [*entry_points(group=f"opentelemetry_{signal}_exporter", name=kind)]
        if not found:
            raise InvalidSettings([f"{variable}: no exporter {name.strip()!r} is installed"])
        yield found[0].load()()
