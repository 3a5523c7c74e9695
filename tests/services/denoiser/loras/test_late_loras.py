"""Rows that start before their LoRAs are there."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.denoiser.forward.step import step
from services.denoiser.loras.extension import give
from services.denoiser.loras.predictor import batch_of
from services.denoiser.rows.row import Row
from shared.errors import AdapterUnusable, InvalidRequest
from shared.messages import LoraChoice
from shared.messages.nodes import Denoise
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.read import read_adapter
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.lowrank.weights import Adapter
from shared.residency.loader import Loader
from tests.conftest import eventually
from tests.helpers.loras import write_lora
from tests.services.denoiser.models import family, make_row, make_unet, network
from tests.services.denoiser.world import STEPS, World, engine, in_world

NEON = (LoraChoice(name="neon", scale=0.7),)


def neon(folder: Path) -> Adapter:
    path = write_lora(folder / "neon.safetensors", {"unet": make_unet()})
    return read_adapter("neon", path, family())


def stepped(row: Row, joins: dict[int, Adapter]) -> torch.Tensor:
    """The row's final latents if adapters join after so many steps, taken by itself."""
    while not row.finished:
        if row.step in joins:
            give(row, ((joins[row.step], 0.7),))
        result = step(network(), batch_of([row], network()))
        row.latents, row.x0_prev, row.step = result.x, result.x0, row.step + 1
    return row.latents


class Slow(AdapterLibrary):
    """Nothing is found before `there` is set."""

    there: asyncio.Event

    async def get(self, choice: LoraChoice) -> Adapter:
        await self.there.wait()
        return await super().get(choice)


def slow(world: World, folder: Path) -> Slow:
    world.loras = LoraFiles(LoraDirectory((str(folder),)))
    library = Slow(world.loras, family(), network().check, 2**30, Loader())
    library.there = asyncio.Event()
    world.library = lambda: library  # type: ignore[method-assign]
    return library


def test_a_row_starts_without_its_lora_waits_at_the_bound_and_goes_on_with_it(
    tmp_path: Path,
) -> None:
    adapter = neon(tmp_path)

    async def scenario(world: World) -> None:
        library = slow(world, tmp_path)
        await world.add("late", loras=NEON, late=3, sampler="euler")
        await world.add("other", steps=STEPS, sampler="euler")
        async with engine(network()) as one:
            denoiser = world.denoiser(one)
            async with asyncio.TaskGroup() as group:
                task = await world.task("late")
                late = group.create_task(denoiser.run(task))
                other = group.create_task(denoiser.run(await world.task("other")))
                await other  # it is not held up
                assert world.publisher.steps("late") == [1, 2, 3]
                library.there.set()
        assert task.approximations == {"late_lora neon: image 0, step 4"}
        row = _twin(task.spec.seed, "late")
        torch.testing.assert_close(
            world.latents(late.result()), stepped(row, {3: adapter})[0], atol=1e-5, rtol=1e-5
        )

    in_world(scenario)


def test_a_row_that_takes_a_part_of_the_steps_does_not_end_without_its_lora(
    tmp_path: Path,
) -> None:
    """As many as were asked for are more than it takes."""
    neon(tmp_path)

    async def scenario(world: World) -> None:
        library = slow(world, tmp_path)
        await world.add("late", loras=NEON, late=STEPS - 1, sampler="euler")
        await world.add("other", steps=STEPS, sampler="euler")
        async with engine(network()) as one:
            denoiser = world.denoiser(one)
            async with asyncio.TaskGroup() as group:
                task = await world.task("late")
                half = msgspec.structs.replace(task.parameters(Denoise), end=0.5)
                node = msgspec.structs.replace(task.node, parameters=half)
                task.state = msgspec.structs.replace(task.state, node=node)
                late = group.create_task(denoiser.run(task))
                await group.create_task(denoiser.run(await world.task("other")))
                taken = len(world.publisher.steps("late"))
                assert 0 < taken < STEPS - 1
                assert not late.done()
                library.there.set()
        assert len(world.publisher.steps("late")) == taken + 1
        assert task.approximations == {f"late_lora neon: image 0, step {taken + 1}"}

    in_world(scenario)


def _twin(seed: int, prompt: str) -> Row:
    """The row that the service makes of a job of `World.add`."""
    return make_row(prompt, seed=seed, sampler="euler", steps=STEPS, guidance=5.0)


def test_without_being_asked_no_step_is_taken_before_the_lora_is_there(tmp_path: Path) -> None:
    adapter = neon(tmp_path)

    async def scenario(world: World) -> None:
        library = slow(world, tmp_path)
        await world.add("exact", loras=NEON, sampler="euler")
        await world.add("other", sampler="euler")
        async with engine(network()) as one, asyncio.TaskGroup() as group:
            task, denoiser = await world.task("exact"), world.denoiser(one)
            running = group.create_task(denoiser.run(task))
            await denoiser.run(await world.task("other"))
            assert world.publisher.steps("exact") == []
            library.there.set()
            await running
        assert task.approximations == set()
        row = _twin(task.spec.seed, "exact")
        torch.testing.assert_close(
            world.latents(running.result()), stepped(row, {0: adapter})[0], atol=1e-5, rtol=1e-5
        )

    in_world(scenario)


@pytest.mark.parametrize("late", [0, 4])
def test_a_lora_that_cannot_be_had_fails_its_row_by_name_and_no_other(
    tmp_path: Path, late: int
) -> None:
    neon(tmp_path)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")

    async def scenario(world: World) -> None:
        world.loras = LoraFiles(LoraDirectory((str(tmp_path),)))
        await world.add("good", loras=NEON)
        await world.add("torn", loras=(LoraChoice(name="torn"),), late=late)
        await world.add("absent", loras=(LoraChoice(name="absent"),), late=late)
        async with engine(network()) as one:
            denoiser = world.denoiser(one)
            async with asyncio.TaskGroup() as group:
                good = group.create_task(denoiser.run(await world.task("good")))
                with pytest.raises(AdapterUnusable, match="torn"):
                    await denoiser.run(await world.task("torn"))
                with pytest.raises(InvalidRequest, match="one of neon, torn"):
                    await denoiser.run(await world.task("absent"))
            assert world.latents(good.result()).isfinite().all()
            await eventually(lambda: _gone(one))

    async def _gone(one: object) -> bool:
        return one.statistics().rows == 0  # type: ignore[attr-defined, no-any-return]

    in_world(scenario)


@pytest.mark.parametrize("joins", [True, False])
def test_a_row_that_was_begun_without_its_lora_says_so_wherever_it_ends(
    tmp_path: Path, joins: bool
) -> None:
    """Whether or not it had it when its last checkpoint was written."""
    neon(tmp_path)

    async def scenario(world: World) -> None:
        library = slow(world, tmp_path)
        await world.add("late", loras=NEON, late=4)
        first = await world.task("late")
        async with engine(network()) as one:
            running = asyncio.create_task(world.denoiser(one).run(first))
            await eventually(lambda: _at(world, 4))
            if joins:
                library.there.set()
                await eventually(lambda: _kept(world, 6))
            else:
                await eventually(lambda: _kept(world, 4))
            running.cancel()
            await asyncio.wait([running])
        library.there.set()
        await world.vanish("late")
        second = await world.task("late", deliveries=2)
        async with engine(network()) as another:
            await world.denoiser(another).run(second)
        assert second.approximations == {"late_lora neon: image 0, step 5"}

    async def _at(world: World, number: int) -> bool:
        return number in world.publisher.steps("late")

    async def _kept(world: World, step: int) -> bool:
        checkpoint = (await world.state("late")).checkpoint
        return checkpoint is not None and checkpoint.step >= step

    in_world(scenario)


def test_rows_that_wait_for_their_loras_leave_the_places_to_others(tmp_path: Path) -> None:
    neon(tmp_path)

    async def scenario(world: World) -> None:
        library = slow(world, tmp_path)
        for number in range(2):
            await world.add(f"late-{number}", loras=NEON, late=1)
        await world.add("other")
        async with engine(network(), max_rows=2, max_admitted=2) as one:
            denoiser = world.denoiser(one)
            async with asyncio.TaskGroup() as group:
                for number in range(2):
                    group.create_task(denoiser.run(await world.task(f"late-{number}")))
                await eventually(lambda: _begun(world))
                await denoiser.run(await world.task("other"))
                library.there.set()
        assert world.publisher.steps("late-0") == list(range(1, STEPS + 1))

    async def _begun(world: World) -> bool:
        return all(world.publisher.steps(f"late-{number}") == [1] for number in range(2))

    in_world(scenario)


@pytest.mark.parametrize("late", [0, 4])
def test_a_lora_with_a_tensor_of_no_use_needs_leave_and_the_result_names_it(
    tmp_path: Path, late: int
) -> None:
    path = write_lora(tmp_path / "odd.safetensors", {"unet": make_unet()})
    extra = "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"
    save_file({**load_file(path), extra: torch.ones(2, 2)}, path)

    async def scenario(world: World) -> None:
        world.loras = LoraFiles(LoraDirectory((str(tmp_path),)))
        await world.add("whole", loras=(LoraChoice(name="odd"),), late=late)
        await world.add("partly", loras=(LoraChoice(name="odd", partial=True),), late=late)
        async with engine(network()) as one:
            denoiser = world.denoiser(one)
            with pytest.raises(AdapterUnusable, match=f"1 of its .* tensors.*{extra}: LoHa"):
                await denoiser.run(await world.task("whole"))
            task = await world.task("partly")
            await denoiser.run(task)
        named = f"partial_lora odd: {extra} (LoHa is not supported)"
        assert {one for one in task.approximations if not one.startswith("late")} == {named}

    in_world(scenario)
