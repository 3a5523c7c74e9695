"""The network behind one contract, so that the step's maths need not know what it is."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from shared.adapters.bank import AdaptedNetwork, Bank, Use


class Network(Protocol):
    """A noise predictor. Images of one call must not influence each other."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        embeds: torch.Tensor,
        pooled: torch.Tensor,
        time_ids: torch.Tensor,
        bank: Bank | None = None,
    ) -> torch.Tensor:
        """The answer (B, C, H, W) to x (B, C, H, W) at times t (B,), given embeds (B, L, D), pooled
        (B, P) and time_ids (B, 6), with the adapters in `bank`."""
        ...

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        """For a batch in which image i has the adapters `images[i]`; see `AdaptedNetwork.bank`."""
        ...

    def merge(self, uses: Sequence[Use]) -> None:
        """Have these adapters in the weights; see `AdaptedNetwork.merge`."""
        ...


class SdxlUnet:
    """diffusers' `UNet2DConditionModel` with SDXL's conditioning (text and size embeddings)."""

    def __init__(self, unet: Any) -> None:
        self.module = unet.requires_grad_(False).eval()
        # Asked for several times a step; the module would look at all its parameters each time.
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.adapted = AdaptedNetwork("unet", self.module)
        self.in_channels = int(unet.config.in_channels)
        self.sample_size = int(unet.config.sample_size)
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

        unet = UNet2DConditionModel.from_pretrained(
            model, subfolder="unet", dtype=dtype, use_safetensors=True
        )
        return cls(unet.to(device))

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        embeds: torch.Tensor,
        pooled: torch.Tensor,
        time_ids: torch.Tensor,
        bank: Bank | None = None,
    ) -> torch.Tensor:
        added = {"text_embeds": pooled, "time_ids": time_ids}
        with self.adapted.using(bank):
            (out,) = self.module(
                x, t, encoder_hidden_states=embeds, added_cond_kwargs=added, return_dict=False
            )
        return out  # type: ignore[no-any-return]

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return self.adapted.bank(images)

    def merge(self, uses: Sequence[Use]) -> None:
        self.adapted.merge(uses)

    def example(
        self, images: int, height: int, width: int, tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Arguments for `predict`, drawn from a fixed seed: `images` of `height` x `width` times
        `smallest` latent positions, prompts of so many tokens."""
        config, drawn = self.module.config, torch.Generator().manual_seed(images)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn).to(self.device, self.dtype)

        return (
            normal(images, self.in_channels, height * self.smallest, width * self.smallest),
            torch.linspace(999.0, 1.0, images).to(self.device),
            normal(images, tokens, config.cross_attention_dim),
            normal(images, pooled),
            normal(images, 6).abs() * 1024,
        )
