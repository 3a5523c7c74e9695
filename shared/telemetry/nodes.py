"""What is told about one attempt of one node, by whichever service runs it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span

from shared.telemetry.logs import bind
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import NodeAttempt, node_span


@contextmanager
def observed(metrics: Metrics, one: NodeAttempt) -> Iterator[Span]:
    """A span (see `node_span`), waiting and running seconds in the metrics, and the job and node
    on every line logged inside."""
    if (waited := one.waited) is not None:
        metrics.stage_waiting(one.kind, one.model, waited)
    started = time.perf_counter()
    with bind(job_id=one.job_id, node=one.node), node_span(one) as span:
        try:
            yield span
        finally:
            metrics.stage_running(one.kind, one.model, time.perf_counter() - started)
