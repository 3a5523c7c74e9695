"""One of the systems, and what is asked of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.traffic_mix import (
    images_through_network,
    steps_of,
    with_deadlines,
    workload,
)
from benchmarks.serving.burst import Burst, attainment, recovery
from benchmarks.serving.load import by_name, load_of
from benchmarks.serving.network import network_time
from benchmarks.serving.peak import Peak, PeakSearch
from benchmarks.serving.plan import Plan
from benchmarks.serving.results import BurstResult, Load, Saturation
from benchmarks.serving.search import Next
from benchmarks.serving.systems import OURS, System
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.slo import Slo
from loadgen.report.statistics.summary import meets
from loadgen.runs.find_rate import Trial
from loadgen.runs.run import run_closed, run_open
from loadgen.runs.solo import examples, solo_latencies, until_quiet
from loadgen.runs.trial import longest_deadline
from loadgen.targets.base import Target
from loadgen.workload.arrivals import Arrivals, Poisson
from loadgen.workload.arrivals import Burst as BurstArrivals
from loadgen.workload.workload import Entry, Workload, one_of_each, schedule


@dataclass
class Contender:
    """`solo`: its own latencies by template, once they are measured. `deadlines`: seconds by
    template that requests carry with them; none if they carry none."""

    system: System
    target: Target
    model: str
    plan: Plan
    entries: tuple[Entry, ...]
    search: PeakSearch
    solo: dict[str, float] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.system.name

    async def take_alone(self, shot: Shot) -> None:
        """Measure what a request like `shot` takes when there is no other."""
        self.solo |= await solo_latencies([shot], self.target, requests=self.plan.solo_requests)

    async def find_peak(self, slo: Slo) -> Peak:
        """Go on looking for the highest rate that is sustained; what is known of it now."""
        overhead = longest_deadline(slo, self._all_kinds())

        async def trial(wanted: Next, number: int) -> Trial:
            return await self._trial(wanted, slo, overhead, seed=1000 + number)

        ours = self.name == OURS
        seconds = self.plan.search_seconds if ours else self.plan.search_seconds_baseline
        await self.search.go_on(trial, seconds, overhead)
        return self.search.peak

    async def _trial(self, wanted: Next, slo: Slo, drain: float, seed: int) -> Trial:
        """What has missed its deadline when all have been sent is cut off."""
        shots = self._shots(wanted.rate, wanted.requests, seed)
        outcomes = await run_open(shots, self.target, limits=Limits(drain=drain))
        quiet = await self.quiet()
        met = sum(meets(slo, outcome) is True for outcome in outcomes)
        return Trial(rate=wanted.rate, met=met, of=len(outcomes), quiet=quiet)

    async def load(self, rate: float, slo: Slo, seed: int) -> Load:
        """Poisson requests at `rate`."""
        count = max(self.plan.least_requests, round(rate * self.plan.load_seconds))
        return load_of(rate, await self._offer(self._shots(rate, count, seed)), slo)

    async def burst(self, rate: float, slo: Slo, seed: int) -> BurstResult:
        """`rate`, then many times as much, then `rate` again, long enough to see it recover."""
        plan = self.plan
        burst = Burst(plan.before_burst, plan.before_burst + plan.burst_seconds)
        arrivals = BurstArrivals(
            rate=rate, factor=plan.burst_factor, at=burst.began, seconds=plan.burst_seconds
        )
        offered = self._workload(arrivals, burst.ended + plan.after_burst, seed)
        outcomes = await self._offer(schedule(offered))
        met, of = attainment(outcomes, burst, slo)
        return BurstResult(rate, of, met, recovery(outcomes, burst), by_name(outcomes))

    async def saturate(self) -> Saturation:
        """As many users as the plan says, none of whom pauses. Nobody is in time or late here, so
        requests carry no deadlines."""
        plan = self.plan
        seconds = plan.warm_seconds + plan.saturation_seconds
        asked = workload(self.entries, Poisson(rate=1.0), seconds, seed=3000)
        counter = _Done()
        run = asyncio.create_task(
            run_closed(
                asked, self.target, users=plan.users, observer=counter, limits=_draining(plan)
            )
        )
        try:
            await asyncio.sleep(plan.warm_seconds)
            before = await self._reading(counter)
            await asyncio.sleep(plan.saturation_seconds)
            after = await self._reading(counter)
            await run
        finally:
            run.cancel()
        return await self._saturation(before, after, counter.outcomes[before.done : after.done])

    async def quiet(self) -> bool:
        """Wait until what the last run left is gone. False: it never was."""
        kinds = examples(self._all_kinds()).values()
        shot = min(kinds, key=lambda one: self.solo[one.template])
        return await until_quiet(shot, self.solo[shot.template], self.target)

    def _all_kinds(self) -> Sequence[Shot]:
        """Requests without deadlines, each of the mix among them."""
        return one_of_each(workload(self.entries, Poisson(rate=1.0), 1.0, seed=0))

    async def _offer(self, shots: Sequence[Shot]) -> list[Outcome]:
        outcomes = await run_open(shots, self.target, limits=_draining(self.plan))
        await self.quiet()
        return outcomes

    def _shots(self, rate: float, count: int, seed: int) -> Sequence[Shot]:
        """`count` Poisson requests; a time instead would sometimes hold none."""
        surely_enough = 2.0 * (count + 10.0) / rate
        shots = schedule(self._workload(Poisson(rate=rate), surely_enough, seed))
        return shots[:count]

    def _workload(self, arrivals: Arrivals, seconds: float, seed: int) -> Workload:
        entries = with_deadlines(self.entries, self.deadlines) if self.deadlines else self.entries
        return workload(entries, arrivals, seconds, seed)

    async def _reading(self, counter: "_Done") -> "_Reading":
        steps = None if self.system.steps is None else await self.system.steps()
        return _Reading(
            at=asyncio.get_running_loop().time(),
            cpu=cpu_seconds(self.system.pids()),
            done=len(counter.outcomes),
            steps=0 if steps is None else steps.steps,
            rows=0 if steps is None else steps.rows,
        )

    async def _saturation(
        self, before: "_Reading", after: "_Reading", outcomes: Sequence[Outcome]
    ) -> Saturation:
        images = len(outcomes)
        found = Saturation(
            images=images,
            images_per_second=images / (after.at - before.at),
            cpu_per_image=(after.cpu - before.cpu) / max(1, images),
        )
        steps = after.steps - before.steps
        if not steps or not images:
            return found
        rows = (after.rows - before.rows) / steps
        forwards = sum(images_through_network(outcome.shot) for outcome in outcomes)
        batch = rows * forwards / sum(steps_of(outcome.shot) for outcome in outcomes)
        bare = await network_time(
            self.model, batch, self.system.denoisers, self.plan.network_seconds
        )
        return replace(found, rows_per_step=rows, network_per_image=bare.per_image(steps / images))


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    cpu: float
    done: int
    steps: int
    rows: int


class _Done:
    """Notes what is done, in the order in which it ended."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def sent(self, shot: Shot, at: float) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        if outcome.status == "done":
            self.outcomes.append(outcome)


def _draining(plan: Plan) -> Limits:
    return Limits(drain=plan.drain_seconds)
