"""Rows whose LoRAs come from elsewhere."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from shared.errors import AdapterUnusable
from shared.messages import LoraChoice
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.origins import label
from shared.residency.loader import Loader
from tests.conftest import eventually
from tests.helpers.lora_server import LoraServer
from tests.helpers.loras import write_lora
from tests.services.denoiser.models import family, make_unet, network
from tests.services.denoiser.world import STEPS, World, engine, in_world

Scenario = Callable[[World, LoraServer], Coroutine[None, None, None]]


def serving(folder: Path, scenario: Scenario) -> None:
    """With the LoRA `neon` in a LoRA directory in `folder`, and on a server."""
    path = write_lora(folder / "shelf" / "neon.safetensors", {"unet": make_unet()})
    data = path.read_bytes()

    async def main(world: World) -> None:
        async with LoraServer().running() as server:
            server.files["neon.safetensors"] = data
            fetcher = server.fetcher(folder / "fetched")
            world.loras = LoraFiles(LoraDirectory((str(folder / "shelf"),)), fetcher)
            await scenario(world, server)

    in_world(main)


def test_a_lora_is_the_same_wherever_it_comes_from_and_a_bad_one_fails_its_own_job(
    tmp_path: Path,
) -> None:
    async def scenario(world: World, server: LoraServer) -> None:
        good = {
            "by-name": LoraChoice(name="neon"),
            "by-path": LoraChoice(path="neon.safetensors"),
            "by-hub": LoraChoice(hub="owner/repo"),
            "by-url": LoraChoice(
                url=f"{server.address}/plain/neon.safetensors",
                sha256=server.sha256("neon.safetensors"),
            ),
        }
        bad = {
            where: LoraChoice(url=f"{server.address}/{where}/neon.safetensors")
            for where in ("torn", "absent", "away")
        } | {"checksum": LoraChoice(name="neon", sha256="0" * 64)}
        for late, prefix in ((0, ""), (STEPS - 1, "late-")):
            for name, choice in (good | bad).items():
                await world.add(prefix + name, loras=(choice,), late=late, seed=7)
        async with engine(network(), max_rows=32, max_waiting=32) as one:
            denoiser = world.denoiser(one)
            names = [prefix + name for name in good | bad for prefix in ("", "late-")]
            tasks = [denoiser.run(await world.task(name)) for name in names]
            found = dict(
                zip(names, await asyncio.gather(*tasks, return_exceptions=True), strict=True)
            )
        for name in bad:
            for prefix in ("", "late-"):
                assert isinstance(found[prefix + name], AdapterUnusable)
        assert all(isinstance(found[f"late-{name}"], dict) for name in good)

    serving(tmp_path, scenario)


def test_the_picture_does_not_tell_where_its_lora_came_from(tmp_path: Path) -> None:
    async def scenario(world: World, server: LoraServer) -> None:
        choices = {
            "name": LoraChoice(name="neon", scale=0.7),
            "url": LoraChoice(url=f"{server.address}/plain/neon.safetensors", scale=0.7),
        }
        latents = []
        for choice in choices.values():
            await world.add("job", loras=(choice,), seed=7)
            async with engine(network()) as one:
                outputs = await world.denoiser(one).run(await world.task("job"))
                latents.append(world.latents(outputs))
            world.records = (await World.create()).records
        torch.testing.assert_close(*latents, atol=1e-4, rtol=1e-4)  # merged or not

    serving(tmp_path, scenario)


def test_a_row_is_begun_while_its_lora_is_fetched_and_the_result_names_it_shortly(
    tmp_path: Path,
) -> None:
    async def scenario(world: World, server: LoraServer) -> None:
        server.open.clear()
        choice = LoraChoice(url=f"{server.address}/held/neon.safetensors?token={'x' * 300}")
        await world.add("late", loras=(choice,), late=3)
        async with engine(network()) as one, asyncio.TaskGroup() as group:
            task = await world.task("late")
            group.create_task(world.denoiser(one).run(task))
            await eventually(lambda: _at(world, 3))
            server.open.set()
        assert task.approximations == {f"late_lora {label(choice)}: image 0, step 4"}
        assert "xxx" not in label(choice)

    async def _at(world: World, step: int) -> bool:
        return step in world.publisher.steps("late")

    serving(tmp_path, scenario)


def test_a_suspect_is_not_alone_before_its_lora_is_there(tmp_path: Path) -> None:
    async def scenario(world: World, server: LoraServer) -> None:
        server.open.clear()
        choice = LoraChoice(url=f"{server.address}/held/neon.safetensors")
        await world.add("suspect", loras=(choice,))
        await world.add("other")
        async with engine(network()) as one, asyncio.TaskGroup() as group:
            denoiser = world.denoiser(one)
            await world.task("suspect")
            group.create_task(denoiser.run(await world.suspect("suspect")))
            await eventually(lambda: _asked(server))
            await denoiser.run(await world.task("other"))  # it is not held up
            server.open.set()

    async def _asked(server: LoraServer) -> bool:
        return bool(server.asked)

    serving(tmp_path, scenario)


@pytest.mark.parametrize("text", [True, False])
def test_a_library_without_the_unet_fetches_only_what_has_something_for_it(
    tmp_path: Path, text: bool
) -> None:
    """As that of the prompt encoder is."""

    async def scenario(world: World, server: LoraServer) -> None:
        if text:
            layer = torch.nn.Module()
            layer.add_module("q_proj", torch.nn.Linear(4, 4))
            path = write_lora(tmp_path / "text.safetensors", {"text_encoder": layer})
            server.files["neon.safetensors"] = await asyncio.to_thread(path.read_bytes)
        choice = LoraChoice(url=f"{server.address}/plain/neon.safetensors")
        library = AdapterLibrary(
            world.loras, family(), lambda adapter: None, 2**20, Loader(), ("text_encoder",)
        )
        for _ in range(2):
            adapter = await library.get(choice)
            assert set(adapter.parts) == ({"text_encoder"} if text else set())
            assert adapter.name == label(choice)
        ranges = ["Range" in request.headers for request in server.asked]
        assert ranges == ([True, False] if text else [True])
        assert world.loras.statistics().fetches == int(text)

    serving(tmp_path, scenario)


def test_a_library_without_the_unet_refuses_what_the_unet_could_not_use(tmp_path: Path) -> None:
    """So the prompt encoder ends a job before anything is denoised."""

    async def scenario(world: World, server: LoraServer) -> None:
        key = "lora_unet_double_blocks_0_img_attn_proj.lora_{}.weight"
        foreign = {key.format(one): torch.ones(2, 2) for one in ("down", "up")}
        server.files["neon.safetensors"] = save(foreign)
        choice = LoraChoice(url=f"{server.address}/plain/neon.safetensors")
        library = AdapterLibrary(
            world.loras, family(), lambda adapter: None, 2**20, Loader(), ("text_encoder",)
        )
        with pytest.raises(AdapterUnusable, match="it is a LoRA for FLUX, and this model is SDXL"):
            await library.get(choice)
        assert world.loras.statistics().fetches == 0

    serving(tmp_path, scenario)
