"""The same requests for several systems, side by side."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadgen.outcomes.outcome import Shot
from loadgen.report.statistics.model import Report
from loadgen.report.statistics.slo import OwnDeadlines, Slo, TimesSolo
from loadgen.report.statistics.summary import summarise
from loadgen.runs.find_rate import Found, Search
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.names import OURS, Name, What
from loadgen.simulator.studies.offer import burst, offered
from loadgen.simulator.studies.run import Simulated, Statistics, simulate
from loadgen.simulator.studies.search import (
    fewest_devices,
    highest_rate,
    largest_burst,
    likely_rate,
    solo_latencies,
)
from loadgen.simulator.studies.users import ClosedLoop
from loadgen.workload.workload import Workload, duration, one_of_each, schedule
from shared.errors import InvalidRequest

BURST_SECONDS: Final = 10.0


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """`find`: search for that instead of one run; a burst and devices start from `rate`. `carried`:
    requests carry their deadlines. `users`: a closed loop of so many; None: an open loop."""

    cluster: Cluster
    systems: Annotated[tuple[Name, ...], Meta(min_length=1)] = (OURS,)
    workload: Workload
    slo: Slo = OwnDeadlines()
    carried: bool = True
    users: int | None = None
    think: float = 0.0
    find: What | None = None
    rate: float | None = None
    share: float = 0.9
    precision: float = 0.05


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One system. After a search `report` and `statistics` are of the run at what was found, None
    if nothing was good enough; `found` is the rate, or how many times the rate a burst may be."""

    report: Report | None
    statistics: Statistics | None
    found: Found | None = None
    devices: int | None = None
    """The fewest that are enough."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`solo`: seconds of each template alone, if deadlines are multiples of them."""

    profile: str
    source: str
    devices: int
    slo: Slo
    solo: dict[str, float]
    systems: dict[str, Side]


def compare(study: Study, tell: Callable[[str], None] = lambda text: None) -> Comparison:
    """`tell` is called with what has just been found out. Raises `InvalidRequest` for what cannot
    be asked of the profile, or cannot be searched."""
    slo = _with_solo(study)
    sides: dict[str, Side] = {}
    for system in study.systems:
        cluster = msgspec.structs.replace(study.cluster, system=system)
        sides[system] = side = _side(study, cluster, slo)
        tell(f"{system}: {in_words(study, side)}")
    profile = study.cluster.profile
    return Comparison(
        profile=profile.name,
        source=profile.source,
        devices=study.cluster.devices,
        slo=slo,
        solo=slo.solo if isinstance(slo, TimesSolo) else {},
        systems=sides,
    )


def in_words(study: Study, side: Side) -> str:
    if study.find == "devices":
        found = "no number of devices is" if side.devices is None else f"{side.devices} devices are"
        return f"{found} enough"
    if side.found is not None:
        unit = "requests/s" if study.find == "rate" else "times the rate in a burst"
        return f"{side.found.rate:.3g} {unit} with {study.share:.0%} in time"
    assert side.report is not None  # it was one run
    attained = side.report.overall.attainment
    share = "" if attained is None else f", {attained.share:.1%} in time"
    return f"{side.report.overall.done} of {side.report.overall.requests} done{share}"


def _with_solo(study: Study) -> Slo:
    if not isinstance(study.slo, TimesSolo):
        return study.slo
    shots = one_of_each(study.workload)
    if study.users is None and study.workload.trace is not None:
        shots = schedule(study.workload)
    solo = solo_latencies(study.cluster, study.systems, shots)
    return TimesSolo(study.slo.factor, solo)


def _side(study: Study, cluster: Cluster, slo: Slo) -> Side:
    workload, seconds = study.workload, _seconds(study.workload)
    start = study.rate or likely_rate(cluster, workload)
    search = Search(share=study.share, precision=study.precision, start=start)
    match study.find:
        case None:
            return _one_run(study, cluster, slo, _offer(study))
        case "rate":
            found = highest_rate(cluster, workload, slo, search, seconds)
            if not found.rate:
                return Side(report=None, statistics=None, found=found)
            side = _one_run(study, cluster, slo, offered(workload, found.rate, seconds))
            return msgspec.structs.replace(side, found=found)
        case "burst":
            rate = _needed(study)
            search = msgspec.structs.replace(search, start=None)
            found = largest_burst(cluster, workload, slo, search, rate, BURST_SECONDS)
            if not found.rate:
                return Side(report=None, statistics=None, found=found)
            bursting = burst(workload, rate, found.rate, BURST_SECONDS, BURST_SECONDS)
            side = _one_run(study, cluster, slo, schedule(bursting))
            return msgspec.structs.replace(side, found=found)
        case "devices":
            rate = _needed(study)
            count = fewest_devices(cluster, workload, slo, study.share, rate, seconds)
            if count is None:
                return Side(report=None, statistics=None)
            enough = msgspec.structs.replace(cluster, devices=count)
            side = _one_run(study, enough, slo, offered(workload, rate, seconds))
            return msgspec.structs.replace(side, devices=count)


def _needed(study: Study) -> float:
    if study.rate is None:
        raise InvalidRequest("--rate", None, f"one rate, to find {study.find}")
    return study.rate


def _seconds(workload: Workload) -> float:
    return max(1.0, duration(workload))


def _offer(study: Study) -> Sequence[Shot] | ClosedLoop:
    if study.users is not None:
        return ClosedLoop(study.workload, study.users, study.think)
    shots = schedule(study.workload)
    if not shots:
        raise InvalidRequest("workload", "no request", "a longer run, or a higher rate")
    return shots


def _one_run(study: Study, cluster: Cluster, slo: Slo, offer: Sequence[Shot] | ClosedLoop) -> Side:
    run = simulate(cluster, offer, slo, carried=study.carried)
    return Side(report=report_of(run, cluster, slo), statistics=run.statistics)


def report_of(run: Simulated, cluster: Cluster, slo: Slo) -> Report:
    stats = run.statistics
    about = {
        "target": f"{cluster.system}, simulated",
        "cluster": f"{stats.devices} devices, {cluster.profile.name}",
        "figures from": cluster.profile.source,
        "devices at work": f"{stats.utilisation:.1%}",
        "computed for nothing": f"{stats.wasted_share:.1%} for jobs without a picture, "
        f"{stats.late_share:.1%} for late ones",
        "loads of weights": str(stats.loads),
    }
    return summarise(run.outcomes, run.samples, slo, run.seconds, about)
