"""What a job's graph asks of the services."""

import msgspec
import pytest

from services.planner.demand import denoising, waiting_job
from shared.jobs.graph import IMAGE, Graph, node, workflow
from shared.messages import EditSpec, JobSpec
from shared.messages.nodes import Beginning, Denoise
from shared.policy.release.jobs import rows_of_size
from shared.policy.step_work import StepWork
from tests.helpers.factories import spec

SCALE = 8
WANTED = spec(width=128, height=64, steps=10, guidance=5.0, n=3)
SCALES = {WANTED.model: SCALE, "other": SCALE}
STEP = StepWork.full(2, 8 * 16)


def _changed(spec: JobSpec, *, model: str, **changes: object) -> Graph:
    """With a second denoise node before each of the others."""
    graph = workflow(spec)
    for index in range(spec.n):
        own = graph[f"denoise-{index}"]
        assert isinstance(own.parameters, Denoise)
        again = msgspec.structs.replace(own.parameters, beginning=Beginning(strength=0.5))
        ports = {**own.ports, IMAGE: f"base-{index}"}
        graph[own.name] = node(own.name, own.model, again, ports, index)
        before = msgspec.structs.replace(own.parameters, **changes)
        graph[f"base-{index}"] = node(f"base-{index}", model, before, own.ports, index)
    return graph


def test_rows_that_draw_side_by_side_are_one_stage_of_as_many_rows() -> None:
    stage = denoising(workflow(WANTED), SCALES)
    assert (stage.component, stage.steps, stage.rows) == (("denoise", WANTED.model), 10, 3)
    assert (stage.work, stage.shape) == (STEP, rows_of_size(8, 16))


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.3, 3), (0.01, 1)])
def test_an_edit_takes_its_share_of_the_steps(strength: float, steps: int) -> None:
    edit = EditSpec(strength=strength, mask="none", mask_mode="exact")
    stage = denoising(workflow(msgspec.structs.replace(WANTED, edit=edit)), SCALES)
    assert (stage.steps, stage.rows, stage.work) == (steps, 3, STEP)


def test_rows_one_after_another_take_the_steps_of_both() -> None:
    stage = denoising(_changed(WANTED, model=WANTED.model), SCALES)
    assert (stage.steps, stage.rows, stage.work) == (15, 3, STEP)


def test_a_smaller_first_pass_costs_less_and_the_larger_one_says_the_size() -> None:
    stage = denoising(_changed(WANTED, model="other", width=64, height=64, end=0.8), SCALES)
    small = StepWork.full(2, 8 * 8)
    assert (stage.component, stage.steps) == (("denoise", WANTED.model), 13)
    assert stage.work == (small.scaled(8) + STEP.scaled(5)).scaled(1 / 13)
    assert stage.shape == rows_of_size(8, 16)


def test_what_is_computed_one_by_one_comes_before_and_after_the_rows() -> None:
    graph = _changed(WANTED, model="other")
    job = waiting_job("job-1", WANTED, graph, SCALES, 0.0, 1)
    assert [(stage.component, stage.rows) for stage in job.before] == [
        (("encode", WANTED.model), 1)
    ]
    assert [(stage.component, stage.rows) for stage in job.after] == [(("decode", WANTED.model), 3)]
