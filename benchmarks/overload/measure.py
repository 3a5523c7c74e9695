"""The whole run: what the fleet costs, what it sustains, and then one burst after another."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.harness.fleet import OwnFleet, own_fleet
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.program import Results, cores, say
from benchmarks.overload.bursts import (
    Burst,
    admitted_in_time,
    attainment,
    refused_ms_p95,
    wasted_share,
)
from benchmarks.overload.light import light_beside_heavy
from benchmarks.overload.possible import Costs, Row, most_in_time
from benchmarks.serving.systems import baseline
from benchmarks.starts import busy_loops
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot
from loadgen.report.statistics.slo import OwnDeadlines
from loadgen.runs.find_rate import Search, find_rate
from loadgen.runs.run import run_open
from loadgen.runs.solo import solo_latencies, until_quiet
from loadgen.runs.trial import Trials
from loadgen.simulator.profiles.cost import Linear
from loadgen.simulator.profiles.measured import Drawn, Steps
from loadgen.simulator.studies.measure import Engines, engines, measure
from loadgen.targets.base import Target
from loadgen.targets.http import HttpTarget
from loadgen.targets.nats import NatsTarget
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import Entry, Workload, one_of_each, schedule
from shared.config import Settings
from shared.models.cards import read_card

STEPS: Final = 20
GUIDANCE: Final = 4.0
UNITS: Final = 2
"""Forwards of a row in a step: both halves of guidance."""
DEADLINE: Final = 2.0
"""Times the solo latency."""
OVERLOAD: Final = 8.0
"""Times the sustained rate."""
SPAN: Final = 4.0
"""The sustained rate is looked for down to the first one that is tried over this, and up to the
first one times this."""
MEANWHILE: Final = 0.5
"""Of the sustained rate, while busy loops disturb the fleet."""
BATCHING: Final = "request_batching"


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations in seconds. `users`: of the loads at which costs are measured."""

    rounds: int = 2
    users: tuple[int, ...] = (1, 2, 4, 8, 16)
    level_seconds: float = 2.5
    trial_seconds: float = 8.0
    precision: float = 0.2
    burst_seconds: float = 10.0
    light_jobs: int = 30
    heavy_jobs: int = 200


FULL: Final = Plan()
QUICK: Final = Plan(1, (1, 4, 16), 1.0, 2.0, 1.0, 3.0, 5, 20)


async def measure_with(model: str, plan: Plan, rounds: int | None, alone: bool) -> Results:
    """`alone`: without the baseline."""
    found: dict[str, list[Burst]] = {}
    async with _rig(model, plan, alone) as rig:
        for number in range(rounds or plan.rounds):
            for kind, burst in [one async for one in rig.round(number)]:
                found.setdefault(kind, []).append(burst)
        light = await light_beside_heavy(rig.own.darkroom, STEPS, plan.light_jobs, plan.heavy_jobs)
    return (
        summary(found)
        | light
        | {
            "solo_seconds": {name: round(s, 4) for name, s in rig.solo.items()},
            "sustained_per_second": round(rig.rate, 3),
            "costs": asdict(rig.costs),
        }
    )


def summary(found: dict[str, list[Burst]]) -> Results:
    calm = [*found["http"], *found["nats"]]
    disturbed = found["disturbed"]
    ours = [*calm, *disturbed]
    return {
        "attainment_over_possible": attainment(calm),
        "attainment_after_disturbance": attainment(disturbed),
        "request_batching_over_possible": attainment(found.get(BATCHING, [])),
        "refused_ms_p95": refused_ms_p95(ours),
        "refused_ms_p95_by_way": {way: refused_ms_p95(found[way]) for way in ("http", "nats")},
        "wasted_share": wasted_share(ours),
        "admitted_in_time": admitted_in_time(ours),
        "bursts": {kind: [burst.as_json() for burst in each] for kind, each in found.items()},
    }


@dataclass
class Rig:
    """What is measured. `targets`, and `solo` latencies over each, by name; `around`: seconds of a
    request that is alone beside its steps, over each."""

    own: OwnFleet
    targets: dict[str, Target]
    plan: Plan
    costs: Costs
    solo: dict[str, float]
    around: dict[str, float]
    rate: float = 0.0

    async def round(self, number: int) -> AsyncIterator[tuple[str, Burst]]:
        for name in ("http", BATCHING, "nats"):
            if name in self.targets:
                await self._quiet(name)
                yield name, await self._burst(name, 100 + number, name)
        asked = self._workload("http", self.rate * MEANWHILE, 200 + number)
        with busy_loops(cores()):
            await run_open(schedule(asked), self.targets["http"], limits=Limits(drain=0.0))
        yield "disturbed", await self._burst("disturbed", 300 + number, "http")

    async def find_rate(self, start: float) -> None:
        """The highest rate with 90% in time, or the lowest that was tried."""
        workload = self._workload("http", start, 1000, self.plan.trial_seconds)
        trials = Trials(
            workload,
            self.targets["http"],
            OwnDeadlines(),
            notify=lambda trial: say(f"{trial.met} of {trial.of} in time at {trial.rate:.2f}/s"),
        )
        search = Search(
            start=start, lowest=start / SPAN, highest=start * SPAN,
            precision=self.plan.precision, repeats=1,
        )  # fmt: skip
        found = await find_rate(trials, search)
        self.rate = found.rate or found.levels[0].rate

    async def _burst(self, kind: str, seed: int, name: str) -> Burst:
        shots = schedule(self._workload(name, OVERLOAD * self.rate, seed))
        before, used = await engines(self.own.fleet.bus), self._processor()
        outcomes = await run_open(shots, self.targets[name], limits=Limits(drain=5.0))
        after, using = await engines(self.own.fleet.bus), self._processor()
        burst = self._of(
            outcomes,
            name,
            0 if name == BATCHING else taken(before, after).row_steps,
            {service: seconds - used.get(service, 0.0) for service, seconds in using.items()},
        )
        say(f"{kind}: {burst.as_json()}")
        return burst

    def _of(
        self, outcomes: Sequence[Outcome], name: str, steps: int, processor: dict[str, float]
    ) -> Burst:
        way = "http" if name == BATCHING else name
        window = DEADLINE * self.solo[way] - self.around[way]
        rows = [Row(o.shot.at, o.shot.at + window, STEPS, UNITS) for o in outcomes]
        done = sum(outcome.status == "done" for outcome in outcomes)
        return Burst(
            outcomes, most_in_time(rows, self.costs), steps, min(steps, done * STEPS), processor
        )

    def _workload(
        self, name: str, rate: float, seed: int, seconds: float | None = None
    ) -> Workload:
        """The baseline's requests have the deadlines of ours."""
        deadline = DEADLINE * self.solo["http" if name == BATCHING else name]
        return Workload(
            arrivals=Poisson(rate=rate),
            seconds=self.plan.burst_seconds if seconds is None else seconds,
            mix=(Entry(request=_request(deadline)),),
            seed=seed,
        )

    async def _quiet(self, name: str) -> None:
        [shot] = _alone()
        solo = self.solo.get(name, 10.0)
        await until_quiet(shot, solo, self.targets[name])

    def _processor(self) -> dict[str, float]:
        """Seconds of all processes, by service."""
        found: dict[str, float] = {"nats-server": cpu_seconds([self.own.fleet.nats.pid])}
        for child in self.own.fleet.children:
            if child.pid is not None:
                service = child.spec.service
                found[service] = found.get(service, 0.0) + cpu_seconds([child.pid])
        return found


@asynccontextmanager
async def _rig(model: str, plan: Plan, alone: bool) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(own_fleet(model))
        targets: dict[str, Target] = {
            "http": await stack.enter_async_context(HttpTarget.connect(own.fleet.http_url)),
            "nats": await stack.enter_async_context(NatsTarget.connect(own.url)),
        }
        if not alone:
            say("starting request batching")
            system = await stack.enter_async_context(baseline(BATCHING, model))
            targets[BATCHING] = await stack.enter_async_context(HttpTarget.connect(system.url))
        costs = await _costs(own, model, plan)
        full = full_rate(costs, plan.users[-1])
        say(f"a step takes {costs}; {full:.2f} images/s")
        solo: dict[str, float] = {}
        around: dict[str, float] = {}
        for name in ("http", "nats"):
            before = await engines(own.fleet.bus)
            [solo[name]] = (await solo_latencies(_alone(), targets[name], requests=8)).values()
            one = taken(before, await engines(own.fleet.bus))
            around[name] = max(0.0, solo[name] - STEPS * one.seconds / max(1, one.steps))
            say(f"alone over {name}: {solo[name]:.3f} s, {around[name]:.3f} of it beside its steps")
        rig = Rig(own, targets, plan, costs, solo, around)
        await rig.find_rate(0.5 * full)
        say(f"sustained: {rig.rate:.2f}/s")
        yield rig


async def _costs(own: OwnFleet, source: str, plan: Plan) -> Costs:
    """What steps, images and requests take of the cores, this process's share included."""
    card = read_card(source)
    drawn = Drawn(steps=STEPS, guided=True, width=card.default_width, height=card.default_height)
    profile = await measure(
        own.darkroom,
        own.fleet.bus,
        {card.name: drawn},
        "overload",
        users=plan.users,
        seconds=plan.level_seconds,
        tell=say,
    )
    found, around = profile.workflows[card.name], profile.overheads
    step = profile.components[found.denoise].cost
    assert isinstance(step, Linear)
    assert profile.host is not None
    return Costs(
        fixed=step.fixed,
        per_unit=step.per_unit,
        denoisers=profile.host.denoisers,
        max_rows=Settings().max_rows,
        cores=profile.host.cores,
        picture=around.drawn_cpu
        + profile.components[found.encode].cost.seconds(UNITS)
        + profile.components[found.decode].cost.seconds(1),
        request=around.cpu,
    )


def full_rate(costs: Costs, users: int) -> float:
    """Images a second that the machine has time for while so many users share all steps."""
    rows = max(1.0, users / costs.denoisers)
    steps = STEPS * (costs.fixed / rows + costs.per_unit * UNITS)
    busiest = max(steps / costs.denoisers, (steps + costs.picture + costs.request) / costs.cores)
    return 1.0 / busiest


def taken_by_each(before: Engines, after: Engines) -> list[Steps]:
    """Steps of denoisers that took any."""
    return [
        Steps(
            steps=now.steps - then.steps,
            row_steps=now.row_steps - then.row_steps,
            seconds=now.seconds - then.seconds,
        )
        for key, now in after.items()
        if (then := before.get(key)) is not None and now.steps > then.steps
    ]


def taken(before: Engines, after: Engines) -> Steps:
    """Steps of all denoisers together."""
    each = taken_by_each(before, after)
    return Steps(
        steps=sum(one.steps for one in each),
        row_steps=sum(one.row_steps for one in each),
        seconds=sum(one.seconds for one in each),
    )


def _request(deadline: float | None) -> RequestTemplate:
    return RequestTemplate(steps=STEPS, guidance=GUIDANCE, deadline=deadline)


def _alone() -> Sequence[Shot]:
    return one_of_each(Workload(mix=(Entry(request=_request(None)),)))
