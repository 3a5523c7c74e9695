"""The cases of `make chaos`, short: a few harms each, on one fleet whose models are stand-ins."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.check.leaks import pids_marked
from tests.chaos.fleet.background import Background
from tests.chaos.fleet.fleets import ChaosFleet, FleetPlan, chaos_fleet
from tests.chaos.harm.backlog import planner_kills
from tests.chaos.harm.components import come_and_go
from tests.chaos.harm.fuzz import fuzz_messages
from tests.chaos.harm.http import fuzz_http
from tests.chaos.harm.kills import random_kills
from tests.chaos.harm.points import crash_everywhere, prepared
from tests.chaos.harm.poison import INJECTED, Poisoned
from tests.chaos.harm.restarts import broker_kills, rolling_restart
from tests.chaos.harm.stops import stop_and_continue
from tests.chaos.scenarios import WANTED, one_after_another
from tests.chaos.short import FEW, LEASE, harm


@pytest.fixture(scope="module")
def fleet() -> Iterator[Background[ChaosFleet]]:
    with tempfile.TemporaryDirectory() as crashes:
        injected = {**prepared(Path(crashes)), **INJECTED}
        plan = FleetPlan(stand_ins=True, replicas=FEW, lease=LEASE, injected=injected)
        with Background(lambda: chaos_fleet(plan)) as background:
            yield background
        assert pids_marked(background.value.mark) == []


def test_random_kills_lose_nothing_and_change_no_image(fleet: Background[ChaosFleet]) -> None:
    harm(fleet, lambda trial: random_kills(trial, kills=6, jobs=40, at_once=20), runs=6)


def test_a_planner_that_dies_with_a_full_backlog_loses_none_of_it(
    fleet: Background[ChaosFleet],
) -> None:
    result = harm(fleet, lambda trial: planner_kills(trial, kills=1, jobs=80), runs=1)
    assert int(result.figures["fewest waiting at a kill"]) >= 20


def test_a_crash_at_each_commit_point_loses_nothing(fleet: Background[ChaosFleet]) -> None:
    result = harm(fleet, lambda trial: crash_everywhere(trial, each=1), runs=14)
    assert result.figures["fewest at a point"] == 1


def test_a_process_that_dies_while_it_loads_or_lets_go_loses_nothing(
    fleet: Background[ChaosFleet],
) -> None:
    harm(fleet, lambda trial: come_and_go(trial, kills=2), runs=2)


def test_a_killed_bus_loses_no_acknowledged_job(fleet: Background[ChaosFleet]) -> None:
    harm(fleet, lambda trial: broker_kills(trial, kills=2), runs=2)


def test_a_process_that_slept_beyond_its_lease_harms_nothing(
    fleet: Background[ChaosFleet],
) -> None:
    harm(fleet, lambda trial: stop_and_continue(trial, stops=3), runs=3)


def test_every_service_is_replaced_under_load_and_no_job_fails(
    fleet: Background[ChaosFleet],
) -> None:
    harm(fleet, lambda trial: rolling_restart(trial, rounds=1), runs=1)


def test_poisoned_jobs_are_dead_lettered_and_their_company_is_not(
    fleet: Background[ChaosFleet],
) -> None:
    poisoned = Poisoned()
    harm(
        fleet,
        lambda trial: poisoned.run(trial, poisoned=2, healthy=30),
        runs=2,
        expected=poisoned.expected,
    )


def test_what_kills_the_mutants_harms_nothing_here_and_rows_go_on_elsewhere(
    fleet: Background[ChaosFleet],
) -> None:
    result = harm(fleet, one_after_another, runs=2, wanted=WANTED)
    assert result.figures["rows resumed"] == 1


def test_malformed_messages_end_nothing_and_are_answered_as_any_job_is(
    fleet: Background[ChaosFleet],
) -> None:
    harm(fleet, lambda trial: fuzz_messages(trial, count=300), runs=300)


def test_broken_http_ends_nothing_and_is_no_error_of_ours(fleet: Background[ChaosFleet]) -> None:
    harm(fleet, lambda trial: fuzz_http(trial, broken=300, described=0), runs=300)
