"""How many jobs are in time, against who knows all of them from the beginning; and that a policy
that forgets deadlines, or shares, is found out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest

from shared.policy.release.decide import release
from shared.policy.release.jobs import Decision, Shares, WaitingJob
from shared.policy.release.load import Load
from tests.shared.policy.release.fleet import COST, EXACT, WORK, Fleet, Policy, job, usual

SOLO = 10 * COST.predict(WORK)


def burst(lot: Random, count: int, rate: float, factor: float) -> list[WaitingJob]:
    """Alike jobs, each with `factor` times as long as it takes alone."""
    jobs, now = [], 0.0
    for k in range(count):
        now += lot.expovariate(rate)
        jobs.append(job(f"{k:03}", now, 10, now + factor * SOLO))
    return jobs


def in_time(jobs: Sequence[WaitingJob], fleet: Fleet) -> int:
    return sum(fleet.finished.get(each.job_id, 1e9) <= (each.deadline or 0) for each in jobs)


def admits_all(backlog: Sequence[WaitingJob], load: Load, now: float, shares: Shares) -> Decision:
    """Of a set of jobs that was chosen before: all are promised."""
    kept = [replace(one, promised=one.deadline, admitted=True) for one in backlog]
    return release(kept, load, now, shares, EXACT)


def possible(jobs: Sequence[WaitingJob], processes: int) -> int:
    """The most that can be in time: the largest set of jobs that all are, if only they come."""
    for size in range(len(jobs), 0, -1):
        for chosen in combinations(jobs, size):
            if in_time(chosen, Fleet(processes).run(chosen)) == size:
                return size
    return 0


def attained(policy: Policy) -> float:
    """Over what is possible, in small bursts."""
    lot, found, most = Random(5), 0, 0
    for _ in range(8):
        jobs = burst(lot, 8, 6.0, 2.0)
        found += in_time(jobs, Fleet(1, policy=policy).run(jobs))
        most += possible(jobs, 1)
    return found / most


def sustained(policy: Policy) -> float:
    """At eight times the rate that a fleet can serve: jobs in time over those for which its batches
    have room. Of 8 rows a step takes twice as long as of one."""
    jobs = burst(Random(3), 200, 8 * 2 * 8 / (2 * SOLO), 2.0)
    fleet = Fleet(2, max_rows=16, policy=policy).run(jobs)
    return in_time(jobs, fleet) / (2 * 8 * (jobs[-1].arrival + 2 * SOLO) / (2 * SOLO))


def light_in_time(policy: Policy) -> float:
    """Share of a light user's jobs that are in time beside a heavy user's endless ones."""
    heavy = [job(f"h{k:03}", 0.03 * k, 10, 0.03 * k + 2 * SOLO, "heavy") for k in range(250)]
    light = [job(f"l{k:03}", 0.5 + k, 10, 0.5 + k + 2 * SOLO, "light") for k in range(7)]
    fleet = Fleet(2, policy=policy).run([*heavy, *light])
    return in_time(light, fleet) / len(light)


def light_waits(policy: Policy) -> float:
    """Seconds that a light user's job takes beside 100 of a heavy user, without deadlines."""
    heavy = [job(f"h{k:03}", steps=20, user="heavy") for k in range(100)]
    fleet = Fleet(1, policy=policy).run([*heavy, job("l", 3.0, user="light")])
    return fleet.finished["l"] - 3.0


def without_deadlines(
    backlog: Sequence[WaitingJob], load: Load, now: float, shares: Shares
) -> Decision:
    """A mutant: in order of arrival, whoever may be late."""
    return usual([replace(one, deadline=None) for one in backlog], load, now, shares)


def without_shares(
    backlog: Sequence[WaitingJob], load: Load, now: float, shares: Shares
) -> Decision:
    """A mutant: all users are one."""
    return usual([replace(one, user="") for one in backlog], load, now, shares)


def test_nearly_as_many_are_in_time_as_could_be() -> None:
    assert attained(usual) >= 0.8


def test_at_eight_times_the_rate_as_many_are_in_time_as_the_batch_has_room_for() -> None:
    assert sustained(usual) >= 0.6


def test_a_light_user_is_let_in_beside_a_heavy_one() -> None:
    assert light_in_time(usual) >= 0.7
    assert light_waits(usual) < 5.0


def test_a_policy_that_forgets_deadlines_is_found_out() -> None:
    assert sustained(without_deadlines) < 0.4


def test_a_policy_that_forgets_shares_is_found_out() -> None:
    assert light_in_time(without_shares) < 0.5
    assert light_waits(without_shares) > 5.0


@pytest.mark.parametrize("factor", [1.2, 3.0, 6.0])
def test_promises_are_kept_in_a_burst_whatever_the_slack(factor: float) -> None:
    jobs = burst(Random(7), 60, 40.0, factor)
    fleet = Fleet(3).run(jobs)
    assert fleet.kept() >= 0.95
    assert fleet.admitted
