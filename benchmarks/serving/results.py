"""What was found out about each system in each round, and what it comes to. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from benchmarks.serving.burst import Recovery
from benchmarks.serving.systems import OURS
from loadgen.find_rate import Found, Level


@dataclass(frozen=True, slots=True)
class Rate:
    """`sustained`: requests per second with which everything else was measured; if `found` says 0,
    the lowest that was tried, which is to a baseline's credit, but never to ours."""

    sustained: float
    found: Found


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson requests at `rate`; latencies in seconds from the intended send. `unfinished` ones
    were cut off, and count with the time until then."""

    rate: float
    requests: int
    met: int
    unfinished: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class BurstResult:
    """`met` of the `requests` that were sent during the burst met their deadline."""

    rate: float
    requests: int
    met: int
    recovery: Recovery


@dataclass(frozen=True, slots=True)
class Saturation:
    """With more users than it can serve at once: CPU seconds of all processes of a system, per
    image. `rows_per_step` and `network`, the bare network's CPU seconds for the same image in the
    same batches, for ours only."""

    images: int
    images_per_second: float
    cpu_per_image: float
    rows_per_step: float | None = None
    network_per_image: float | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """One system in one round. `own`: at 70% of its own peak. `common`: at 70% of ours."""

    own: Load
    common: Load
    burst: BurstResult
    saturation: Saturation


def summary(
    rates: Mapping[str, Rate],
    solo: Mapping[str, Mapping[str, float]],
    rounds: Sequence[Mapping[str, Visit]],
) -> dict[str, Any]:
    """The five figures, and what is behind them, by system."""
    ours = [visits[OURS] for visits in rounds]
    theirs = [name for name in rates if name != OURS]
    sent = sum(visit.burst.requests for visit in ours)
    return {
        "rate_ratio": round(
            rates[OURS].found.rate / max(rates[name].sustained for name in theirs), 3
        ),
        "burst_attainment": round(sum(visit.burst.met for visit in ours) / max(1, sent), 4),
        "burst_recovery_seconds": round(mean(visit.burst.recovery.seconds for visit in ours), 2),
        "burst_recovered": all(visit.burst.recovery.recovered for visit in ours),
        "p95_ratio": round(
            min(_p95_common(rounds, n) for n in theirs) / _p95_common(rounds, OURS), 3
        ),
        "p95_ratio_at_own_peaks": round(
            min(_p95_own(rounds, n) for n in theirs) / _p95_own(rounds, OURS), 3
        ),
        "cpu_overhead": round(cpu_overhead([visit.saturation for visit in ours]), 4),
        "systems": {
            name: {
                "rate": rates[name].sustained,
                "rate_was_sustained": rates[name].found.rate > 0,
                "rate_surely": [rates[name].found.low, rates[name].found.high],
                "levels": [_level(level) for level in rates[name].found.levels],
                "solo_seconds": {k: round(v, 4) for k, v in solo[name].items()},
                "rounds": [asdict(visits[name]) for visits in rounds],
            }
            for name in rates
        },
    }


def cpu_overhead(found: Sequence[Saturation]) -> float:
    """What is paid above the network's own time, as a share of that."""
    network = [one.network_per_image for one in found if one.network_per_image is not None]
    return mean(one.cpu_per_image for one in found) / mean(network) - 1.0


def _p95_common(rounds: Sequence[Mapping[str, Visit]], name: str) -> float:
    return mean(visits[name].common.p95 for visits in rounds)


def _p95_own(rounds: Sequence[Mapping[str, Visit]], name: str) -> float:
    return mean(visits[name].own.p95 for visits in rounds)


def _level(level: Level) -> dict[str, float]:
    return {"rate": round(level.rate, 4), "met": level.met, "of": level.of}
