"""Traces, metrics and logs: on when somebody listens, nearly free when nobody does."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.telemetry.logs import setup_logging
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import setup_tracing, shutdown


@contextmanager
def telemetry(service: str, level: str = "INFO") -> Iterator[Metrics]:
    """Set up logs and traces of this process as its environment asks, and yield its metrics.

    Leaving blocks for up to `tracing.FLUSH_SECONDS`: put it around `asyncio.run`, not inside."""
    setup_logging(service, level)
    setup_tracing(service)
    try:
        yield Metrics(service)
    finally:
        shutdown()
