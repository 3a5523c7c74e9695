"""One run from beginning to end: connect, warm up, measure alone, send, and report."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Final

import msgspec
from rich.console import Console

from loadgen.outcomes.occupancy import keep_sampling
from loadgen.outcomes.outcome import Outcome, Sample, Shot
from loadgen.report.statistics.model import Report
from loadgen.report.statistics.slo import Slo, TimesSolo
from loadgen.report.statistics.summary import summarise
from loadgen.runs.find_rate import Found, Search, Trial, find_rate, found, pooled
from loadgen.runs.live import live
from loadgen.runs.plan import Plan, in_words
from loadgen.runs.run import Interrupted, Observer, run_closed, run_open
from loadgen.runs.solo import solo_latencies, warm_up
from loadgen.runs.trial import Trials, at_rate, longest_deadline
from loadgen.targets.base import Target, not_sent
from loadgen.targets.choose import connect
from loadgen.workload.workload import duration, one_of_each, schedule
from shared.errors import InvalidRequest
from shared.host.file_limit import raise_file_limit

OTHER_FILES: Final = 128
"""That a run has open, its connections apart."""


@dataclass
class Session:
    """What a run has found so far. `console` is for the person who waits."""

    plan: Plan
    console: Console
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    report: Report | None = None
    found: Found | None = None

    async def run(self) -> None:
        """Until it is done, or `stop` is set: then with what there is by then."""
        shots = _shots(self.plan)
        if self.plan.search is not None:  # refused before anybody waits for anything
            at_rate(self.plan.workload, 1.0, 0)
            if not isinstance(self.plan.slo, TimesSolo):
                longest_deadline(self.plan.slo, shots)
        with contextlib.suppress(Interrupted):
            await self._run(shots)

    async def _run(self, shots: Sequence[Shot]) -> None:
        self._raise_file_limit()
        async with connect(self.plan.target) as target:
            self.say(f"{target.name}: {in_words(self.plan)}")
            if missing := not_sent(target, shots):
                self.say(f"not sent, for this target does not take them: {', '.join(missing)}")
            solo = await self._solo(shots, target)
            slo = self.plan.slo
            if isinstance(slo, TimesSolo):
                slo = TimesSolo(slo.factor, solo)
            if self.plan.search is None:
                await self._measure(shots, target, slo)
            else:
                await self._search(self.plan.search, target, slo, solo)

    def _raise_file_limit(self) -> None:
        """Each request in flight over HTTP has a connection, which is an open file."""
        if self.plan.target.kind == "nats":
            return
        needed = (self.plan.users or self.plan.limits.in_flight) + OTHER_FILES
        if (allowed := raise_file_limit(needed)) < needed:
            self.say(
                f"this process may open {allowed} files (ulimit -Hn), {needed} may be needed; "
                "requests that cannot be sent for that do not count"
            )

    async def _solo(self, shots: Sequence[Shot], target: Target) -> dict[str, float]:
        """Warms the server up, and measures what a deadline will need to know."""
        if not isinstance(self.plan.slo, TimesSolo) and self.plan.search is None:
            self.say("warming up")
            await warm_up(shots, target, stop=self.stop)
            return {}
        self.say("measuring what requests take alone")
        solo = await solo_latencies(shots, target, stop=self.stop)
        for name, seconds in solo.items():
            self.say(f"  {name}: {seconds:.3f} s")
        return solo

    async def _measure(self, shots: Sequence[Shot], target: Target, slo: Slo) -> None:
        plan = self.plan
        samples: list[Sample] = []
        async with live(self.console, slo, _window(plan)) as display:
            sampling = asyncio.create_task(
                keep_sampling(target.source, lambda: display.in_flight, samples.append)
            )
            began = time.monotonic()
            try:
                outcomes = await self._send(shots, target, display)
            finally:
                seconds = time.monotonic() - began
                sampling.cancel()
                await asyncio.wait({sampling})
        # The window is what was asked for: the last answers may come earlier or later.
        window = min(seconds, _window(plan)) if self.stop.is_set() else _window(plan)
        about = {**_about(plan, target), "ended": "early" if self.stop.is_set() else "by itself"}
        self.report = summarise(outcomes, samples, slo, window, about)

    async def _send(
        self, shots: Sequence[Shot], target: Target, observer: Observer
    ) -> list[Outcome]:
        plan = self.plan
        if plan.users is None:
            return await run_open(
                shots, target, observer=observer, limits=plan.limits, stop=self.stop
            )
        return await run_closed(
            plan.workload,
            target,
            users=plan.users,
            think=plan.think,
            observer=observer,
            limits=plan.limits,
            stop=self.stop,
        )

    async def _search(
        self, search: Search, target: Target, slo: Slo, solo: dict[str, float]
    ) -> None:
        if search.start is None:
            search = msgspec.structs.replace(search, start=1 / mean(solo.values()))
        trials = Trials(
            self.plan.workload,
            target,
            slo,
            solo,
            limits=self.plan.limits,
            stop=self.stop,
            notify=self._tell,
        )
        try:
            self.found = await find_rate(trials, search)
        except Interrupted:
            self.found = found(pooled(trials.all), trials.all, search)
        if (best := trials.runs.get(self.found.rate)) is not None:
            workload, outcomes = best
            about = _about(msgspec.structs.replace(self.plan, workload=workload), target)
            self.report = summarise(outcomes, [], slo, workload.seconds, about)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _tell(self, trial: Trial) -> None:
        share = f"{trial.met} of {trial.of} in time ({trial.met / trial.of:.1%})"
        busy = "" if trial.quiet else ", begun on a server that was still busy"
        self.say(f"  {trial.rate:8.3f}/s  {share}{busy}")


def _shots(plan: Plan) -> tuple[Shot, ...]:
    """What will be sent; of a closed loop and a search, examples of it."""
    if plan.users is None and plan.search is None:
        shots = schedule(plan.workload)
        if not shots:
            raise InvalidRequest("workload", "no request", "a longer run, or a higher rate")
        return shots
    return one_of_each(plan.workload)


def _window(plan: Plan) -> float:
    """Seconds in which requests are sent; at least one for a trace that is a single moment."""
    return max(duration(plan.workload), 1.0) if plan.users is None else plan.workload.seconds


def _about(plan: Plan, target: Target) -> dict[str, str]:
    return {
        "target": target.name,
        "workload": in_words(plan),
        "mix": ", ".join(entry.name for entry in plan.workload.mix),
        "seed": str(plan.workload.seed),
    }
