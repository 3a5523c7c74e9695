"""Tiny random Stable Diffusions in diffusers' layout, drawn with by our services' parts and by
diffusers."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.controlnets.controlnet import ControlNetModel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.baselines.pipeline import scheduler_for
from shared.models.contracts.network import Network
from shared.models.families.unet.unet import Unet
from tests.helpers.flux import POOLED, Atelier, Wish, make_clip

Version = Literal["1", "2", "2-v", "lcm"]
"""`lcm`: a version 1 that was distilled with its guidance, which it is told."""
VERSIONS: tuple[Version, ...] = ("1", "2", "2-v", "lcm")
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def make_sd_unet(version: Version = "1") -> UNet2DConditionModel:
    torch.manual_seed(11)
    second = version.startswith("2")
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4) if second else 2,
        norm_num_groups=4,
        cross_attention_dim=POOLED,
        use_linear_projection=second,
        time_cond_proj_dim=16 if version == "lcm" else None,
    ).eval()


def make_sd(folder: Path, version: Version = "1", **scheduler: Any) -> str:
    """Write one with random weights; `scheduler`: of its config. Returns the directory. Version 1
    comes with DDIM, version 2 with Euler."""
    unet = make_sd_unet(version)
    tokenizer, clip = make_clip()
    if version.startswith("2"):
        config = clip.config.to_dict() | {"hidden_act": "gelu", "num_hidden_layers": 3}
        clip = CLIPTextModel(CLIPTextConfig(**config)).eval()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        norm_num_groups=4,
    ).eval()
    kind = EulerDiscreteScheduler if version.startswith("2") else DDIMScheduler
    told: dict[str, Any] = {"prediction_type": "v_prediction"} if version == "2-v" else {}
    if kind is DDIMScheduler:
        told |= {"clip_sample": False}
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=kind(**{**BETAS, **told, **scheduler}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return str(folder)


def make_sd_control(folder: Path, version: Version = "1", seed: int = 0) -> str:
    """Write one with weights of its own where a new one has zeros, so that it says something."""
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(
        make_sd_unet(version), conditioning_embedding_out_channels=(4, 4, 4, 4)
    )
    for silent in (
        *net.controlnet_down_blocks,
        net.controlnet_mid_block,
        net.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(silent.weight, std=0.3)
    net.save_pretrained(folder)
    return str(folder)


class SdAtelier(Atelier):
    """As `Atelier`, with `StableDiffusionPipeline`, and with the network itself, not its graph."""

    def load(self) -> Network:
        return Unet.load(self.source)

    @cached_property
    def pipeline(self) -> Any:
        pipeline = StableDiffusionPipeline.from_pretrained(self.source, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def painted(self, pipeline: Any, wish: Wish, own: bool = False, **told: Any) -> torch.Tensor:
        """`own`: with the scheduler that the pipeline has."""
        if not own:
            pipeline.scheduler = scheduler_for(self.sampling.scheduler_config, wish.sampler)
        if "image" not in told:
            told |= {"width": wish.size[0], "height": wish.size[1]}
        image = pipeline(
            wish.prompt,
            num_inference_steps=wish.steps,
            guidance_scale=wish.guidance,
            negative_prompt=wish.negative,
            generator=torch.Generator("cpu").manual_seed(wish.seed),
            output_type="np",
            **told,
        ).images[0]
        return torch.from_numpy(image * 255).round()
