"""What is told about one attempt of one node, by whichever service runs it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span

from shared.bus.base import Headers
from shared.telemetry.logs import bind
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import node_span


@contextmanager
def observed(
    metrics: Metrics,
    *,
    job_id: str,
    node: str,
    kind: str,
    model: str,
    attempt: int,
    headers: Headers,
    ready_at: float | None,
) -> Iterator[Span]:
    """A span (see `node_span`), waiting and running seconds in the metrics, and the job and node
    on every line logged inside."""
    if ready_at is not None:
        metrics.stage_waiting(kind, model, max(0.0, time.time() - ready_at))
    started = time.perf_counter()
    with (
        bind(job_id=job_id, node=node),
        node_span(
            job_id=job_id,
            node=node,
            kind=kind,
            model=model,
            attempt=attempt,
            headers=headers,
            ready_at=ready_at,
        ) as span,
    ):
        try:
            yield span
        finally:
            metrics.stage_running(kind, model, time.perf_counter() - started)
