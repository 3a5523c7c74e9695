"""Who may wait until its model is loaded."""

from dataclasses import replace

from shared.policy.release.cold import refuse_cold
from shared.policy.release.jobs import Refusal
from shared.policy.release.rules import Bounds
from tests.shared.policy.release.fleet import job

BOUNDS = Bounds(jobs=2)


def test_a_job_waits_as_long_as_it_may_be_in_time_or_nobody_knows() -> None:
    hurried = job("j", deadline=5.0)
    assert refuse_cold(hurried, 0, 4.0, BOUNDS, now=1.0) is None
    assert refuse_cold(hurried, 0, None, BOUNDS, now=1.0) is None
    assert refuse_cold(job("j"), 0, 900.0, BOUNDS, now=1.0) is None
    late = Refusal("j", "deadline_unreachable", 4.5, 4.5)
    assert refuse_cold(hurried, 0, 4.5, BOUNDS, now=1.0) == late


def test_so_many_wait_and_no_more_but_those_that_were_let_in() -> None:
    assert refuse_cold(job("j"), 1, None, BOUNDS, now=0.0) is None
    full = Refusal("j", "backlog_full", bound=("jobs", 2))
    assert refuse_cold(job("j"), 2, None, BOUNDS, now=0.0) == full
    assert refuse_cold(replace(job("j"), admitted=True), 2, None, BOUNDS, now=0.0) is None
