"""Cases that need a fleet, or a bus, of their own. They mostly wait, so they run side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from tests.chaos.check.leaks import pids_marked
from tests.chaos.fleet.cluster import cluster_broker
from tests.chaos.fleet.fleets import ChaosFleet, FleetPlan, chaos_fleet
from tests.chaos.harm.group import group_fleet, group_kills
from tests.chaos.harm.restarts import broker_kills
from tests.chaos.report import CaseResult
from tests.chaos.scenarios import WANTED, killed_at_work, mutant_fleet, woken_at_work
from tests.chaos.short import FEW, FEW_USERS, LEASE, LIMIT, SEED
from tests.chaos.trial import SETTLE_SECONDS, Trial, measured, trial_on
from tests.conftest import run

SOON = 6 * LEASE
"""Seconds after which a job of a mutant is lost, if it has not ended until then."""


async def _result(
    name: str,
    made: AbstractAsyncContextManager[ChaosFleet],
    body: Callable[[Trial], Awaitable[None]],
    mutant: bool,
) -> CaseResult:
    wanted, settle = (WANTED, SOON) if mutant else (None, SETTLE_SECONDS)
    async with made as fleet, trial_on(fleet, SEED, wanted, users=FEW_USERS) as trial:
        result = await measured(
            name, trial, body, long=False, wanted_runs=1, limit=LIMIT, settle=settle
        )
    return msgspec.structs.replace(result, processes_left=len(pids_marked(fleet.mark)))


@pytest.fixture(scope="session")
def alone() -> Mapping[str, CaseResult]:
    """What came of the two mutants, of a fleet killed as a whole, and of a cluster."""
    one_of_each = FEW | {"denoiser": 1, "gateway": 0}
    few = FleetPlan(stand_ins=True, replicas=one_of_each, lease=LEASE)

    async def all_at_once() -> list[CaseResult]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_result(*arguments))
                for arguments in (
                    ("no_fence", mutant_fleet("no_fence"), woken_at_work, True),
                    ("ack_first", mutant_fleet("ack_first"), killed_at_work, True),
                    ("group", group_fleet(few), lambda t: group_kills(t, kills=1), False),
                    (
                        "cluster",
                        chaos_fleet(few, cluster_broker),
                        lambda t: broker_kills(t, kills=1),
                        False,
                    ),
                )
            ]
        return [task.result() for task in tasks]

    return {result.case: result for result in run(all_at_once(), 3 * LIMIT)}
