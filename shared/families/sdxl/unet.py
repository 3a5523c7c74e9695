"""SDXL's UNet, run in two halves."""

from collections.abc import Sequence
from typing import Any

import torch

from shared.adapters.bank import AdaptedNetwork, Bank, Use
from shared.adapters.low_rank import Adapter
from shared.families.graphs import Example
from shared.families.network import Conditioning, Control
from shared.families.sdxl.options import SIZES
from shared.weights import load

Halfway = tuple[torch.Tensor, ...]
"""The middle block's output, the time embedding, and the encoder half's outputs."""


class SdxlUnet:
    """Implements `Network`: diffusers' `UNet2DConditionModel`."""

    def __init__(self, unet: Any) -> None:
        self.module = unet.requires_grad_(False).eval()
        # Asked for several times a step; the module would look at all its parameters each time.
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.adapted = AdaptedNetwork("unet", self.module)
        self.in_channels = int(unet.config.in_channels)
        self.sample_size = int(unet.config.sample_size)
        self.guidance_width: int | None = unet.config.time_cond_proj_dim
        """Of the vector that tells the network its guidance; None: it is not told."""
        self.smallest = 2 ** (len(unet.config.block_out_channels) - 1)
        """Latent positions that the deepest level sees as one."""

    @classmethod
    def load(
        cls,
        model: str,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "SdxlUnet":
        """Load only `unet/` of `model`, a diffusers directory or a hub id, safetensors only."""
        # From its own module, when needed: the package's front door imports every model there is.
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return cls(load(UNet2DConditionModel, model, "unet", dtype).to(device))

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        told: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        with self.adapted.using(bank):
            halfway = self.encode(x, t, *told)
            return self.decode(told.embeds, *steered(halfway, control))

    def encode(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        embeds: torch.Tensor,
        pooled: torch.Tensor,
        numbers: torch.Tensor,
    ) -> Halfway:
        """The first half of `UNet2DConditionModel.forward`: down blocks and middle block. What
        ControlNets compute meanwhile is wanted after it (SwiftDiffusion, arXiv 2407.02031 §4.1).
        `numbers`: see `Sdxl.numbers`."""
        unet = self.module
        if unet.config.center_input_sample:
            x = 2 * x - 1.0
        added = {"text_embeds": pooled, "time_ids": numbers[:, :SIZES]}
        told = None
        if self.guidance_width is not None:
            told = guidance_embedding(numbers[:, SIZES], self.guidance_width)
        emb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t), told)
        emb = emb + unet.get_aug_embed(
            emb=emb, encoder_hidden_states=embeds, added_cond_kwargs=added
        )
        if unet.time_embed_act is not None:
            emb = unet.time_embed_act(emb)
        sample = unet.conv_in(x)
        outputs = (sample,)
        for block in unet.down_blocks:
            sample, passed = block(sample, emb, **_seen(block, embeds))
            outputs += passed
        sample = unet.mid_block(sample, emb, **_seen(unet.mid_block, embeds))
        return sample, emb, *outputs

    def decode(
        self, embeds: torch.Tensor, sample: torch.Tensor, emb: torch.Tensor, *outputs: torch.Tensor
    ) -> torch.Tensor:
        """The second half: up blocks and the answer."""
        unet = self.module
        height, width = outputs[0].shape[-2:]
        uneven = height % self.smallest or width % self.smallest
        for block in unet.up_blocks:
            count = len(block.resnets)
            outputs, passed = outputs[:-count], outputs[-count:]
            size = outputs[-1].shape[2:] if uneven and outputs else None
            sample = block(
                hidden_states=sample,
                temb=emb,
                res_hidden_states_tuple=passed,
                upsample_size=size,
                **_seen(block, embeds),
            )
        if unet.conv_norm_out is not None:
            sample = unet.conv_act(unet.conv_norm_out(sample))
        return unet.conv_out(sample)  # type: ignore[no-any-return]

    def check(self, adapter: Adapter) -> None:
        self.adapted.check(adapter)

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return self.adapted.bank(images)

    def merge(self, uses: Sequence[Use]) -> None:
        self.adapted.merge(uses)

    def example(self, images: int, height: int, width: int, tokens: int) -> Example:
        """See `Traceable`."""
        config, drawn = self.module.config, torch.Generator().manual_seed(images)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn).to(self.device, self.dtype)

        return (
            normal(images, self.in_channels, height * self.smallest, width * self.smallest),
            torch.linspace(999.0, 1.0, images).to(self.device),
            Conditioning(
                normal(images, tokens, config.cross_attention_dim),
                normal(images, pooled),
                normal(images, SIZES + (self.guidance_width is not None)).abs() * 1024,
            ),
        )


def guidance_embedding(guidance: torch.Tensor, width: int) -> torch.Tensor:
    """(F, width) of guidance (F,): sines and cosines of what is more than none, as diffusers'
    `get_guidance_scale_embedding` has it."""
    half = width // 2
    falling = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=guidance.dtype) * -falling)
    scaled = ((guidance.float() - 1.0) * 1000.0).to(guidance.dtype)
    angles = scaled[:, None] * frequencies.to(guidance.device)[None]
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(waves, (0, width % 2))


def steered(halfway: Halfway, control: Control | None) -> Halfway:
    """`halfway` with what `control` answers, if there is one."""
    if control is None:
        return halfway
    sample, emb, *outputs = halfway
    *residuals, middle = control()
    summed = (output + residual for output, residual in zip(outputs, residuals, strict=True))
    return sample + middle, emb, *summed


def _seen(block: Any, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a block is given of the prompt: everything, or nothing."""
    return {"encoder_hidden_states": embeds} if getattr(block, "has_cross_attention", False) else {}
