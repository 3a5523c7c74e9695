"""What planners are told at once, and what can wait; and when they decide again."""

import pytest

from shared.messages import ComponentReport, CostReport, RowReport, WorkReport
from shared.policy.release.pace import DECIDING, GAP_SECONDS, differs, pause, settled_at
from tests.shared.policy.release.fleet import job


def denoiser(*jobs: str, seconds: float = 1.0) -> ComponentReport:
    work = WorkReport(256, 256 * 256)
    return ComponentReport(
        kind="denoise",
        model="toy",
        cost=CostReport(fixed=0.1),
        seconds=seconds,
        count=len(jobs),
        rows=tuple(
            RowReport(job_id=job_id, steps_left=4, work=work, height=16, width=16)
            for job_id in jobs
        ),
    )


@pytest.mark.parametrize(
    ("then", "now", "at_once"),
    [
        pytest.param([denoiser("a")], [denoiser("a")], False, id="nothing new"),
        pytest.param([denoiser("a")], [denoiser("a", seconds=1.1)], False, id="about as busy"),
        pytest.param([denoiser("a")], [denoiser("a", seconds=1.5)], True, id="busier"),
        pytest.param([denoiser("a")], [denoiser("a", "b")], True, id="one row more"),
        pytest.param([denoiser("a")], [denoiser("b")], True, id="another row in its place"),
        pytest.param([denoiser("a")], [denoiser("a"), denoiser()], True, id="a model more"),
        pytest.param([], [], False, id="nothing at all"),
    ],
)
def test_planners_hear_at_once_whose_rows_a_process_has(
    then: list[ComponentReport], now: list[ComponentReport], at_once: bool
) -> None:
    assert differs(then, now) is at_once


def test_a_job_that_came_and_went_unseen_takes_up_room_until_its_time_at_most() -> None:
    promised = job("j", promised=10.0)
    assert settled_at(promised, released=9.5) == pytest.approx(10.0, abs=0.5)
    assert settled_at(promised, released=1.0) < 10.0
    assert settled_at(job("j"), 1.0) == settled_at(job("j", promised=100.0), 1.0)


def test_a_planner_has_time_for_other_work_after_each_decision() -> None:
    assert pause(0.0) == GAP_SECONDS
    assert pause(0.02) == DECIDING * 0.02
