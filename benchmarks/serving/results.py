"""What was found out about each system in each round, and what it comes to. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from benchmarks.serving.burst import Recovery
from benchmarks.serving.peak import Peak
from benchmarks.serving.systems import OURS


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson requests at `rate`; latencies in seconds from the intended send. `unfinished` ones
    failed by the names in `failures`, and count as if they had come at their deadline, or when
    they were cut off if that was later; `p95_is_bound`: there are so many of them that the true
    p95 is higher."""

    rate: float
    requests: int
    met: int
    unfinished: int
    failures: Mapping[str, int]
    p50: float
    p95: float
    p95_is_bound: bool


@dataclass(frozen=True, slots=True)
class BurstResult:
    """`met` of the `requests` that were sent during the burst met their deadline. `failures`: by
    name, of the whole run."""

    rate: float
    requests: int
    met: int
    recovery: Recovery
    failures: Mapping[str, int]


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
    """One system in one round, None where it has not been measured. `own`: at 70% of its own peak.
    `common`: at 70% of ours."""

    own: Load | None = None
    common: Load | None = None
    burst: BurstResult | None = None
    saturation: Saturation | None = None


Rounds = Sequence[Mapping[str, Visit]]


def summary(
    peaks: Mapping[str, Peak], solo: Mapping[str, Mapping[str, float]], rounds: Rounds
) -> dict[str, Any]:
    """The five figures, None for one that was not measured, and what is behind them, by system."""
    bursts = [visit.burst for visit in _of(rounds, OURS) if visit.burst is not None]
    sent = sum(burst.requests for burst in bursts)
    seconds = [burst.recovery.seconds for burst in bursts]
    return {
        "rate_ratio": _rounded(_rate_ratio(peaks)),
        "burst_attainment": _rounded(_ratio(sum(burst.met for burst in bursts), sent)),
        "burst_recovery_seconds": _rounded(mean(seconds) if seconds else None),
        "burst_recovered": all(burst.recovery.recovered for burst in bursts),
        "p95_ratio": _rounded(_p95_ratio(rounds, lambda visit: visit.common)),
        "p95_ratio_is_bound": {
            name: any(v.common.p95_is_bound for v in _of(rounds, name) if v.common is not None)
            for name in solo
        },
        "p95_ratio_at_own_peaks": _rounded(_p95_ratio(rounds, lambda visit: visit.own)),
        "cpu_overhead": _rounded(
            cpu_overhead([visit.saturation for visit in _of(rounds, OURS) if visit.saturation])
        ),
        "systems": {
            name: {
                **(peaks[name].as_json() if name in peaks else {}),
                "solo_seconds": {k: round(v, 4) for k, v in solo[name].items()},
                "rounds": [asdict(visit) for visit in _of(rounds, name)],
            }
            for name in solo
        },
    }


def cpu_overhead(found: Sequence[Saturation]) -> float | None:
    """What is paid above the network's own time, as a share of that."""
    network = [one.network_per_image for one in found if one.network_per_image is not None]
    if not network:
        return None
    return mean(one.cpu_per_image for one in found) / mean(network) - 1.0


def _rate_ratio(peaks: Mapping[str, Peak]) -> float | None:
    """Ours over the best baseline's: a rate that was not sustained is credited to a baseline, but
    never to us."""
    theirs = [peak.sustained for name, peak in peaks.items() if name != OURS]
    if OURS not in peaks or not theirs:
        return None
    return peaks[OURS].sustained / max(theirs) if peaks[OURS].found else 0.0


def _p95_ratio(rounds: Rounds, load: Callable[[Visit], Load | None]) -> float | None:
    """The best baseline's over ours, of means over rounds."""
    p95 = {}
    for name in {name for visits in rounds for name in visits}:
        loads = [load(visit) for visit in _of(rounds, name)]
        if measured := [one.p95 for one in loads if one is not None]:
            p95[name] = mean(measured)
    theirs = [seconds for name, seconds in p95.items() if name != OURS]
    return min(theirs) / p95[OURS] if OURS in p95 and theirs else None


def _of(rounds: Rounds, name: str) -> list[Visit]:
    return [visits[name] for visits in rounds if name in visits]


def _ratio(count: int, of: int) -> float | None:
    return count / of if of else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
