"""`python -m benchmarks.serving`"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from benchmarks import serving
from benchmarks.program import Options, Results, run_program, say
from benchmarks.serving.contender import Contender
from benchmarks.serving.mix import mix, workload
from benchmarks.serving.peak import PeakSearch
from benchmarks.serving.pictures import max_abs_diff
from benchmarks.serving.plan import FULL, QUICK, Plan
from benchmarks.serving.results import Rate, Visit, summary
from benchmarks.serving.systems import BASELINES, OURS, baseline, darkroom
from loadgen.arrivals import Constant
from loadgen.find_rate import Search
from loadgen.outcome import Shot
from loadgen.report.slo import Slo, TimesSolo
from loadgen.solo import examples
from loadgen.targets.http import HttpTarget
from loadgen.workload import Workload, schedule

FIRST_RATES: Final = {OURS: 1.5, "serial": 0.2, "request_batching": 0.2}
"""Where the search begins, in requests per mean solo latency."""


async def measure(options: Options) -> Results:
    plan = QUICK if options.quick else FULL
    async with _contenders(options.model, plan) as contenders:
        shots = list(examples(schedule(_all_kinds(plan))).values())
        worst = await max_abs_diff([c.system for c in contenders], shots)
        say(f"pictures of the three systems differ by at most {worst} of 255")
        slo = await _deadlines(contenders, shots, plan)
        rounds = []
        for number in range(plan.rounds):
            order = contenders if number % 2 == 0 else contenders[::-1]
            rounds.append(await _round(order, slo, plan, number))
        found = summary(
            {c.name: Rate(c.search.rate, c.search.result) for c in contenders},
            {c.name: c.solo for c in contenders},
            rounds,
        )
        setups = {c.name: c.system.setup for c in contenders}
        return found | {"max_abs_diff": worst, "setups": setups}


@asynccontextmanager
async def _contenders(model: str, plan: Plan) -> AsyncIterator[list[Contender]]:
    """All three run all the time; two of them are idle while one is measured."""
    async with AsyncExitStack() as stack:
        opened = [baseline(kind, model) for kind in BASELINES]
        systems = [await stack.enter_async_context(each) for each in (*opened, darkroom(model))]
        yield [
            Contender(
                system=system,
                target=await stack.enter_async_context(HttpTarget.connect(system.url)),
                model=model,
                plan=plan,
                entries=mix(plan.steps),
                search=PeakSearch(system.name, Search(precision=plan.precision, repeats=2)),
            )
            for system in systems
        ]


def _all_kinds(plan: Plan) -> Workload:
    """Long enough that every kind of request comes up."""
    return workload(mix(plan.steps), Constant(rate=100.0), seconds=10.0, seed=0)


async def _deadlines(contenders: list[Contender], shots: list[Shot], plan: Plan) -> Slo:
    """Every kind of request alone on each system in turn; the fastest counts, for all of them."""
    for shot in shots:
        for contender in contenders:
            await contender.take_alone(shot)
    best = {name: min(c.solo[name] for c in contenders) for name in contenders[0].solo}
    for contender in contenders:
        mean_solo = sum(contender.solo.values()) / len(contender.solo)
        say(f"{contender.name} ({contender.system.setup}): {mean_solo:.3f} s alone in the mean")
        contender.search.start_at(FIRST_RATES[contender.name] / mean_solo)
    return TimesSolo(plan.factor, best)


async def _round(
    contenders: list[Contender], slo: Slo, plan: Plan, number: int
) -> dict[str, Visit]:
    """Every measurement of every system, one system after another within each."""
    peaks = {}
    for c in contenders:
        peaks[c.name] = await c.find_peak(slo)
        say(f"round {number + 1}: {c.name} sustains {peaks[c.name]:.3f} requests/s")
    common = plan.share_of_peak * peaks[OURS]
    visits = {}
    for c in contenders:
        own = await c.load(plan.share_of_peak * peaks[c.name], slo, seed=2000 + number)
        visits[c.name] = Visit(
            own=own,
            common=own if c.name == OURS else await c.load(common, slo, seed=2000 + number),
            burst=await c.burst(peaks[c.name], slo, seed=2500 + number),
            saturation=await c.saturate(),
        )
        say(f"round {number + 1}: {c.name}: {_line(visits[c.name])}")
    return visits


def _line(visit: Visit) -> str:
    burst, recovery = visit.burst, visit.burst.recovery
    over = "over" if recovery.recovered else "not over"
    return (
        f"p95 {visit.own.p95:.2f} s at its own load, {visit.common.p95:.2f} s at ours; "
        f"{burst.met} of {burst.requests} in the burst, {over} after {recovery.seconds:.1f} s; "
        f"{visit.saturation.cpu_per_image:.3f} CPU seconds per image"
    )


def rows(results: Results) -> list[list[str]]:
    titles = [
        "",
        "requests/s",
        "p95 s at own 70%",
        "p95 s at our 70%",
        "burst",
        "recovery s",
        "CPU s",
    ]
    lines = []
    for name, found in results["systems"].items():
        visits = found["rounds"]
        lines.append(
            [
                name,
                f"{found['rate']:.3f}",
                _each(visits, lambda v: v["own"]["p95"]),
                _each(visits, lambda v: v["common"]["p95"]),
                _each(visits, lambda v: v["burst"]["met"] / max(1, v["burst"]["requests"])),
                _each(visits, lambda v: v["burst"]["recovery"]["seconds"]),
                _each(visits, lambda v: v["saturation"]["cpu_per_image"]),
            ]
        )
    names = (
        "rate_ratio",
        "p95_ratio",
        "burst_attainment",
        "burst_recovery_seconds",
        "cpu_overhead",
    )
    return [titles, *lines, *([name, str(results[name]), "", "", "", "", ""] for name in names)]


def _each(visits: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float]) -> str:
    """One figure per round."""
    return ", ".join(f"{figure(visit):.3g}" for visit in visits)


if __name__ == "__main__":
    run_program("serving", serving.__doc__ or "", measure, rows)
