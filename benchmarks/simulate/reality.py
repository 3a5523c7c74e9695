"""The simulator against a fleet that runs here: the same requests, predicted and measured."""

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

from benchmarks.harness.fleet import OwnFleet, own_fleet
from benchmarks.harness.numbers import percentile
from benchmarks.harness.program import Results, say
from benchmarks.harness.traffic_mix import mix, workload
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.slo import TimesSolo
from loadgen.runs.run import run_open
from loadgen.simulator.profiles.measured import Drawn
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.measure import measure
from loadgen.simulator.studies.names import OURS
from loadgen.simulator.studies.run import simulate
from loadgen.simulator.studies.search import in_time, solo_latencies
from loadgen.simulator.studies.users import ClosedLoop
from loadgen.targets.nats import NatsTarget
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import Entry, schedule
from shared.config import Settings
from shared.models.cards import read_card

SHARE: Final = 0.6
"""Of what the fleet draws when it is full, as it is predicted: the rate that is offered."""
OVERLOAD: Final = 4.0
"""Times that, with deadlines of twice what a request takes alone."""
USERS: Final = 16
SECONDS: Final = 40.0
OVERLOADED_SECONDS: Final = 10.0
ROUNDS: Final = 2


async def against_reality(model: str, quick: bool) -> Results:
    """In each round the fleet is measured anew, and then loaded."""
    rounds: list[Results] = []
    async with own_fleet(model) as own, NatsTarget.connect(own.url) as target:
        for number in range(1 if quick else ROUNDS):
            profile = await _measured(own, model, quick)
            rounds.append(await _round(profile, target, number, quick))
            say(f"reality, round {number + 1}: {rounds[-1]}")
    return {
        "predicted_over_measured_p50": _middle(rounds, "p50"),
        "predicted_over_measured_p95": _middle(rounds, "p95"),
        "predicted_over_measured_in_time": _middle(rounds, "in_time"),
        "rounds": rounds,
    }


async def _measured(own: OwnFleet, model: str, quick: bool) -> Profile:
    card = read_card(model)
    drawn = Drawn(
        steps=card.default_steps,
        guided=card.default_guidance > 1.0 and not card.embedded_guidance,
        width=card.default_width,
        height=card.default_height,
    )
    return await measure(
        own.darkroom,
        own.fleet.bus,
        {card.name: drawn},
        "a fleet on this machine",
        users=(1, 2) if quick else (1, 2, 4, 8, USERS),
        seconds=1.0 if quick else 5.0,
        max_rows=Settings().max_rows,
        tell=say,
    )


async def _round(profile: Profile, target: NatsTarget, number: int, quick: bool) -> Results:
    cluster, entries = Cluster(profile=profile), mix()
    rate = SHARE * _full_rate(cluster, entries)
    seconds = 5.0 if quick else SECONDS
    even = schedule(workload(entries, Poisson(rate=rate), seconds, seed=100 + number))
    measured = latencies(await run_open(even, target))
    predicted = latencies(simulate(cluster, even).outcomes)
    found: Results = {"rate": round(rate, 3), "requests": len(even)}
    for percent in (50, 95):
        theirs, ours = percentile(measured, percent), percentile(predicted, percent)
        found[f"measured_p{percent}"] = round(theirs, 3)
        found[f"predicted_p{percent}"] = round(ours, 3)
        found[f"p{percent}"] = round(ours / theirs, 3)
    return found | await _overloaded(cluster, target, entries, rate, number)


async def _overloaded(
    cluster: Cluster, target: NatsTarget, entries: tuple[Entry, ...], rate: float, number: int
) -> Results:
    """How many are in time where far too many are asked for."""
    asked = workload(entries, Poisson(rate=OVERLOAD * rate), OVERLOADED_SECONDS, seed=number)
    plain = schedule(asked)
    slo = TimesSolo(2.0, solo_latencies(cluster, [OURS], plain))
    shots = _with_deadlines(plain, slo)
    measured = in_time(await run_open(shots, target), slo)
    predicted = in_time(simulate(cluster, shots, slo).outcomes, slo)
    return {
        "overload_requests": len(shots),
        "measured_in_time": measured,
        "predicted_in_time": predicted,
        "in_time": round(predicted / measured, 3) if measured else None,
    }


def _with_deadlines(shots: Sequence[Shot], slo: TimesSolo) -> list[Shot]:
    return [
        Shot(
            shot.number,
            shot.at,
            shot.tenant,
            shot.template,
            msgspec.structs.replace(shot.request, deadline=slo.factor * slo.solo[shot.template]),
        )
        for shot in shots
    ]


def _full_rate(cluster: Cluster, entries: tuple[Entry, ...]) -> float:
    """Pictures a second for many users who never pause."""
    asked = workload(entries, Poisson(rate=1.0), 60.0, seed=0)
    run = simulate(cluster, ClosedLoop(asked, users=USERS))
    return sum(one.ended_at <= run.seconds for one in run.outcomes) / run.seconds


def latencies(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.latency for one in outcomes if one.status == "done"]


def _middle(rounds: Sequence[Results], figure: str) -> float | None:
    known = [one[figure] for one in rounds if one.get(figure) is not None]
    return round(median(known), 3) if known else None
