"""What is asked of every component, by what planners and processes report."""

from collections.abc import Mapping
from typing import Final, cast

from shared.messages import AskedReport, CostReport, LoadReport, PromiseReport, WorkReport
from shared.policy.placement.arrivals import Arrivals
from shared.policy.placement.state import Demand
from shared.policy.release.jobs import Component
from shared.services import NodeKind

UNKNOWN_SECONDS: Final = 1.0
"""That a job is taken to need of a component whose steps nobody has measured."""
SILENT_SECONDS: Final = 5.0
"""After which a planner that says nothing has nothing that waits."""
MAX_PLANNERS: Final = 256
"""That are remembered."""


class _Planner:
    """Its last report, and what of it was counted."""

    def __init__(self, report: PromiseReport, at: float) -> None:
        self.report, self.at = report, at
        self.counted: dict[Component, tuple[int, int]] = {
            _component(asked): (asked.jobs, asked.steps) for asked in report.asked
        }


class DemandTable:
    """Of all components that somebody asked for. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._planners: dict[str, _Planner] = {}
        self._costs: dict[Component, CostReport] = {}
        self._arrivals: dict[Component, Arrivals] = {}

    def __repr__(self) -> str:
        return f"<DemandTable of {len(self._arrivals)} components>"

    def take(self, report: LoadReport | PromiseReport, now: float) -> None:
        """Remember it. What a planner said first is where counting begins."""
        if isinstance(report, LoadReport):
            for one in report.components:
                if one.cost.known:
                    self._costs[cast(NodeKind, one.kind), one.model] = one.cost
        elif (planner := self._planners.get(report.process)) is not None:
            planner.report, planner.at = report, now
        elif len(self._planners) < MAX_PLANNERS:
            self._planners[report.process] = _Planner(report, now)

    def demand(self, now: float) -> Mapping[Component, Demand]:
        """By all that was said until `now`, which is counted once."""
        jobs: dict[Component, int] = {}
        seconds: dict[Component, float] = {}
        waiting: dict[Component, float] = {}
        slack: dict[Component, float] = {}
        for planner in self._planners.values():
            for asked in planner.report.asked:
                name = _component(asked)
                came, steps = _since(planner, name, asked)
                each = self._step_seconds(name, asked.work)
                jobs[name] = jobs.get(name, 0) + came
                seconds[name] = seconds.get(name, 0.0) + steps * each
                if now - planner.at < SILENT_SECONDS:
                    waiting[name] = waiting.get(name, 0.0) + asked.waiting * each
                if asked.left is not None:
                    mean = asked.steps * each / max(1, asked.jobs)
                    slack[name] = min(slack.get(name, asked.left), max(0.0, asked.left - mean))
        for name, count in jobs.items():
            before = self._arrivals.get(name) or Arrivals(now, now)
            each = seconds[name] / count if count else 0.0
            self._arrivals[name] = before.after(now, count, each, slack.get(name))
        return {name: one.demand(waiting.get(name, 0.0)) for name, one in self._arrivals.items()}

    def _step_seconds(self, name: Component, work: WorkReport) -> float:
        cost = self._costs.get(name)
        return UNKNOWN_SECONDS if cost is None else cost.seconds(work)


def _since(planner: _Planner, name: Component, asked: AskedReport) -> tuple[int, int]:
    """Jobs and steps that were not counted yet."""
    jobs, steps = planner.counted.get(name, (0, 0))
    planner.counted[name] = asked.jobs, asked.steps
    return max(0, asked.jobs - jobs), max(0, asked.steps - steps)


def _component(asked: AskedReport) -> Component:
    return cast(NodeKind, asked.kind), asked.model
