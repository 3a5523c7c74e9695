"""The cases by name, each with the fleet it needs and the numbers of its short and long run."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from shared.host.crash_points import POINTS
from shared.messages import GenerationRequest
from tests.chaos.check.leaks import pids_marked
from tests.chaos.fleet.cluster import cluster_broker
from tests.chaos.fleet.fleets import ChaosFleet, FleetPlan, chaos_fleet
from tests.chaos.fleet.injection import SLOTS
from tests.chaos.harm.backlog import planner_kills
from tests.chaos.harm.components import come_and_go
from tests.chaos.harm.fuzz import fuzz_messages
from tests.chaos.harm.group import group_fleet, group_kills
from tests.chaos.harm.http import fuzz_http
from tests.chaos.harm.kills import random_kills, takeover
from tests.chaos.harm.points import crash_everywhere, prepared
from tests.chaos.harm.poison import INJECTED, Poisoned
from tests.chaos.harm.restarts import broker_kills, rolling_restart
from tests.chaos.harm.soak import soak
from tests.chaos.harm.steered import SERVICE, steered_fleet, steered_requests
from tests.chaos.harm.stops import stop_and_continue
from tests.chaos.load import requests
from tests.chaos.report import CaseResult
from tests.chaos.trial import Trial, is_done, measured, trial_on

Body = Callable[[Trial], Awaitable[None]]
Fleets = Callable[[FleetPlan], AbstractAsyncContextManager[ChaosFleet]]

SMALLEST_SLOT: Final = 1024
"""Bytes: the tensors of the small model take slots as those of a large one do."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much harm. `runs` is what has to be reached within `limit` seconds."""

    runs: int
    jobs: int
    limit: float


@dataclass(frozen=True, slots=True)
class Options:
    long: bool
    stand_ins: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Case:
    about: str
    short: Size
    long: Size
    body: Callable[[Size], Body]
    fleet: Fleets = chaos_fleet
    settings: Mapping[str, str] = field(default_factory=dict)
    with_records: bool = True
    """Whether records are audited too: not for so long that they would not fit into memory."""
    stand_ins: bool = False
    """Whatever the options say: the case is not about what stand-ins replace."""

    wanted: Callable[[], Sequence[GenerationRequest]] = requests
    """What its jobs ask for."""

    async def run(self, name: str, options: Options) -> CaseResult:
        size = self.long if options.long else self.short
        with tempfile.TemporaryDirectory() as crashes:
            plan = FleetPlan(
                stand_ins=options.stand_ins or self.stand_ins,
                injected={**prepared(Path(crashes)), **INJECTED, SLOTS: str(SMALLEST_SLOT)},
                settings=self.settings,
            )
            async with (
                self.fleet(plan) as fleet,
                trial_on(fleet, options.seed, self.wanted(), self.with_records) as trial,
            ):
                body = self.body(size)
                expected = body.expected if isinstance(body, _Poisoning) else is_done
                result = await measured(
                    name, trial, body, long=options.long, wanted_runs=size.runs,
                    limit=size.limit, expected=expected,
                )  # fmt: skip
        left = len(pids_marked(fleet.mark))
        return msgspec.structs.replace(result, processes_left=left)


class _Poisoning:
    def __init__(self, size: Size) -> None:
        self._size = size
        self._poisoned = Poisoned()
        self.expected = self._poisoned.expected

    async def __call__(self, trial: Trial) -> None:
        await self._poisoned.run(trial, self._size.runs, self._size.jobs)


@asynccontextmanager
async def _on_cluster(plan: FleetPlan) -> AsyncIterator[ChaosFleet]:
    async with chaos_fleet(plan, cluster_broker) as fleet:
        yield fleet


CASES: Final[Mapping[str, Case]] = {
    "kill": Case(
        "kill -9 of random services under load, and a burst in the middle",
        Size(6, 40, 120), Size(200, 1000, 2400),
        lambda size: lambda trial: random_kills(
            trial, size.runs, size.jobs, at_once=size.jobs // 2
        ),
    ),
    "backlog": Case(
        "kill -9 of a planner that has a full backlog",
        Size(2, 150, 90), Size(30, 1500, 900),
        lambda size: lambda trial: planner_kills(trial, size.runs, size.jobs),
    ),
    "controls": Case(
        "kill -9 of ControlNets while they are asked",
        Size(3, 20, 150), Size(60, 300, 2400),
        lambda size: lambda trial: random_kills(trial, size.runs, size.jobs, SERVICE),
        steered_fleet,
        wanted=steered_requests,
    ),
    "points": Case(
        "a crash before and after every commit",
        Size(len(POINTS), 0, 120), Size(20 * len(POINTS), 0, 3600),
        lambda size: lambda trial: crash_everywhere(trial, size.runs // len(POINTS)),
    ),
    "takeover": Case(
        "from a denoiser's death to the next step of its rows",
        Size(2, 0, 90), Size(25, 0, 900),
        lambda size: lambda trial: takeover(trial, size.runs),
    ),
    "components": Case(
        "kill -9 of denoisers that load their model, or let it go",
        Size(2, 0, 90), Size(40, 0, 1200),
        lambda size: lambda trial: come_and_go(trial, size.runs),
        stand_ins=True,
    ),
    "broker": Case(
        "kill -9 of nats-server, and its restart",
        Size(2, 0, 60), Size(30, 0, 600),
        lambda size: lambda trial: broker_kills(trial, size.runs),
    ),
    "stop": Case(
        "SIGSTOP beyond the lease, then SIGCONT",
        Size(3, 0, 60), Size(30, 0, 600),
        lambda size: lambda trial: stop_and_continue(trial, size.runs),
    ),
    "group": Case(
        "everything killed at once",
        Size(2, 0, 120), Size(30, 0, 2400),
        lambda size: lambda trial: group_kills(trial, size.runs),
        group_fleet,
    ),
    "poison": Case(
        "jobs that kill their process",
        Size(2, 30, 90), Size(10, 500, 900),
        _Poisoning,
    ),
    "rolling": Case(
        "every service replaced, one after another",
        Size(1, 0, 90), Size(3, 0, 1200),
        lambda size: lambda trial: rolling_restart(trial, size.runs),
    ),
    "cluster": Case(
        "the leader of a NATS cluster of three killed",
        Size(1, 0, 90), Size(10, 0, 900),
        lambda size: lambda trial: broker_kills(trial, size.runs),
        _on_cluster,
    ),
    "soak": Case(
        "a steady load at 60% of what the fleet can do",
        Size(1, 60, 200), Size(1, 1200, 1800),
        lambda size: lambda trial: soak(trial, float(size.jobs)),
        with_records=False,
    ),
    "messages": Case(
        "malformed messages and handles",
        Size(300, 0, 120), Size(7000, 0, 1800),
        lambda size: lambda trial: fuzz_messages(trial, size.runs),
    ),
    "http": Case(
        "malformed HTTP, by schemathesis and below it",
        Size(300, 0, 120), Size(3000, 0, 1800),
        lambda size: lambda trial: fuzz_http(trial, size.runs // 2, size.runs // 2),
        settings={"DARKROOM_CHAOS_STEP_SECONDS": "0", "DARKROOM_CHECKPOINT_EVERY": "1000"},
        stand_ins=True,
    ),
}  # fmt: skip
