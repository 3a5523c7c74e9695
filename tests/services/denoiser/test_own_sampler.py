"""A model's own scheduler, drawn here and by diffusers' own pipeline, whose scheduler is made
by diffusers itself of the same config."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)

from services.denoiser.step_table import build_step_table
from shared.samplers import own_sampler
from tests.services.denoiser.models import conditioning, make_row, network
from tests.services.denoiser.test_beginning import assert_close, finished
from tests.shared.test_schedulers import OWN

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
        prompt_embeds=cond.embeds,
        pooled_prompt_embeds=cond.pooled,
        negative_prompt_embeds=uncond.embeds,
        negative_pooled_prompt_embeds=uncond.pooled,
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
