"""What planners are told at once, and what can wait."""

import pytest

from shared.messages import ComponentReport, CostReport, RowReport, WorkReport
from shared.worker.load_publisher import differs


def denoiser(*jobs: str, seconds: float = 1.0) -> ComponentReport:
    work = WorkReport(256, 256 * 256)
    return ComponentReport(
        kind="denoise",
        model="toy",
        cost=CostReport(fixed=0.1),
        seconds=seconds,
        count=len(jobs),
        rows=tuple(
            RowReport(job_id=job, steps_left=4, work=work, height=16, width=16) for job in jobs
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
