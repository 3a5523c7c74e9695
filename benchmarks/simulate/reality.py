"""The simulator against a fleet that runs here: the same requests, predicted and measured."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

from benchmarks.harness.fleet import OwnFleet, own_fleet
from benchmarks.harness.numbers import percentile
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.program import Results, say
from benchmarks.harness.traffic_mix import mix, with_deadlines, workload
from loadgen.outcomes.outcome import Outcome, RequestTemplate
from loadgen.report.statistics.slo import OwnDeadlines, TimesSolo
from loadgen.runs.find_rate import Search
from loadgen.runs.run import run_open
from loadgen.simulator.profiles.measured import Drawn
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.measure import measure
from loadgen.simulator.studies.names import OURS
from loadgen.simulator.studies.run import simulate
from loadgen.simulator.studies.search import highest_rate, in_time, solo_latencies
from loadgen.simulator.studies.users import ClosedLoop
from loadgen.targets.nats import NatsTarget
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import Entry, Workload, schedule
from shared.config import Settings
from shared.models.cards import read_card

SHARE: Final = 0.6
"""Of what the fleet draws when it is full, as it is predicted: the rate of `serving`."""
OVERLOAD: Final = 8.0
"""Times the highest rate with 90% in time, as it is predicted: the rate of `overload`,"""
FACTOR: Final = 2.0
"""with deadlines of so many times what a request takes alone."""
ONE_KIND: Final = (Entry(name="alike", request=RequestTemplate(steps=20, guidance=4.0)),)
USERS: Final = 16
SECONDS: Final = 40.0
OVERLOADED_SECONDS: Final = 10.0
TRIAL_SECONDS: Final = 60.0
"""Of the search for the highest rate, simulated."""
ROUNDS: Final = 2
PERCENTILES: Final = (50, 95)


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    asked: Workload


async def against_reality(model: str, quick: bool) -> Results:
    """In each round the fleet is measured anew, and then loaded."""
    rounds: list[Results] = []
    async with own_fleet(model) as own, NatsTarget.connect(own.url) as target:
        for number in range(1 if quick else ROUNDS):
            profile = await _measured(own, model, quick)
            cluster = Cluster(profile=profile)
            found: Results = {"profile": msgspec.to_builtins(profile)}
            for setting in (_serving(cluster, number, quick), _overload(cluster, number, quick)):
                found[setting.name] = await _compared(cluster, target, setting)
            rounds.append(found)
            say(f"reality, round {number + 1}: {found}")
    return summary(rounds)


def summary(rounds: Sequence[Results]) -> Results:
    """`predicted_over_measured_...` of each setting, the median of all rounds; without the
    setting's name, of the setting that is predicted worst."""
    found: Results = {}
    for percent in PERCENTILES:
        figure = f"predicted_over_measured_p{percent}"
        each = {
            name: _middle([one[name] for one in rounds], f"p{percent}")
            for name in ("serving", "overload")
        }
        found |= {f"{figure}_{name}": ratio for name, ratio in each.items()}
        known = [ratio for ratio in each.values() if ratio]
        found[figure] = max(known, key=lambda ratio: max(ratio, 1.0 / ratio), default=None)
    found["predicted_over_measured_in_time"] = _middle(
        [one["overload"] for one in rounds], "in_time"
    )
    return found | {"rounds": list(rounds)}


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
        others=lambda: time.process_time() + cpu_seconds([own.fleet.nats.pid]),
        tell=say,
    )


def _serving(cluster: Cluster, number: int, quick: bool) -> Setting:
    """What `benchmarks.serving` asks for, without deadlines."""
    rate = SHARE * _full_rate(cluster, mix())
    seconds = 5.0 if quick else SECONDS
    return Setting("serving", workload(mix(), Poisson(rate=rate), seconds, seed=100 + number))


def _overload(cluster: Cluster, number: int, quick: bool) -> Setting:
    """What `benchmarks.overload` asks for."""
    plain = workload(ONE_KIND, Poisson(rate=1.0), TRIAL_SECONDS, seed=number)
    slo = TimesSolo(FACTOR, solo_latencies(cluster, [OURS], schedule(plain)))
    search = Search(start=_full_rate(cluster, ONE_KIND))
    rate = OVERLOAD * highest_rate(cluster, plain, slo, search, TRIAL_SECONDS).rate
    deadlines = {name: FACTOR * seconds for name, seconds in slo.solo.items()}
    entries = with_deadlines(ONE_KIND, deadlines)
    seconds = 3.0 if quick else OVERLOADED_SECONDS
    return Setting("overload", workload(entries, Poisson(rate=rate), seconds, seed=number))


async def _compared(cluster: Cluster, target: NatsTarget, setting: Setting) -> Results:
    """The same requests at the same times."""
    shots = schedule(setting.asked)
    measured = await run_open(shots, target)
    predicted = simulate(cluster, shots).outcomes
    return {
        "rate": round(len(shots) / setting.asked.seconds, 3),
        "requests": len(shots),
    } | compared(measured, predicted)


def compared(measured: Sequence[Outcome], predicted: Sequence[Outcome]) -> Results:
    """Latencies of requests with a picture, and how many were in time."""
    found: Results = {}
    real, simulated = latencies(measured), latencies(predicted)
    for percent in PERCENTILES:
        if real and simulated:
            theirs, ours = percentile(real, percent), percentile(simulated, percent)
            found[f"measured_p{percent}"] = round(theirs, 4)
            found[f"predicted_p{percent}"] = round(ours, 4)
            found[f"p{percent}"] = round(ours / theirs, 3)
    counts = [in_time(outcomes, OwnDeadlines()) for outcomes in (measured, predicted)]
    found["measured_in_time"], found["predicted_in_time"] = counts
    found["in_time"] = round(counts[1] / counts[0], 3) if counts[0] else None
    return found


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
