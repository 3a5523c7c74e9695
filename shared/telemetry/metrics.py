"""Metrics of one process, in a registry of its own. Every name starts with `darkroom_` and ends
with its unit; labels come from bounded sets (kinds, models, classes), never from jobs or users.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from shared.messages.components import ComponentState
from shared.telemetry.caches import CacheReading, Caches
from shared.telemetry.components import ComponentStates
from shared.telemetry.residency import LoaderReading, Residency

JobOutcome = Literal["done", "failed", "cancelled"]

ROWS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
STEP_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
STAGE_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """What one process of `service` counts. Cheap: a few microseconds for each call."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        prometheus_client.disable_created_metrics()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._caches = Caches()
        self.registry.register(self._caches)
        self._declare_work()
        self._declare_edges()

    def _declare_work(self) -> None:
        self._queue_depth = self._gauge(
            "darkroom_queue_depth_nodes",
            "Nodes in the queue of a model, waiting or running.",
            ("kind", "model"),
        )
        self._rows = self._histogram(
            "darkroom_batch_rows", "Rows that took a denoising step together.", ("model",), ROWS
        )
        self._step = self._histogram(
            "darkroom_step_seconds", "Time of one denoising step.", ("model",), STEP_SECONDS
        )
        self._parked = self._gauge(
            "darkroom_parked_rows", "Rows that left a batch to more urgent ones.", ("model",)
        )
        self._waiting = self._histogram(
            "darkroom_stage_waiting_seconds",
            "Time from a node's readiness to its start.",
            ("kind", "model"),
            STAGE_SECONDS,
        )
        self._running = self._histogram(
            "darkroom_stage_running_seconds",
            "Time from a node's start to its end, however it ended.",
            ("kind", "model"),
            STAGE_SECONDS,
        )

    def _declare_edges(self) -> None:
        self._jobs = Counter(
            "darkroom_jobs_total", "Jobs that ended.", ("model", "outcome"), registry=self.registry
        )
        self._http = self._histogram(
            "darkroom_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("method", "route", "status"),
            STAGE_SECONDS,
        )
        self._refusals = Counter(
            "darkroom_refusals_total",
            "What was refused because a limit was reached, by the limit's name.",
            ("limit",),
            registry=self.registry,
        )
        self._arena_used = self._gauge(
            "darkroom_arena_used_bytes", "Bytes of slots in use.", ("arena",)
        )
        self._arena_capacity = self._gauge(
            "darkroom_arena_capacity_bytes", "Bytes of all slots together.", ("arena",)
        )

    def _gauge(self, name: str, about: str, labels: Sequence[str]) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

    def queue_depth(self, kind: str, model: str, nodes: int) -> None:
        self._queue_depth.labels(kind, model).set(nodes)

    def step(self, model: str, rows: int, seconds: float) -> None:
        """`rows` rows of `model` took one step together."""
        self._rows.labels(model).observe(rows)
        self._step.labels(model).observe(seconds)

    def watch_parked(self, model: str, parked: Callable[[], float]) -> None:
        """Ask `parked()` (rows) whenever the metrics are read."""
        self._parked.labels(model).set_function(parked)

    def stage_waiting(self, kind: str, model: str, seconds: float) -> None:
        """A node was started, `seconds` after it became ready."""
        self._waiting.labels(kind, model).observe(seconds)

    def stage_running(self, kind: str, model: str, seconds: float) -> None:
        """A node ended, however it ended, `seconds` after its start."""
        self._running.labels(kind, model).observe(seconds)

    def job_ended(self, model: str, outcome: JobOutcome) -> None:
        """Call it only where the outcome was stored, not where it was a duplicate."""
        self._jobs.labels(model, outcome).inc()

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the pattern (`/v1/jobs/{id}`), so that its values stay few."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def refused(self, limit: str) -> None:
        """`limit`: the error's code, such as `queue_full`."""
        self._refusals.labels(limit).inc()

    def watch_arena(self, arena: str, used: Callable[[], float], capacity: int) -> None:
        """Ask `used()` (bytes) whenever the metrics are read; nothing is done in between."""
        self._arena_used.labels(arena).set_function(used)
        self._arena_capacity.labels(arena).set(capacity)

    def watch_cache(self, cache: str, read: Callable[[], CacheReading], model: str = "") -> None:
        """Ask `read()` whenever the metrics are read. `model`: whose it is alone."""
        self._caches.watch(cache, model, read)

    def watch_components(self, states: Callable[[], Iterable[ComponentState]]) -> None:
        """Ask `states()` whenever the metrics are read."""
        self.registry.register(ComponentStates(states))

    def watch_loader(self, read: Callable[[], LoaderReading]) -> None:
        """Ask `read()` whenever the metrics are read."""
        self.registry.register(Residency(read))

    def forget_model(self, model: str) -> None:
        """What was watched of a model that is held here no more is let go."""
        self._caches.forget(model)
        self._parked.remove(model)

    def render(self, **labels: str) -> bytes:
        """Exposition text (version 0.0.4); each sample also has `service` and `labels`."""
        added = {"service": self.service, **labels}
        return as_text(_labelled(family, added) for family in self.registry.collect())


@dataclass(frozen=True, slots=True)
class _Collected:
    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def as_text(families: Iterable[Metric]) -> bytes:
    """`families` in exposition text, version 0.0.4."""
    text: bytes = prometheus_client.generate_latest(_Collected(families))
    return text


def _labelled(family: Metric, labels: dict[str, str]) -> Metric:
    labelled = Metric(family.name, family.documentation, family.type)
    labelled.samples = [
        sample._replace(labels={**sample.labels, **labels}) for sample in family.samples
    ]
    return labelled
