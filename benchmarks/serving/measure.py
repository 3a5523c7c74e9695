"""The whole run: three systems, their deadlines, and one phase after another within the budget."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from benchmarks.harness.program import Options, Results, say
from benchmarks.harness.traffic_mix import mix
from benchmarks.serving.agenda import rounds_that_fit
from benchmarks.serving.contender import Contender
from benchmarks.serving.peak import PeakSearch
from benchmarks.serving.phases import Run
from benchmarks.serving.pictures import max_abs_diff
from benchmarks.serving.plan import FULL, QUICK, Plan
from benchmarks.serving.search import Search
from benchmarks.serving.settings import Settings, settings_of
from benchmarks.serving.systems import BASELINES, OURS, System, baseline, darkroom
from loadgen.outcomes.outcome import Shot
from loadgen.report.statistics.slo import TimesSolo
from loadgen.targets.http import HttpTarget
from loadgen.workload.workload import Workload, one_of_each

FIRST_RATES: Final = {OURS: 0.8, "serial": 0.2, "request_batching": 0.2}
"""Where the search begins, in requests per mean solo latency."""
LEAVING_SECONDS: Final = 15.0
"""Of the budget, for all processes to end."""


async def measure(options: Options) -> Results:
    """Everything, or what there was time for."""
    settings, plan = settings_of(options.own), QUICK if options.quick else FULL
    ends_at = asyncio.get_running_loop().time() + settings.budget - LEAVING_SECONDS
    say(f"starting {', '.join((OURS, *BASELINES))}; {settings.budget:g} s for everything")
    async with _contenders(options.model, plan, settings) as contenders:
        shots = one_of_each(Workload(mix=mix(plan.steps)))
        say("comparing their pictures")
        worst = await max_abs_diff([c.system for c in contenders], shots)
        say(f"pictures of the three systems differ by at most {worst} of 255")
        slo = await _deadlines(contenders, shots, plan, settings)
        run = Run(contenders, slo, plan, settings, worst, ends_at)
        rounds = rounds_that_fit([OURS, *BASELINES], settings.rounds, plan, run.left)
        if rounds < settings.rounds:
            say(f"only {rounds} of {settings.rounds} rounds fit into the {run.left:.0f} s left")
        await run.all(rounds)
        return run.results(complete=True)


@asynccontextmanager
async def _contenders(model: str, plan: Plan, settings: Settings) -> AsyncIterator[list[Contender]]:
    """All three run all the time; two of them are idle while one is measured."""
    async with AsyncExitStack() as stack:
        opened = [baseline(kind, model, settings.eager) for kind in BASELINES]
        ours = darkroom(model, settings.denoisers)
        systems = []
        for each in (ours, *opened):  # if time runs out, it is not ours that is missing
            systems.append(await stack.enter_async_context(each))
            say(f"{systems[-1].name} is ready: {systems[-1].setup}")
        yield [
            Contender(
                system=system,
                target=await stack.enter_async_context(HttpTarget.connect(system.url)),
                model=model,
                plan=plan,
                entries=mix(plan.steps),
                search=PeakSearch(system.name, _search(system, plan)),
            )
            for system in systems
        ]


def _search(system: System, plan: Plan) -> Search:
    fine = plan.fine_requests if system.name == OURS else plan.fine_requests_baseline
    return Search(
        coarse=plan.coarse_requests,
        fine=fine,
        seconds=plan.trial_seconds,
        precision=plan.precision,
    )


async def _deadlines(
    contenders: list[Contender], shots: tuple[Shot, ...], plan: Plan, settings: Settings
) -> TimesSolo:
    """Every kind of request alone on each system in turn; the fastest counts, for all of them, and
    is what requests carry from now on, if they are to."""
    for number, shot in enumerate(shots):
        say(f"alone: {shot.template} ({number + 1} of {len(shots)})")
        for contender in contenders:
            await contender.take_alone(shot)
    best = {name: min(c.solo[name] for c in contenders) for name in contenders[0].solo}
    for contender in contenders:
        mean_solo = sum(contender.solo.values()) / len(contender.solo)
        say(f"{contender.name}: {mean_solo:.3f} s alone in the mean")
        contender.search.start_at(FIRST_RATES[contender.name] / mean_solo)
        if settings.deadlines:
            contender.deadlines = {name: plan.factor * solo for name, solo in best.items()}
    return TimesSolo(plan.factor, best)
