"""A tiny random SDXL-style network, rows for it, and the diffusers loop to compare with."""

from functools import cache
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from services.denoiser.row import Conditioning, Row
from services.denoiser.schedules import make_scheduler
from services.denoiser.step_table import build_step_table
from services.denoiser.unet import SdxlUnet
from shared.samplers import SAMPLERS
from tests.services.denoiser.test_step_table import SDXL

WIDTH, POOLED, LENGTH = 16, 12, 5
SHAPE = (4, 8, 8)
TIME_IDS = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])


def make_unet() -> UNet2DConditionModel:
    torch.manual_seed(7)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=POOLED + 6 * 4,
        use_linear_projection=True,
    ).eval()


@cache
def network() -> SdxlUnet:
    torch.set_num_threads(1)
    return SdxlUnet(make_unet())


def conditioning(prompt: str, length: int = LENGTH) -> Conditioning:
    generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
    return Conditioning(
        torch.randn(1, length, WIDTH, generator=generator),
        torch.randn(1, POOLED, generator=generator),
        TIME_IDS,
    )


def make_row(
    prompt: str = "a red cube",
    *,
    seed: int = 1,
    sampler: str = "euler",
    steps: int = 6,
    guidance: float = 5.0,
    **fields: Any,
) -> Row:
    settings: dict[str, Any] = {
        "job_id": prompt,
        "node": "denoise-0",
        "index": 0,
        "shape": SHAPE,
    } | fields
    return Row.begin(
        seed=seed,
        table=build_step_table(SDXL, sampler, steps),
        cond=conditioning(prompt),
        uncond=conditioning("nothing") if guidance > 1.0 else None,
        guidance=guidance,
        **settings,
    )


@torch.inference_mode()
def with_diffusers(
    prompt: str = "a red cube",
    *,
    seed: int = 1,
    sampler: str = "euler",
    steps: int = 6,
    guidance: float = 5.0,
) -> torch.Tensor:
    """The loop of diffusers' `StableDiffusionXLPipeline.__call__`, from latents to latents."""
    unet = network().module
    generator = torch.Generator("cpu").manual_seed(seed)
    scheduler = make_scheduler(SDXL, SAMPLERS[sampler])
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    cond, uncond = conditioning(prompt), conditioning("nothing")
    halves = [uncond, cond] if guidance > 1.0 else [cond]
    added = {
        "text_embeds": torch.cat([half.pooled for half in halves]),
        "time_ids": torch.cat([half.time_ids for half in halves]),
    }
    embeds = torch.cat([half.embeds for half in halves])
    noise = torch.randn((1, *SHAPE), generator=generator)
    latents: torch.Tensor = noise * scheduler.init_noise_sigma
    extra = {"generator": generator} if sampler == "euler_ancestral" else {}
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(torch.cat([latents] * len(halves)), t)
        out = unet(x, t, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
        if guidance > 1.0:
            out_uncond, out_cond = out.chunk(2)
            out = out_uncond + guidance * (out_cond - out_uncond)
        latents = scheduler.step(out, t, latents, **extra).prev_sample
    return latents
