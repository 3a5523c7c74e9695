"""Published workflows and traces on simulated clusters, against what people run today."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any, Final, TypeVar

import msgspec

from benchmarks.harness.program import Results, say
from benchmarks.simulate.possible import highest_possible_rate
from loadgen.outcomes.outcome import RequestTemplate
from loadgen.report.statistics.slo import TimesSolo
from loadgen.runs.find_rate import Search
from loadgen.simulator.cluster.job import Wanted, wanted
from loadgen.simulator.profiles import h800
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.names import OURS, SYSTEMS, Name
from loadgen.simulator.studies.offer import offered
from loadgen.simulator.studies.run import simulate
from loadgen.simulator.studies.search import (
    fewest_devices,
    highest_rate,
    largest_burst,
    ratio,
    solo_latencies,
)
from loadgen.simulator.systems.darkroom import Policies
from loadgen.simulator.systems.pipelines import pipeline_seconds
from loadgen.workload.workload import Entry, Workload, schedule
from shared.policy.placement.place import place
from shared.policy.release.decide import release
from shared.policy.step_scheduler import schedule_step

TRACE: Final = "4.0"
FACTOR: Final = 2.0
"""Deadlines are so many times what a request takes alone."""
SHARE: Final = 0.9
REQUESTS: Final = 600
"""Of a trial, at least, and"""
SOLO_TIMES: Final = 6.0
"""so many times the longest request."""
BURST_RATE: Final = 0.5
"""Before a burst and after it, of the best baseline's rate."""
BURST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Setting:
    """`load`: seconds of a device that a request takes in the mean, in a pipeline, alone. `asked`:
    the requests of the trace."""

    name: str
    workload: Workload
    slo: TimesSolo
    load: float
    asked: tuple[Wanted, ...]

    @property
    def longest(self) -> float:
        return max(self.slo.solo.values())

    def seconds(self, devices: int) -> float:
        """Of a trial on so many devices."""
        return max(SOLO_TIMES * self.longest, REQUESTS * self.load / devices)


Result = TypeVar("Result")


@dataclass
class Stopwatch:
    """Times decisions of one kind."""

    decisions: int = 0
    seconds: float = 0.0

    def timed(self, decide: Callable[..., Result]) -> Callable[..., Result]:
        def decided(*asked: Any, **named: Any) -> Result:
            began = perf_counter()
            found = decide(*asked, **named)
            self.seconds += perf_counter() - began
            self.decisions += 1
            return found

        return decided

    @property
    def microseconds(self) -> float:
        return round(1e6 * self.seconds / max(1, self.decisions), 1)


def setting_of(name: str) -> Setting:
    """The published trace, asked of the setting's workflows."""
    profile = h800.of_setting(name)
    entry = Entry(name=name, request=RequestTemplate(model=next(iter(profile.workflows))))
    workload = Workload(trace=h800.served(h800.trace(TRACE), name), mix=(entry,))
    shots = schedule(workload)
    solo = solo_latencies(Cluster(profile=profile, devices=1), SYSTEMS, shots)
    asked = tuple(wanted(shot, profile) for shot in shots)
    load = mean(pipeline_seconds(profile, [one]) for one in asked)
    return Setting(name, workload, TimesSolo(FACTOR, solo), load, asked)


def rates(setting: Setting, devices: int, precision: float) -> dict[Name, float]:
    """Requests a second with `SHARE` in time, by system."""
    found: dict[Name, float] = {}
    for system in SYSTEMS:
        start = found.get(OURS, 0.5 * devices / setting.load)
        search = Search(share=SHARE, precision=precision, start=start)
        one = _cluster(setting, devices, system)
        seconds = setting.seconds(devices)
        found[system] = highest_rate(one, setting.workload, setting.slo, search, seconds).rate
    return found


def bursts(setting: Setting, devices: int, rate: float, precision: float) -> dict[Name, float]:
    """Requests a second more than `rate` in the largest burst with `SHARE` in time, by system."""
    search = Search(share=SHARE, precision=precision)
    mixed = _mixed(setting.workload)
    return {
        system: rate
        * max(
            0.0,
            largest_burst(
                _cluster(setting, devices, system), mixed, setting.slo, search, rate, BURST_SECONDS
            ).rate
            - 1.0,
        )
        for system in SYSTEMS
    }


def devices_needed(setting: Setting, devices: int, rate: float) -> dict[Name, int | None]:
    """The fewest that keep `SHARE` in time at `rate`, by system."""
    seconds = setting.seconds(devices)
    return {
        system: fewest_devices(
            _cluster(setting, devices, system), setting.workload, setting.slo, SHARE, rate, seconds
        )
        for system in SYSTEMS
    }


def speed(setting: Setting, devices: int, rate: float) -> Results:
    """How fast a cluster of so many is simulated, and what a decision takes."""
    steps, releases, places = Stopwatch(), Stopwatch(), Stopwatch()
    policies = Policies(steps.timed(schedule_step), releases.timed(release), places.timed(place))
    shots = offered(setting.workload, rate, max(60.0, setting.seconds(devices)))
    began = process_time()
    run = simulate(_cluster(setting, devices, OURS), shots, setting.slo, policies=policies)
    took = process_time() - began
    return {
        "setting": setting.name,
        "devices": devices,
        "requests": len(shots),
        "decide_us": releases.microseconds,
        "decisions": releases.decisions,
        "step_us": steps.microseconds,
        "place_ms": round(places.microseconds / 1e3, 3),
        "place_ms_per_job": round(1e3 * places.seconds / max(1, len(shots)), 4),
        "processor_seconds": round(took, 2),
        "seconds_simulated_per_second": round(run.seconds / took, 2),
    }


def study(
    settings: Sequence[Setting], devices: int, precision: float, with_bursts: bool = True
) -> Results:
    """Every setting on so many devices."""
    found: dict[str, Results] = {}
    for setting in settings:
        by_rate = rates(setting, devices, precision)
        possible = highest_possible_rate(
            h800.of_setting(setting.name), setting.asked, devices, SHARE
        )
        best = max(rate for name, rate in by_rate.items() if name != OURS)
        found[setting.name] = one = {
            "solo": {name: round(seconds, 3) for name, seconds in setting.slo.solo.items()},
            "rates": _rounded(by_rate),
            "possible": round(possible, 3),
            "rate_ratio": _round(ratio(by_rate)),
            "possible_ratio": _round(possible / best) if best > 0.0 else None,
        }
        if with_bursts and best > 0.0:
            by_burst = bursts(setting, devices, BURST_RATE * best, precision)
            one |= {"bursts": _rounded(by_burst), "burst_ratio": _round(ratio(by_burst))}
        say(f"{setting.name} on {devices}: {one['rates']}, ratio {one['rate_ratio']}")
    return {
        "devices": devices,
        "settings": found,
        "rate_ratio": _middle(found, "rate_ratio"),
        "possible_ratio": _middle(found, "possible_ratio"),
        "burst_ratio": _middle(found, "burst_ratio"),
    }


def _cluster(setting: Setting, devices: int, system: Name) -> Cluster:
    return Cluster(profile=h800.of_setting(setting.name), system=system, devices=devices)


def _mixed(workload: Workload) -> Workload:
    """What a trace asks for, as a mix that can come in any way."""
    asked: dict[str, int] = {}
    for arrival in workload.trace or ():
        asked[arrival.changes["model"]] = asked.get(arrival.changes["model"], 0) + 1
    first = workload.mix[0].name
    mix = tuple(
        # Named as the trace's requests are, for deadlines go by the names.
        Entry(name=f"{first}: {model}", weight=count, request=RequestTemplate(model=model))
        for model, count in sorted(asked.items())
    )
    return msgspec.structs.replace(workload, trace=None, mix=mix)


def _middle(found: Mapping[str, Results], figure: str) -> float | None:
    known = [one[figure] for one in found.values() if one.get(figure) is not None]
    return round(median(known), 3) if known else None


def _rounded(found: Mapping[Name, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in found.items()}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
