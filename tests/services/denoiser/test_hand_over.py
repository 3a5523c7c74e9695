"""A denoiser that is asked to leave: its rows go on elsewhere, at the step they have reached."""

import asyncio
import threading
from typing import Any

import pytest
import torch

from shared.errors import HandedOver
from shared.policy.checkpoint_interval import Interval
from tests.conftest import eventually
from tests.services.denoiser.models import Gated, network
from tests.services.denoiser.world import MODEL, STEPS, World, engine, in_world, settled

JOBS = ("job-1", "job-2", "job-3")


async def undisturbed(world: World, *jobs: str) -> dict[str, torch.Tensor]:
    """Latents of jobs that get the same prompt and seed as these ones, and are left in peace."""
    async with engine(network()) as calm:
        denoiser = world.denoiser(calm)
        outputs = await asyncio.gather(*[denoiser.run(await world.task(job)) for job in jobs])
    return dict(zip(jobs, map(world.latents, outputs), strict=True))


def test_every_row_goes_on_elsewhere_and_no_step_is_taken_twice() -> None:
    async def scenario(world: World) -> None:
        for job in JOBS:
            await world.add(job)
        first, second = Gated(*JOBS), Gated(*JOBS)
        second.open()
        # Two rows run and one waits; there are no checkpoints but the last one.
        async with engine(first, max_rows=2, max_admitted=2) as leaving, engine(second) as staying:
            denoiser = world.denoiser(leaving, interval=Interval(100))
            runs = []
            for job, company in (("job-1", ["job-1"]), ("job-2", JOBS[:2]), ("job-3", JOBS[:2])):
                runs.append(asyncio.create_task(denoiser.run(await world.task(job))))
                await first.until(*company)
            drain = asyncio.create_task(denoiser.drain())
            first.open()
            await drain
            for job, ended in zip(
                JOBS, await asyncio.gather(*runs, return_exceptions=True), strict=True
            ):
                taken = first.count(job)
                assert isinstance(ended, HandedOver) or taken == STEPS
                checkpoint = (await world.state(job)).checkpoint
                assert (checkpoint.step if checkpoint else 0) == taken % STEPS
            assert 3 <= first.count("job-1") < STEPS
            assert first.count("job-3") == 0

            denoiser = world.denoiser(staying)
            outputs = await asyncio.gather(*[denoiser.run(await world.task(job)) for job in JOBS])
        assert [first.count(job) + second.count(job) for job in JOBS] == [STEPS] * 3
        expected = await undisturbed(await fresh(), *JOBS)
        for job, output in zip(JOBS, outputs, strict=True):
            torch.testing.assert_close(world.latents(output), expected[job], atol=1e-5, rtol=1e-5)

    in_world(scenario)


def test_one_model_is_let_go_and_the_rows_of_another_go_on() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1")
        await world.add("job-2", model="other-1")
        leaving, staying = Gated(), Gated()
        async with engine(leaving) as first, engine(staying) as second:
            denoiser = world.denoiser(first, second)
            gone = asyncio.create_task(denoiser.run(await world.task("job-1")))
            stays = asyncio.create_task(denoiser.run(await world.task("job-2")))
            await leaving.stepping()
            await staying.stepping()
            letting_go = asyncio.create_task(denoiser.let_go(MODEL))
            leaving.open()
            await letting_go
            with pytest.raises(HandedOver):
                await gone
            denoiser.drop(MODEL)
            assert denoiser.models == ("other-1",)
            assert not stays.done()
            staying.open()
            await stays
            assert [one.model for one in denoiser.components()] == ["other-1"]

            async with engine(network()) as anew:
                denoiser.hold(MODEL, world.model(anew))
                outputs = await denoiser.run(await world.task("job-1"))
        expected = await undisturbed(await fresh(), "job-1")
        torch.testing.assert_close(world.latents(outputs), expected["job-1"], atol=1e-5, rtol=1e-5)

    in_world(scenario)


def test_what_there_was_to_say_of_a_row_goes_on_with_it() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1")
        gated = Gated()
        async with engine(gated) as leaving:
            denoiser, task = world.denoiser(leaving, interval=Interval(1)), await world.task()
            task.warnings.add("controls: edges computed in float32")
            task.approximations.add("control_lag edges: image 0")
            row = asyncio.create_task(denoiser.run(task))
            await gated.stepping()
            drain = asyncio.create_task(denoiser.drain())
            gated.open()
            await drain
            with pytest.raises(HandedOver):
                await row
        async with engine(network()) as staying:
            anew = await world.task()
            await world.denoiser(staying).run(anew)
        assert anew.warnings == {"controls: edges computed in float32"}
        assert anew.approximations == {"control_lag edges: image 0"}

    in_world(scenario)


async def fresh() -> World:
    world = await World.create()
    for job in JOBS:
        await world.add(job)
    return world


def test_a_row_that_is_still_being_built_is_handed_over() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1")
        begun, goes_on, get = threading.Event(), threading.Event(), world.transport.get

        def slow(handle: Any) -> bytearray:
            begun.set()
            assert goes_on.wait(20.0)
            return get(handle)

        world.transport.get = slow  # type: ignore[method-assign]
        async with engine(network()) as leaving:
            denoiser = world.denoiser(leaving)
            row = asyncio.create_task(denoiser.run(await world.task()))
            await asyncio.to_thread(begun.wait, 20.0)
            await denoiser.drain()
            goes_on.set()
            with pytest.raises(HandedOver, match="denoise-0 of job job-1"):
                await row
        assert (await world.state()).checkpoint is None
        assert world.publisher.steps() == []

    in_world(scenario)


def test_a_row_on_its_last_step_finishes() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", steps=1)
        gated = Gated()
        async with engine(gated) as leaving:
            denoiser = world.denoiser(leaving)
            row = asyncio.create_task(denoiser.run(await world.task()))
            await gated.stepping()
            drain = asyncio.create_task(denoiser.drain())
            await settled()
            gated.open()
            await drain
            assert world.latents(await row).isfinite().all()

    in_world(scenario)


def test_the_last_checkpoint_is_in_the_record_before_the_row_is_let_go() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", steps=200)
        gated = Gated()
        async with engine(gated) as leaving:
            denoiser = world.denoiser(leaving, interval=Interval(1))
            task = await world.task()
            write, slow = task.checkpoint, asyncio.Event()

            async def checkpoint(*arguments: Any) -> bool:
                await slow.wait()
                return await write(*arguments)

            task.checkpoint = checkpoint  # type: ignore[method-assign,assignment]
            row = asyncio.create_task(denoiser.run(task))
            gated.let(5)

            async def five_steps() -> bool:
                return world.publisher.steps() == [1, 2, 3, 4, 5]

            await eventually(five_steps)
            drain = asyncio.create_task(denoiser.drain())
            await settled()
            gated.open()
            await drain
            await settled()
            assert not row.done()
            slow.set()
            with pytest.raises(HandedOver):
                await row
        kept = (await world.state()).checkpoint
        assert kept is not None
        assert kept.step == world.publisher.steps()[-1] >= 5

    in_world(scenario)
