"""Caches of a process in its metrics: read when somebody asks, counted where they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

LABELS = ("cache", "model")


@dataclass(frozen=True, slots=True)
class CacheReading:
    """`bytes` and `bound` are of all processes that share the cache, the others of this one."""

    bytes: int
    bound: int
    hits: int
    misses: int
    evictions: int


class Caches:
    """By name, and by model where each has its own; a collector of a registry."""

    def __init__(self) -> None:
        self._caches: dict[tuple[str, str], Callable[[], CacheReading]] = {}

    def watch(self, cache: str, model: str, read: Callable[[], CacheReading]) -> None:
        self._caches[cache, model] = read

    def forget(self, model: str) -> None:
        """The model is held here no more."""
        for labels in [labels for labels in self._caches if labels[1] == model]:
            del self._caches[labels]

    def collect(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("darkroom_cache_bytes", "Bytes in a cache.", labels=LABELS)
        bound = GaugeMetricFamily(
            "darkroom_cache_bound_bytes", "Bytes that a cache may hold.", labels=LABELS
        )
        hits = CounterMetricFamily(
            "darkroom_cache_hits_total", "What was there when it was wanted.", labels=LABELS
        )
        misses = CounterMetricFamily(
            "darkroom_cache_misses_total", "What was not there when it was wanted.", labels=LABELS
        )
        evictions = CounterMetricFamily(
            "darkroom_cache_evictions_total", "What had to go to make room.", labels=LABELS
        )
        for labels, read in self._caches.items():
            reading = read()
            held.add_metric(labels, reading.bytes)
            bound.add_metric(labels, reading.bound)
            hits.add_metric(labels, reading.hits)
            misses.add_metric(labels, reading.misses)
            evictions.add_metric(labels, reading.evictions)
        yield from (held, bound, hits, misses, evictions)
