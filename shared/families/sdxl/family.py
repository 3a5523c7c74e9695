"""What the planner and everybody else without torch need to know of SDXL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from shared.families.base import Family, LoraState

if TYPE_CHECKING:
    import torch

    from shared.families.network import Network
    from shared.families.text import TextEncoder

_INTERFACE: Final = (
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)


class Sdxl(Family):
    """arXiv 2307.01952."""

    pipeline = "StableDiffusionXLPipeline"
    denoiser = "unet"
    text_encoders = ("text_encoder", "text_encoder_2")
    lora_keys = {  # noqa: RUF012  # `Family` says what it is
        "unet": ("unet.", "lora_unet_"),
        "text_encoder": ("text_encoder.", "lora_te_", "lora_te1_"),
        "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
    }
    control = "ControlNetModel"
    patch = 1
    masks = False
    even_sigmas = False
    rounds_up = False
    embedded_guidance = False
    default_guidance = 5.0

    @property
    def native_side(self) -> int:
        return int(self.config["sample_size"])

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"])

    def numbers(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        """The original size, the crop's corner and the target size (§2.2), as the pipeline has them
        by default."""
        return (float(height), float(width), 0.0, 0.0, float(height), float(width))

    def lora_state(self, path: Path) -> LoraState:
        # When needed: the mixin's module imports much of diffusers.
        from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin

        state, alphas, metadata = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            unet_config=SimpleNamespace(**self.config),  # some scripts number blocks otherwise
            use_safetensors=True,  # else diffusers would try to unpickle what is none
            local_files_only=True,
            return_lora_metadata=True,
        )
        return state, alphas or {}, metadata or {}

    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        from shared.families.sdxl.text import SdxlTextEncoder

        return SdxlTextEncoder(self.source, device, dtype)

    def network(self, device: str, dtype: torch.dtype) -> Network:
        from shared.families.sdxl.traced import traced
        from shared.families.sdxl.unet import SdxlUnet

        return traced(SdxlUnet.load(self.source, dtype, device))

    @classmethod
    def control_interface(cls, config: Mapping[str, Any]) -> str:
        """What the UNet and a ControlNet are told, and the sizes of what one adds to the other."""
        return " ".join(f"{name}={json.dumps(config.get(name))}" for name in _INTERFACE)
