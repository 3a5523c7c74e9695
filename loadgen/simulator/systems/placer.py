"""The placement service, as far as the simulator has one: what is asked of every component is
counted, and `shared/policy/placement` decides which device holds what.

The counterpart of `services/placement`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.simulator.cluster.job import Job, Wanted
from loadgen.simulator.profiles.profile import Kind, Profile
from loadgen.simulator.systems.parts import parts
from shared.policy.placement.arrivals import QUICK_SECONDS, SLOW_SECONDS, Arrivals
from shared.policy.placement.place import place
from shared.policy.placement.state import USUAL_SLACK, Demand, Model, Move, Process, moved
from shared.policy.release.jobs import Component
from shared.services import NodeKind

EXPECTED_USE: Final = 0.9
"""Share of the devices that is asked for before anybody has asked, with the mix that is
expected."""
LONG_AGO: Final = 1000.0
"""Seconds for which the expected mix is taken to have been asked for."""
SETTLING: Final = 64
"""Decisions in which devices that hold nothing are filled."""
NODE_KINDS: Final[Mapping[Kind, NodeKind]] = {
    "encode": "encode",
    "controlnet": "hint",
    "denoise": "denoise",
    "decode": "decode",
}
ALL_KINDS: Final = frozenset(NODE_KINDS.values())

Changes = Iterator[tuple[int, list[str], list[str]]]
"""Of devices: what each is to load, and to unload."""


@dataclass(slots=True)
class _Window:
    """What came since the last decision. Sums over jobs."""

    jobs: int = 0
    seconds: float = 0.0
    slack: float = 0.0


class Placer:
    """`expected`: requests by whose mix devices are filled at first."""

    def __init__(
        self,
        profile: Profile,
        devices: int,
        expected: Sequence[Wanted],
        decide: Callable[..., tuple[Move, ...]] = place,
    ) -> None:
        self._profile, self._decide = profile, decide
        self._models = models_of(profile)
        self._processes = [
            Process(str(number), str(number), ALL_KINDS, profile.memory)
            for number in range(devices)
        ]
        self._arrivals = dict(self._expected(expected, devices))
        self._windows: defaultdict[Component, _Window] = defaultdict(_Window)

    def __repr__(self) -> str:
        return f"<Placer of {len(self._processes)} devices>"

    def begin(self) -> list[list[str]]:
        """What each device holds at first."""
        demand = self._demand({})
        for _ in range(SETTLING):
            moves = self._decide(self._models, self._processes, demand)
            if not moves:
                break
            self._processes = moved(self._processes, moves)
        return [sorted(name for _, name in one.holds) for one in self._processes]

    def came(self, job: Job) -> None:
        needed = list(self._parts(job.wanted))
        alone = sum(seconds for _, seconds in needed)
        slack = USUAL_SLACK * alone if job.deadline is None else job.deadline - job.came - alone
        for component, seconds in needed:
            window = self._windows[component]
            window.jobs += 1
            window.seconds += seconds
            window.slack += max(0.0, slack)

    def decide(self, now: float, waiting: Collection[Job], queued: Mapping[str, int]) -> Changes:
        """`waiting`: at planners. `queued`: nodes by component."""
        backlog: defaultdict[Component, float] = defaultdict(float)
        for component, arrivals in self._arrivals.items():
            backlog[component] += queued.get(component[1], 0) * arrivals.seconds
        for job in waiting:
            for component, seconds in self._parts(job.wanted):
                backlog[component] += seconds
        for component in {*self._arrivals, *self._windows}:
            self._arrivals[component] = self._counted(component, now)
        self._windows.clear()
        moves = self._decide(self._models, self._processes, self._demand(backlog))
        self._processes = moved(self._processes, moves)
        for move in moves:
            yield (
                int(move.process),
                [name for _, name in move.loads],
                [name for _, name in move.unloads],
            )

    def _counted(self, component: Component, now: float) -> Arrivals:
        before = self._arrivals.get(component) or Arrivals(now, now)
        window = self._windows.get(component)
        if window is None:
            return before.after(now, 0)
        jobs = window.jobs
        return before.after(now, jobs, window.seconds / jobs, window.slack / jobs)

    def _demand(self, backlog: Mapping[Component, float]) -> dict[Component, Demand]:
        return {
            component: one.demand(backlog.get(component, 0.0))
            for component, one in self._arrivals.items()
        }

    def _expected(
        self, expected: Sequence[Wanted], devices: int
    ) -> Iterator[tuple[Component, Arrivals]]:
        """As if it had come for long, so that devices are busy for `EXPECTED_USE` of their time."""
        jobs: Counter[Component] = Counter()
        seconds: defaultdict[Component, float] = defaultdict(float)
        alone: defaultdict[Component, float] = defaultdict(float)
        for wanted in expected:
            needed = list(self._parts(wanted))
            whole = sum(each for _, each in needed)
            for component, each in needed:
                jobs[component] += 1
                seconds[component] += each
                alone[component] += whole
        total = sum(seconds.values())
        for component, count in jobs.items():
            rate = EXPECTED_USE * devices * count / total if total else 0.0
            yield (
                component,
                Arrivals(
                    -LONG_AGO,
                    0.0,
                    rate * QUICK_SECONDS,
                    rate * SLOW_SECONDS,
                    seconds[component] / count,
                    alone[component] / count,
                    0.0,
                ),
            )

    def _parts(self, wanted: Wanted) -> Iterator[tuple[Component, float]]:
        for name, seconds in parts(self._profile, wanted):
            yield (NODE_KINDS[self._profile.components[name].kind], name), seconds


def models_of(profile: Profile) -> list[Model]:
    """A ControlNet is asked within the steps of every network that has a workflow with both."""
    hosts: defaultdict[str, set[Component]] = defaultdict(set)
    for workflow in profile.workflows.values():
        for control in workflow.controls:
            hosts[control].add(("denoise", workflow.denoise))
    return [
        Model(
            (NODE_KINDS[one.kind], name),
            one.bytes,
            one.load_seconds,
            tuple(sorted(hosts[name])) if one.kind == "controlnet" else (),
        )
        for name, one in profile.components.items()
    ]
