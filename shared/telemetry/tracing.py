"""Traces: W3C trace context in message headers, one span per node, exported over OTLP/HTTP.

Nothing is recorded, and the OpenTelemetry SDK is not even imported, unless an endpoint is set
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`). A client's own trace context
travels through the pipeline either way.
"""

import os
import time
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.bus.base import Headers
from shared.errors import Misconfigured

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FLUSH_SECONDS: Final = 2.0
"""How long leaving a process may wait for a collector."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()

# One per process, as OpenTelemetry has it. Spans of the tracer that is off record nothing, and
# `inject` inside of them gives back the context they were opened with.
_OFF: Final = trace.NoOpTracer()
_tracer: trace.Tracer = _OFF
_provider: "TracerProvider | None" = None

current_span: Final = trace.get_current_span
"""The span that the running task is in; one that records nothing if there is none."""


def inject() -> dict[str, str]:
    """Headers that carry the current trace context; empty if there is none."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers


def extract(headers: Headers) -> Context:
    """The trace context in `headers`; an empty one if it is missing or malformed.

    Names are compared without regard to case, as W3C says: Go clients send `Traceparent`."""
    return _PROPAGATOR.extract({name.lower(): value for name, value in headers.items()})


@contextmanager
def carry(headers: Headers) -> Iterator[None]:
    """Pass the trace context in `headers` on, as it is, with what is sent inside."""
    token = attach(extract(headers))
    try:
        yield
    finally:
        detach(token)


@contextmanager
def request_span(name: str, headers: Headers) -> Iterator[trace.Span]:
    """A request of a user, as a child of the context in `headers`."""
    with _tracer.start_as_current_span(name, extract(headers), trace.SpanKind.SERVER) as span:
        yield span


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAttempt:
    """One attempt of one node, which is a child of the context in `headers`."""

    job_id: str
    node: str
    kind: str
    model: str
    attempt: int
    headers: Headers
    ready_at: float | None = None
    """When the node entered its queue (Unix seconds); None if it never waited in one."""

    @property
    def waited(self) -> float | None:
        """Seconds until now. Another host's clock may run ahead of ours."""
        return None if self.ready_at is None else max(0.0, time.time() - self.ready_at)


@contextmanager
def node_span(one: NodeAttempt) -> Iterator[trace.Span]:
    """An error that leaves the block marks the span failed, a cancellation marks it cancelled.
    Tasks started inside belong to it; it must be opened and closed by one task."""
    attributes: dict[str, str | int | float] = {
        "darkroom.job_id": one.job_id,
        "darkroom.node": one.node,
        "darkroom.kind": one.kind,
        "darkroom.model": one.model,
        "darkroom.attempt": one.attempt,
    }
    if (waited := one.waited) is not None:
        attributes["darkroom.queue_wait_seconds"] = waited
    started = time.perf_counter()
    with _tracer.start_as_current_span(
        one.kind, extract(one.headers), trace.SpanKind.CONSUMER, attributes
    ) as span:
        try:
            yield span
        except CancelledError:
            span.set_attribute("darkroom.cancelled", True)
            raise
        finally:
            span.set_attribute("darkroom.run_seconds", time.perf_counter() - started)


def step_event(span: trace.Span, step: int, rows: int, seconds: float) -> None:
    """Note on a node's span that its row took `step`, with `rows` rows in the batch.

    Any thread may call this. A span keeps its last 128 events (`OTEL_SPAN_EVENT_COUNT_LIMIT`)."""
    if span.is_recording():
        span.add_event("step", {"step": step, "rows": rows, "seconds": seconds})


def mark_failed(error: BaseException) -> None:
    """Mark the current span failed by `error`, for an error that does not leave its block."""
    span = current_span()
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, str(error))


def setup_tracing(service: str) -> bool:
    """Trace as the standard `OTEL_*` variables ask; False if they ask for nothing.

    Raises `Misconfigured` for an export protocol other than `http/protobuf`."""
    global _provider, _tracer
    shutdown()
    if not _wanted(os.environ):
        return False
    _provider = _exporting(service)
    _tracer = _provider.get_tracer("darkroom")
    return True


def shutdown(timeout: float = FLUSH_SECONDS) -> None:
    """Stop tracing, and export what is left for at most `timeout` seconds; blocks. What is left
    after that is dropped. Harmless when tracing is off."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, _OFF
    if provider is None:
        return
    # The SDK's own shutdown may wait 30 s for a collector that hangs; the fleet does not.
    closing = Thread(target=provider.shutdown, name="trace-flush", daemon=True)
    closing.start()
    closing.join(timeout)


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "otlp":
        return False
    specific, general = "OTEL_EXPORTER_OTLP_TRACES_{}", "OTEL_EXPORTER_OTLP_{}"
    endpoint, protocol = (
        environment.get(specific.format(name)) or environment.get(general.format(name), "")
        for name in ("ENDPOINT", "PROTOCOL")
    )
    if endpoint and protocol not in ("", "http/protobuf"):
        raise Misconfigured(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but traces are exported over HTTP only; "
            "set http/protobuf and the collector's HTTP endpoint (port 4318 by default)"
        )
    return bool(endpoint)


def _exporting(service: str) -> "TracerProvider":
    """The SDK, exporting in a thread of its own from a queue of 2048 spans (`OTEL_BSP_*`)."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # One environment serves a whole fleet, so the name is set here and not by OTEL_SERVICE_NAME.
    resource = Resource.create({"service.name": service, "service.namespace": "darkroom"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
