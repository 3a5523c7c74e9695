"""What the loader of a process brings, and what its tiers hold, in its metrics: read when somebody
asks, counted where they are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

LABELS: Final = ("tier",)
_GAUGES: Final = (
    ("items", "darkroom_tier_items", "Items in a tier."),
    ("bytes", "darkroom_tier_bytes", "Bytes of a tier that items take, or that wait for them."),
    ("bound", "darkroom_tier_bound_bytes", "Bytes that a tier may hold; 0: any number."),
    ("coming", "darkroom_tier_coming_items", "Items on their way to a tier."),
    ("rate", "darkroom_tier_bytes_per_second", "How fast items lately came to a tier."),
)
_COUNTERS: Final = (
    ("loads", "darkroom_tier_loads_total", "Items that had to be brought to a tier."),
    ("moved", "darkroom_tier_loaded_bytes_total", "Bytes that were brought to a tier."),
    ("seconds", "darkroom_tier_load_seconds_total", "Time that these loads took, all together."),
    ("evictions", "darkroom_tier_evictions_total", "Items that had to go to make room."),
    ("failures", "darkroom_tier_failures_total", "Loads for a tier that failed."),
)


@dataclass(frozen=True, slots=True)
class TierReading:
    """`bytes`, `bound`, `items`, `coming`: now. `rate`: bytes a second, of the latest loads; 0
    before there was any. The others are counts since the start."""

    name: str
    items: int
    bytes: int
    bound: int
    coming: int
    rate: float
    loads: int
    moved: int
    seconds: float
    evictions: int
    failures: int


@dataclass(frozen=True, slots=True)
class LoaderReading:
    """`waiting`: loads that are wanted and not over. Counts are of all that the loader moves,
    also of what no tier holds."""

    waiting: int
    moved: int
    tiers: tuple[TierReading, ...]


class Residency:
    """A collector of a registry. Tiers of one name, such as those of several models, are one."""

    def __init__(self, read: Callable[[], LoaderReading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        found = self._read()
        waiting = GaugeMetricFamily("darkroom_loader_waiting_loads", "Loads that are not over.")
        waiting.add_metric((), found.waiting)
        moved = CounterMetricFamily(
            "darkroom_loader_bytes_total", "Bytes that the loader of a process moved."
        )
        moved.add_metric((), found.moved)
        yield from (waiting, moved)
        tiers = _by_name(found.tiers)
        for field, name, about in _GAUGES:
            gauge = GaugeMetricFamily(name, about, labels=LABELS)
            for tier, readings in tiers.items():
                gauge.add_metric((tier,), _together(field, readings))
            yield gauge
        for field, name, about in _COUNTERS:
            counter = CounterMetricFamily(name, about, labels=LABELS)
            for tier, readings in tiers.items():
                counter.add_metric((tier,), _together(field, readings))
            yield counter


def _by_name(tiers: Iterable[TierReading]) -> dict[str, list[TierReading]]:
    found: dict[str, list[TierReading]] = {}
    for tier in tiers:
        found.setdefault(tier.name, []).append(tier)
    return found


def _together(field: str, readings: Sequence[TierReading]) -> float:
    """Of tiers of one name: the sum, but for what is a speed."""
    values = [float(getattr(one, field)) for one in readings]
    return max(values) if field == "rate" else sum(values)
