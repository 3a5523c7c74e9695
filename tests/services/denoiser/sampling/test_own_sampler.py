"""A model's own scheduler, drawn here and by diffusers' own pipeline, whose scheduler is made
by diffusers itself of the same config."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)

from services.denoiser.forward.step import Batch, step
from services.denoiser.sampling.step_table import build_step_table
from shared.models.families.sdxl.family import Sdxl
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.samplers.samplers import own_sampler
from tests.services.denoiser.models import conditioning, make_row, make_unet, network
from tests.services.denoiser.sampling.test_initial_latents import assert_close, finished
from tests.shared.models.test_schedulers import OWN, SD

MODELS = [config for config, name in OWN if not name.startswith("flow")]


@torch.inference_mode()
def with_diffusers(config: dict[str, Any], steps: int) -> torch.Tensor:
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    pipe: Any = StableDiffusionXLPipeline(
        None, None, None, None, None, network().module, scheduler, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    cond, uncond = conditioning("a red cube"), conditioning("nothing")
    latents: torch.Tensor = pipe(
        height=64,
        width=64,
        prompt_embeds=cond.tensors["embeds"],
        pooled_prompt_embeds=cond.tensors["pooled"],
        negative_prompt_embeds=uncond.tensors["embeds"],
        negative_pooled_prompt_embeds=uncond.tensors["pooled"],
        num_inference_steps=steps,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="latent",
    ).images
    return latents


@pytest.mark.parametrize("config", MODELS, ids=lambda config: str(config)[-50:])
def test_a_models_own_scheduler_draws_as_diffusers_pipeline_does(config: dict[str, Any]) -> None:
    steps = 6
    row = make_row(table=build_step_table(config, own_sampler(config), steps))
    [found] = finished(row)
    expected = with_diffusers(config, steps)
    scale = float(expected.abs().max())
    assert_close(found / scale, expected / scale)


@torch.inference_mode()
@pytest.mark.parametrize("width", [8, 5])
@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_a_network_that_is_told_its_guidance_draws_as_diffusers_pipeline_does(
    width: int, guidance: float
) -> None:
    config = {**SD, "_class_name": "LCMScheduler", "original_inference_steps": 50}
    unet = make_unet(time_cond_proj_dim=width)
    pipe: Any = StableDiffusionXLPipeline(
        *[None] * 5, unet, diffusers.LCMScheduler.from_config(config), add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    cond = conditioning("a red cube")
    [expected] = pipe(
        height=64,
        width=64,
        prompt_embeds=cond.tensors["embeds"],
        pooled_prompt_embeds=cond.tensors["pooled"],
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="latent",
    ).images
    own = Sdxl("", unet.config).scalars(64, 64, guidance)
    row = make_row(table=build_step_table(config, "lcm", 4), guidance=1.0)
    row.cond = row.cond._replace(scalars=torch.tensor([own]))
    network = SdxlUnet(unet)
    while not row.finished:
        stepped = step(network, Batch.of([row], network))
        row.latents, row.x0_prev = stepped.x, stepped.x0
        row.step += 1
    assert_close(row.latents[0] / expected.abs().max(), expected / expected.abs().max())
