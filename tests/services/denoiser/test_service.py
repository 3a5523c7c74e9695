"""The denoise node around the engine: checkpoints, resuming, previews, and rows nobody wants."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.service import USUAL_SECONDS
from shared.errors import NoLongerWanted
from shared.jobs.events import CancelRequested, Checkpointed
from shared.jobs.record import Checkpoint
from shared.messages import PreviewTask
from shared.policy.cost_model import CostModel
from shared.policy.reported_load import level
from shared.policy.step_scheduler import Limits
from shared.policy.step_work import StepWork
from shared.tensors.torch_io import get_tensor, put_tensor
from tests.conftest import eventually
from tests.services.denoiser.models import SHAPE, network
from tests.services.denoiser.world import STEPS, World
from tests.services.denoiser.world import in_world as world_of_jobs

LAST_CHECKPOINT = 6
LONG = 200
"""Steps of a row that is expected to leave long before its end."""


class Lone:
    """A world with one job, and one denoiser for it."""

    def __init__(self, world: World, engine: Engine) -> None:
        self.world = world
        self.records, self.transport, self.publisher = (
            world.records,
            world.transport,
            world.publisher,
        )
        self.denoiser = world.denoiser(engine)

    async def denoise(self) -> torch.Tensor:
        outputs = await self.denoiser.run(await self.world.task())
        return self.world.latents(outputs)


def in_world(scenario: Callable[[Lone], Coroutine[None, None, None]], **changes: Any) -> None:
    async def main(world: World) -> None:
        await world.add("job-1", **changes)
        async with Engine(network()) as engine:
            await scenario(Lone(world, engine))

    world_of_jobs(main)


def test_every_step_is_told_and_checkpoints_reach_the_record() -> None:
    async def scenario(world: Lone) -> None:
        latents = await world.denoise()
        assert latents.shape == SHAPE
        steps = world.publisher.steps()
        assert steps == list(range(1, STEPS + 1))
        revisioned = await world.records.load("job-1")
        checkpoint = revisioned.record.nodes["denoise-0"].checkpoint
        assert checkpoint is not None
        assert checkpoint.step in range(2, LAST_CHECKPOINT + 1)

    in_world(scenario)


def test_a_second_attempt_goes_on_from_the_checkpoint_and_ends_the_same() -> None:
    async def scenario(world: Lone) -> None:
        first = await world.denoise()
        checkpoint = (await world.records.load("job-1")).record.nodes["denoise-0"].checkpoint
        assert checkpoint is not None
        world.publisher.messages.clear()
        second = await world.denoise()
        steps = world.publisher.steps()
        assert steps == list(range(checkpoint.step + 1, STEPS + 1))
        torch.testing.assert_close(second, first)

    in_world(scenario)


def test_a_checkpoint_that_cannot_be_read_costs_its_steps_and_no_more() -> None:
    async def scenario(world: Lone) -> None:
        first = await world.denoise()
        revisioned = await world.records.load("job-1")
        whole = put_tensor(world.transport, first, job_id="job-1", attempt=1, lifetime=60.0)
        torn = msgspec.structs.replace(whole, checksum=whole.checksum ^ 1)
        checkpoint = Checkpoint(step=4, tensors={"latents": torn, "x0_prev": whole})
        holder = revisioned.record.nodes["denoise-0"].holder
        torn_one = Checkpointed("denoise-0", 1, checkpoint, 3.0, holder=holder)
        assert await world.records.advance(revisioned, torn_one)
        world.publisher.messages.clear()
        second = await world.denoise()
        assert len(world.publisher.steps()) == STEPS
        torch.testing.assert_close(second, first)

    in_world(scenario)


def test_previews_are_posted_evenly_with_latents_that_can_be_read() -> None:
    async def scenario(world: Lone) -> None:
        await world.denoise()
        previews = [m for m in world.publisher.messages if isinstance(m, PreviewTask)]
        assert [(p.partial_index, p.step) for p in previews] == [(0, 2), (1, 4), (2, 6)]
        for preview in previews:
            assert get_tensor(world.transport, preview.latents).shape == SHAPE

    in_world(scenario, previews=3)


def test_a_full_arena_costs_previews_and_checkpoints_but_not_the_row() -> None:
    async def scenario(world: Lone) -> None:
        def fill(step: int) -> None:
            world.transport.full = step < STEPS

        world.publisher.at_step = fill
        latents = await world.denoise()
        assert latents.isfinite().all()
        assert not [m for m in world.publisher.messages if isinstance(m, PreviewTask)]

    in_world(scenario, previews=3)


def test_a_row_whose_job_has_ended_leaves_after_its_next_checkpoint() -> None:
    async def scenario(world: Lone) -> None:
        cancelling: list[asyncio.Task[bool]] = []

        def cancel(step: int) -> None:
            if step == 1:  # the broadcast was lost: only the record knows
                change = world.records.advance(revisioned, CancelRequested(3.0))
                cancelling.append(asyncio.ensure_future(change))

        revisioned = await world.records.load("job-1")

        world.publisher.at_step = cancel
        with pytest.raises(NoLongerWanted):
            await world.denoise()
        steps = world.publisher.steps()
        assert steps[-1] < LONG
        assert await cancelling[0]

    in_world(scenario, steps=LONG)


def test_a_denoiser_tells_how_long_it_is_busy_not_with_how_many() -> None:
    async def scenario(world: World) -> None:
        seconds = CostModel(coefficients=(0.01, 0.0, 0.0, 0.0, 0.0))  # a step, whatever its rows

        async def told(steps: int, *names: str) -> int:
            async with Engine(network(), cost=seconds) as engine:
                denoiser = world.denoiser(engine)
                assert denoiser.load(0) == level(0.0, 0)
                async with asyncio.TaskGroup() as group, engine.held():
                    for name in names:
                        await world.add(name, steps=steps)
                        group.create_task(denoiser.run(await world.task(name)))
                    await eventually(lambda: _true(len(engine.rows) == len(names)))
                    return denoiser.load(len(names))

        assert await told(2, "a", "b", "c") == level(0.02, 3)
        assert await told(80, "long") == level(0.8, 1) > level(0.02, 3)

    world_of_jobs(scenario)


def test_what_is_no_row_yet_is_taken_to_be_like_rows_before_it() -> None:
    async def scenario(world: Lone) -> None:
        assert world.denoiser.load(1) == level(USUAL_SECONDS, 1)
        assert world.denoiser.load(3) == level(3 * USUAL_SECONDS, 3)

    in_world(scenario)


def test_nothing_is_pulled_that_would_make_a_step_too_long() -> None:
    async def scenario(world: World) -> None:
        slow = CostModel()
        for _ in range(5):
            slow = slow.observe(StepWork.full(2, 64), 1.0)
        async with Engine(network(), Limits(max_step_seconds=1.0), slow) as engine:
            denoiser = world.denoiser(engine)
            assert denoiser.has_capacity()
            await world.add("job-1")
            async with asyncio.TaskGroup() as group, engine.held():
                group.create_task(denoiser.run(await world.task("job-1")))
                await eventually(lambda: _true(len(engine.rows) == 1))
                assert not denoiser.has_capacity()
            assert denoiser.has_capacity()

    world_of_jobs(scenario)


async def _true(value: bool) -> bool:
    return value
