"""A UNet, run in two halves."""

from typing import Any, Self

import torch

from shared.models.contracts.network import Conditioning, Control
from shared.models.contracts.traced import Example
from shared.models.families.unet.inputs import CrossAttention
from shared.models.lowrank.bank import AdaptedModule, AdaptedNetwork, Bank
from shared.models.weights.load import load

Halfway = tuple[torch.Tensor, ...]
"""The middle block's output, the time embedding, and the encoder half's outputs."""


class Unet(AdaptedModule):
    """Implements `Network`: diffusers' `UNet2DConditionModel`."""

    inputs = CrossAttention()

    def __init__(self, unet: Any) -> None:
        self.module = unet.requires_grad_(False).eval()
        # Asked for several times a step; the module would look at all its parameters each time.
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.adapted = AdaptedNetwork("unet", self.module)
        self.in_channels = int(unet.config.in_channels)
        self.sample_size = int(unet.config.sample_size)
        self.guidance_width: int | None = unet.config.time_cond_proj_dim
        """Of the vector in which the network takes its guidance; None: it takes none."""
        self.smallest = 2 ** (len(unet.config.block_out_channels) - 1)
        """Latent positions that the deepest level sees as one."""

    @classmethod
    def load(
        cls,
        model: str,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load only `unet/` of `model`, a diffusers directory or a hub id, safetensors only."""
        # From its own module, when needed: the package itself imports every model there is.
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return cls(load(UNet2DConditionModel, model, "unet", dtype).to(device))

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        with self.adapted.using(bank):
            given = self.inputs.tensors(conditioning)
            halfway = self.encode(x, t, *given)
            return self.decode(given[0], *with_residuals(halfway, control))

    def encode(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        prompt: torch.Tensor,
        scalars: torch.Tensor,
        *others: torch.Tensor,
    ) -> Halfway:
        """The first half of `UNet2DConditionModel.forward`: down blocks and middle block, with
        what `inputs` gives. What ControlNets compute meanwhile is wanted after it (SwiftDiffusion,
        arXiv 2407.02031 §4.1)."""
        unet = self.module
        if unet.config.center_input_sample:
            x = 2 * x - 1.0
        guidance = None
        if self.guidance_width is not None:
            guidance = guidance_embedding(scalars[:, self.inputs.sizes], self.guidance_width)
        emb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t), guidance)
        augmented = unet.get_aug_embed(
            emb=emb,
            encoder_hidden_states=prompt,
            added_cond_kwargs=self.inputs.added(scalars, *others),
        )
        if augmented is not None:
            emb = emb + augmented
        if unet.time_embed_act is not None:
            emb = unet.time_embed_act(emb)
        sample = unet.conv_in(x)
        outputs = (sample,)
        for block in unet.down_blocks:
            sample, passed = block(sample, emb, **_seen(block, prompt))
            outputs += passed
        sample = unet.mid_block(sample, emb, **_seen(unet.mid_block, prompt))
        return sample, emb, *outputs

    def decode(
        self, prompt: torch.Tensor, sample: torch.Tensor, emb: torch.Tensor, *outputs: torch.Tensor
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
                **_seen(block, prompt),
            )
        if unet.conv_norm_out is not None:
            sample = unet.conv_act(unet.conv_norm_out(sample))
        return unet.conv_out(sample)  # type: ignore[no-any-return]

    def example(self, images: int, height: int, width: int, tokens: int) -> Example:
        """See `Traceable`."""
        drawn = torch.Generator().manual_seed(images)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn).to(self.device, self.dtype)

        return (
            normal(images, self.in_channels, height * self.smallest, width * self.smallest),
            torch.linspace(999.0, 1.0, images).to(self.device),
            self.inputs.example(
                self.module.config, images, tokens, self.guidance_width is not None, normal
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


def with_residuals(halfway: Halfway, control: Control | None) -> Halfway:
    """`halfway` with what `control` answers, if there is one."""
    if control is None:
        return halfway
    sample, emb, *outputs = halfway
    *residuals, middle = control()
    summed = (output + residual for output, residual in zip(outputs, residuals, strict=True))
    return sample + middle, emb, *summed


def _seen(block: Any, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a block is given of the prompt: everything, or nothing."""
    return {"encoder_hidden_states": prompt} if getattr(block, "has_cross_attention", False) else {}
