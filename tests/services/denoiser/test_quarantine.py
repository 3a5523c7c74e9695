"""A row whose last holder vanished runs alone until it has proved that it kills nobody."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
import torch

from shared.errors import BusUnavailable, HandedOver, NoLongerWanted
from shared.policy.checkpoint_interval import NEVER, Interval
from shared.worker import task
from tests.services.denoiser.models import Gated, network
from tests.services.denoiser.world import STEPS, World, engine, in_world, settled

ALONE = 3
"""Steps of a probation where checkpoints are two apart."""
LONG = 60


def test_a_suspect_takes_its_first_steps_alone_each_on_record_before_the_next() -> None:
    async def scenario(world: World) -> None:
        await world.add("good", steps=LONG)
        await world.add("suspect")
        gated = Gated("good", "suspect")
        async with engine(gated) as one, asyncio.TaskGroup() as group:
            denoiser = world.denoiser(one)
            good, suspect = await world.task("good"), await world.suspect("suspect")
            group.create_task(denoiser.run(good))
            await gated.until("good")
            ends = group.create_task(denoiser.run(suspect))
            for step in range(ALONE):
                await gated.until("suspect")
                state = await world.state("suspect")
                assert state.alone
                assert (state.checkpoint.step if state.checkpoint else 0) == step
                assert state.losses == (0 if step else 2)
            await gated.until("good", "suspect")
            assert good.beats == len(gated.seen)  # held rows live by the suspect's steps
            state = await world.state("suspect")
            assert not state.alone
            assert state.checkpoint is not None
            assert state.checkpoint.step == ALONE
            gated.open()
            latents = world.latents(await ends)
        first = gated.seen.index(("suspect",))
        assert gated.seen[first : first + ALONE] == [("suspect",)] * ALONE
        assert gated.seen[first + ALONE :].count(("suspect",)) == 0
        assert (gated.count("good"), gated.count("suspect")) == (LONG, STEPS)
        torch.testing.assert_close(latents, await in_peace("suspect"), atol=1e-5, rtol=1e-5)

    in_world(scenario)


async def in_peace(job_id: str) -> torch.Tensor:
    world = await World.create()
    await world.add(job_id)
    async with engine(network()) as calm:
        return world.latents(await world.denoiser(calm).run(await world.task(job_id)))


def test_the_rows_of_other_models_are_held_as_well() -> None:
    async def scenario(world: World) -> None:
        await world.add("good", model="other-1", steps=400)
        await world.add("suspect")
        gated, free = Gated("suspect"), Gated("good")
        free.open()
        async with engine(gated) as one, engine(free) as other, asyncio.TaskGroup() as group:
            denoiser = world.denoiser(one, other)
            good = await world.task("good")
            running = group.create_task(denoiser.run(good))
            await free.stepping()
            group.create_task(denoiser.run(await world.suspect("suspect")))
            await gated.until("suspect")
            asked = free.count("good")
            gated.let(ALONE - 1)
            for _ in range(ALONE - 1):
                await gated.stepping()
            assert free.count("good") == asked < 400
            assert good.beats >= asked
            running.cancel()
            gated.open()

    in_world(scenario)


def test_suspects_take_turns_and_the_others_take_a_step_in_between() -> None:
    async def scenario(world: World) -> None:
        suspects = ["suspect-1", "suspect-2", "suspect-3"]
        await world.add("good", steps=LONG)
        for job in suspects:
            await world.add(job)
        gated = Gated("good", *suspects)
        async with engine(gated) as one, asyncio.TaskGroup() as group:
            denoiser = world.denoiser(one)
            group.create_task(denoiser.run(await world.task("good")))
            await gated.until("good")
            for job in suspects:
                group.create_task(denoiser.run(await world.suspect(job)))
            gated.open()
        for job in suspects:
            first = gated.seen.index((job,))
            assert gated.seen[first : first + ALONE] == [(job,)] * ALONE
        turns = sorted(gated.seen.index((job,)) for job in suspects)
        assert gated.seen[turns[0] - 1] == ("good",)
        assert all(other > one + ALONE for one, other in pairwise(turns))
        assert [gated.count(job) for job in suspects] == [STEPS] * len(suspects)

    in_world(scenario)


@pytest.mark.parametrize("steps", [1, 2, ALONE])
def test_a_suspect_that_finishes_alone_leaves_no_mark(steps: int) -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", steps=steps)
        async with engine(network()) as one:
            await world.denoiser(one).run(await world.suspect())
        assert not (await world.state()).alone
        assert world.publisher.steps() == list(range(1, steps + 1))

    in_world(scenario)


def test_without_checkpoints_a_suspect_stays_alone_to_its_end() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1")
        marks: list[bool] = []
        async with engine(network()) as one:
            task = await world.suspect()
            write = task.checkpoint

            async def checkpoint(kept: Any, alone: bool = False) -> bool:
                marks.append(alone)
                return await write(kept, alone)

            task.checkpoint = checkpoint  # type: ignore[method-assign,assignment]
            await world.denoiser(one, interval=NEVER).run(task)
        assert marks == [True] * (STEPS - 1) + [False]

    in_world(scenario)


def test_a_row_is_checkpointed_closely_once_it_was_lost() -> None:
    async def scenario(world: World) -> None:
        await world.add("first")
        await world.add("again")
        async with engine(network()) as one:
            denoiser = world.denoiser(one, interval=Interval(2, seconds=1000.0))
            await denoiser.run(await world.task("first"))
            await denoiser.run(await world.task("again", deliveries=2))
        assert (await world.state("first")).checkpoint is None
        assert (await world.state("again")).checkpoint is not None

    in_world(scenario)


def test_a_suspect_that_somebody_else_has_takes_no_step() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1")
        suspect = await world.suspect()
        await world.vanish()
        gated = Gated("job-1")
        gated.open()
        async with engine(gated) as one:
            with pytest.raises(NoLongerWanted):
                await world.denoiser(one).run(suspect)
        assert gated.seen == []

    in_world(scenario)


def test_a_suspect_waits_for_the_bus_and_takes_no_step_that_is_not_on_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task, "RETRY_SECONDS", 0.0)

    async def scenario(world: World) -> None:
        await world.add("job-1")
        suspect = await world.suspect()
        mark, write, failures = suspect.alone, suspect.checkpoint, iter(["mark", "write"])

        async def alone() -> bool:
            if next(failures, None):
                raise BusUnavailable("records", "no answer")
            return await mark()

        async def checkpoint(kept: Any, alone: bool = False) -> bool:
            if next(failures, None):
                raise BusUnavailable("records", "no answer")
            return await write(kept, alone)

        suspect.alone, suspect.checkpoint = alone, checkpoint  # type: ignore[method-assign,assignment]
        async with engine(network()) as one:
            await world.denoiser(one).run(suspect)
        assert world.publisher.steps() == list(range(1, STEPS + 1))

    in_world(scenario)


def test_suspects_are_handed_over_too_those_in_turn_and_those_that_wait() -> None:
    async def scenario(world: World) -> None:
        await world.add("suspect-1")
        await world.add("suspect-2")
        gated = Gated("suspect-1", "suspect-2")
        async with engine(gated) as one:
            denoiser = world.denoiser(one)
            runs = [
                asyncio.create_task(denoiser.run(await world.suspect(job)))
                for job in ("suspect-1", "suspect-2")
            ]
            await gated.until("suspect-1")
            drain = asyncio.create_task(denoiser.drain())
            await settled()
            gated.open()
            await drain
            ended = await asyncio.gather(*runs, return_exceptions=True)
        assert [type(error) for error in ended] == [HandedOver, HandedOver]
        first, second = await world.state("suspect-1"), await world.state("suspect-2")
        assert first.checkpoint is not None
        assert first.checkpoint.step == gated.count("suspect-1") < STEPS
        assert second.checkpoint is None
        assert not second.alone
        assert gated.count("suspect-2") == 0

    in_world(scenario)
