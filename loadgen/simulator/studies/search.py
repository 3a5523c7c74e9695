"""How much a cluster can do: the highest rate, the largest burst, the fewest devices."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Final

import msgspec

from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.slo import Slo
from loadgen.report.statistics.summary import meets
from loadgen.runs.find_rate import Found, Search, Trial, decide
from loadgen.runs.solo import examples
from loadgen.simulator.cluster.job import wanted
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.names import MOST_DEVICES, OURS, Name
from loadgen.simulator.studies.offer import burst, offered
from loadgen.simulator.studies.run import simulate
from loadgen.simulator.systems.darkroom import Policies
from loadgen.simulator.systems.pipelines import pipeline_seconds
from loadgen.workload.workload import Workload, requests, schedule
from shared.errors import InvalidRequest

REPEATS: Final = 1
"""Trials of one rate: the same requests come to the same end."""
LOOKED_AT: Final = 100
"""Requests by which it is guessed what a workload asks for."""
SOLO_DEVICES: Final = 8
"""That a request is measured on alone, at most."""


def solo_latencies(
    cluster: Cluster, systems: Sequence[Name], shots: Sequence[Shot]
) -> dict[str, float]:
    """What a request of each template takes alone: that of the fastest of `systems` at it, so that
    all have the same deadlines."""
    alone = msgspec.structs.replace(cluster, devices=min(cluster.devices, SOLO_DEVICES))
    found = {}
    for name, shot in examples(shots).items():
        first = Shot(0, 0.0, shot.tenant, shot.template, shot.request)
        runs = (
            simulate(msgspec.structs.replace(alone, system=system), [first], carried=False)
            for system in systems
        )
        ends = [run.outcomes[0] for run in runs]
        done = [end.latency for end in ends if end.status == "done"]
        if not done:
            raise InvalidRequest("template", name, "one that can be drawn on an idle cluster")
        found[name] = min(done)
    return found


def in_time(outcomes: Sequence[Outcome], slo: Slo) -> int:
    return sum(meets(slo, outcome) is True for outcome in outcomes)


def likely_rate(cluster: Cluster, workload: Workload) -> float:
    """At which about half of the devices would be busy: where a search may begin."""
    profile = cluster.profile
    lot = requests(workload, "likely")
    shots = (
        schedule(workload)
        if workload.trace is not None
        else tuple(Shot(n, 0.0, *next(lot)) for n in range(LOOKED_AT))
    )
    load = mean(pipeline_seconds(profile, [wanted(shot, profile)]) for shot in shots)
    return cluster.devices / (2 * load)


def find(trial: Callable[[float], Trial], search: Search) -> Found:
    """The highest rate that passes, by the search of the load generator."""
    trials: list[Trial] = []
    while True:
        match decide(trials, search):
            case Found() as found:
                return found
            case rate:
                trials.append(trial(rate))


def highest_rate(
    cluster: Cluster,
    workload: Workload,
    slo: Slo,
    search: Search,
    seconds: float,
    policies: Policies | None = None,
) -> Found:
    """With `search.share` in time, of requests that come for `seconds`."""

    def trial(rate: float) -> Trial:
        outcomes = simulate(cluster, offered(workload, rate, seconds), slo, policies=policies)
        return Trial(rate=rate, met=in_time(outcomes.outcomes, slo), of=len(outcomes.outcomes))

    return find(trial, _once(search))


def largest_burst(
    cluster: Cluster, workload: Workload, slo: Slo, search: Search, rate: float, lasting: float
) -> Found:
    """`rate` of the result: how many times `rate` a burst of `lasting` seconds may be, so that
    `search.share` of what is sent in it is in time."""

    def trial(factor: float) -> Trial:
        shots = schedule(burst(workload, rate, factor, lasting, lasting))
        outcomes = simulate(cluster, shots, slo).outcomes
        sent = [one for one in outcomes if lasting <= one.shot.at < 2 * lasting]
        return Trial(rate=factor, met=in_time(sent, slo), of=max(1, len(sent)))

    return find(trial, msgspec.structs.replace(_once(search), start=search.start or 2.0))


def fewest_devices(
    cluster: Cluster,
    workload: Workload,
    slo: Slo,
    share: float,
    rate: float,
    seconds: float,
    most: int = MOST_DEVICES,
) -> int | None:
    """That keep `share` in time at `rate`; None: not even `most` do."""
    shots = offered(workload, rate, seconds)

    def enough(devices: int) -> bool:
        one = msgspec.structs.replace(cluster, devices=devices)
        outcomes = simulate(one, shots, slo).outcomes
        return in_time(outcomes, slo) >= share * len(outcomes)

    high = min(cluster.devices, most)
    while not enough(high):
        if high == most:
            return None
        high = min(2 * high, most)
    low = 0  # not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def ratio(found: Mapping[Name, float]) -> float | None:
    """Ours over the best of the others; None if nobody else manages anything."""
    others = [value for name, value in found.items() if name != OURS]
    best = max(others, default=0.0)
    return found[OURS] / best if best > 0.0 else None


def _once(search: Search) -> Search:
    return msgspec.structs.replace(search, repeats=REPEATS)
