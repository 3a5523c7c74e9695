"""Rows with LoRAs: each image is the one that diffusers paints with the same adapters, whatever
the others in the batch have."""

import asyncio
from pathlib import Path

import pytest
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.rows.row import Row
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import traced
from shared.models.loras.read import read_adapter
from shared.models.lowrank.bank import Use
from tests.conftest import run
from tests.helpers.loras import write_lora
from tests.services.denoiser.models import family, make_row, make_unet, network, with_diffusers

LORAS = {
    "a": {"form": "peft", "rank": 2},
    "b": {"form": "kohya", "rank": 4, "alpha": 3.0},
    "c": {"form": "diffusers", "rank": 3, "endings": ("conv1", "proj_in", "ff.net.2")},
}
WANTED: list[dict[str, float]] = [{}, {"a": 1.0}, {"b": -0.6}, {"a": 0.5, "b": 0.8}, {"c": 1.0}]


def files(folder: Path) -> dict[str, Path]:
    return {
        name: write_lora(folder / f"{name}.safetensors", {"unet": make_unet()}, seed=k, **how)  # type: ignore[arg-type]
        for k, (name, how) in enumerate(LORAS.items())
    }


def with_peft(paths: dict[str, Path], wanted: dict[str, float], prompt: str) -> torch.Tensor:
    """As `load_lora_weights` and `set_adapters` of diffusers would have it."""
    from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin as Loader

    unet = make_unet()
    for name in wanted:
        state, alphas = Loader.lora_state_dict(str(paths[name]), unet_config=unet.config)
        Loader.load_lora_into_unet(state, alphas, unet, adapter_name=name)
    if wanted:
        unet.set_adapters(list(wanted), list(wanted.values()))
    return with_diffusers(prompt, unet=unet)


def rows(paths: dict[str, Path]) -> list[Row]:
    found = {name: read_adapter(name, path, family()) for name, path in paths.items()}
    for adapter in found.values():
        network().adapted.check(adapter)

    def uses(wanted: dict[str, float]) -> tuple[Use, ...]:
        return tuple((found[name], scale) for name, scale in wanted.items())

    return [make_row(f"row {k}", adapters=uses(wanted)) for k, wanted in enumerate(WANTED)]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_rows_with_different_loras_share_steps_and_are_as_diffusers_paints_them(
    tmp_path: Path,
) -> None:
    paths = files(tmp_path)

    async def main() -> list[torch.Tensor]:
        async with Engine(network(), predictors=[LoraWeights(network())]) as engine:
            latents = await asyncio.gather(*(engine.run(row) for row in rows(paths)))
            assert engine.statistics().steps < 2 * 6  # of 6 each
            return latents

    for k, (latents, wanted) in enumerate(zip(run(main()), WANTED, strict=True)):
        expected = with_peft(paths, wanted, f"row {k}")
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
        if wanted:
            assert (latents - with_diffusers(f"row {k}")).abs().max() > 0.05


@torch.inference_mode()
def test_the_graph_is_left_for_rows_with_loras_and_taken_up_again(tmp_path: Path) -> None:
    unet = SdxlUnet(make_unet())
    graph = traced(unet)
    path = write_lora(tmp_path / "a.safetensors", {"unet": unet.module})
    adapter = read_adapter("a", path, family())
    example = unet.example(2, 2, 2, 5)
    plain = graph.predict(*example)
    adapted = graph.predict(*example, graph.bank([[(adapter, 1.0)], []]))
    assert not torch.allclose(adapted[0], plain[0], atol=1e-3)
    torch.testing.assert_close(adapted[1], plain[1])
    assert torch.equal(graph.predict(*example), plain)
