"""One phase after another, each as long as the budget allows, and the results so far in a file."""

import asyncio
import json
import os
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.harness.program import Results, say
from benchmarks.serving.agenda import IN_WORDS, LEAST_SHARE, Phase, agenda, share_that_fits
from benchmarks.serving.contender import Contender
from benchmarks.serving.peak import Peak
from benchmarks.serving.plan import Plan
from benchmarks.serving.results import Visit, summary
from benchmarks.serving.settings import Settings
from benchmarks.serving.systems import OURS
from loadgen.report.statistics.slo import TimesSolo

SEEDS: Final = {"own": 2000, "common": 2000, "burst": 2500}
"""All systems see the same requests, and every round others."""


@dataclass
class Run:
    """`max_abs_diff`: of the systems' pictures. `ends_at`: on the event loop's clock."""

    contenders: list[Contender]
    slo: TimesSolo
    plan: Plan
    settings: Settings
    max_abs_diff: int
    ends_at: float
    peaks: dict[str, Peak] = field(default_factory=dict)
    rounds: list[dict[str, Visit]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    """Of the plan's durations, phase by phase."""
    left_out: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.ends_at - asyncio.get_running_loop().time()

    async def all(self, rounds: int) -> None:
        """All phases of `rounds` rounds, unless time is over."""
        phases = agenda([contender.name for contender in self.contenders], rounds)
        self.rounds = [{} for _ in range(rounds)]
        try:
            async with asyncio.timeout_at(self.ends_at):
                for number, phase in enumerate(phases):
                    await self._phase(phase, phases[number:], f"{number + 1}/{len(phases)}")
                    self._write()
        except TimeoutError:
            say("the budget is used up; the measurement that ran is dropped, and what is left")
            self.left_out += ["everything after the budget's end"]

    async def _phase(self, phase: Phase, to_do: list[Phase], place: str) -> None:
        share = share_that_fits(to_do, self.plan, self.left)
        what = f"[{place}] round {phase.round + 1}: {phase.system}: {IN_WORDS[phase.kind]}"
        if phase.round and share < LEAST_SHARE:
            self.left_out.append(what)
            say(f"{what}: left out, {self.left:.0f} s are too few")
            return
        share = max(LEAST_SHARE, share)
        self.shares.append(share)
        short = f", {share:.0%} of the time planned" if share < 1.0 else ""
        say(f"{what} ({self.left:.0f} s left{short})")
        contender = next(one for one in self.contenders if one.name == phase.system)
        contender.plan = self.plan.times(share)
        await self._measure(phase, contender)

    async def _measure(self, phase: Phase, contender: Contender) -> None:
        name, slo = contender.name, self.slo
        if phase.kind == "search":
            self.peaks[name] = await contender.find_peak(slo)
            say(f"  {_line(self.peaks[name])}")
            return
        visit = self.rounds[phase.round].get(name, Visit())
        rate = self.plan.share_of_peak * self.peaks[name].sustained
        common = self.plan.share_of_peak * self.peaks[OURS].sustained
        match phase.kind:
            case "own":
                load = await contender.load(rate, slo, SEEDS["own"] + phase.round)
                visit = replace(visit, own=load, common=load if name == OURS else None)
            case "common":
                load = await contender.load(common, slo, SEEDS["common"] + phase.round)
                visit = replace(visit, common=load)
            case "burst":
                peak, seed = self.peaks[name].sustained, SEEDS["burst"] + phase.round
                visit = replace(visit, burst=await contender.burst(peak, slo, seed))
            case "saturation":
                visit = replace(visit, saturation=await contender.saturate())
        self.rounds[phase.round][name] = visit

    def results(self, complete: bool) -> Results:
        settings = self.settings
        return {
            **summary(self.peaks, {c.name: c.solo for c in self.contenders}, self.rounds),
            "max_abs_diff": self.max_abs_diff,
            "setups": {c.name: c.system.setup for c in self.contenders},
            "deadlines_carried": settings.deadlines,
            "eager_baselines": settings.eager,
            "deadline_seconds": {
                name: round(self.slo.factor * solo, 4) for name, solo in self.slo.solo.items()
            },
            "denoisers": {c.name: c.system.denoisers for c in self.contenders}[OURS],
            "budget_seconds": settings.budget,
            "seconds_left": round(self.left, 1),
            "least_share_of_planned_time": min(self.shares, default=None),
            "left_out": self.left_out,
            "complete": complete and not self.left_out,
        }

    def _write(self) -> None:
        """A reader never sees half a file."""
        out = self.settings.out
        if out is None:
            return
        new = out.with_name(f"{out.name}.new")
        new.write_text(json.dumps(self.results(complete=False), indent=1))
        os.replace(new, out)


def _line(peak: Peak) -> str:
    verb = "sustains" if peak.found else "is credited with"
    level = peak.level
    return (
        f"{verb} {level.rate:.3f} requests/s: {level.share:.1%} of {level.of} in time "
        f"({level.low:.1%} to {level.high:.1%})"
    )
