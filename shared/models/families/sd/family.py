"""What everybody without torch needs to know of Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from shared.models.contracts.autoencoder import ImageAutoencoder
from shared.models.contracts.options import CLIP_TOKENIZER, same
from shared.models.families.sd.options import CONTROLNET, UNET
from shared.models.families.unet.family import UnetFamily
from shared.models.files.directory import config_of

if TYPE_CHECKING:
    import torch

    from shared.models.contracts.text_encoder import TextEncoder

SECOND_WIDTH: Final = 1024
"""Of OpenCLIP's hidden states, which version 2 takes; version 1 takes CLIP's 768."""


class Sd(UnetFamily):
    """Stable Diffusion (arXiv 2112.10752): its UNet takes the prompt and nothing else. Version 2
    has another text encoder, and its larger models predict v."""

    architecture = "Stable Diffusion"
    pipeline = "StableDiffusionPipeline"
    text_encoders = ("text_encoder",)
    tokenizers = {"tokenizer": CLIP_TOKENIZER}  # noqa: RUF012
    lora_encoders = dict.fromkeys(  # `Family` says what it is
        ("te", "te1", "text_encoder", "text_encoder_1", "clip_l"), "text_encoder"
    )
    addition = None
    options = UNET
    control_options = CONTROLNET
    autoencoder = ImageAutoencoder()
    classes = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}  # noqa: RUF012
    conditioning = {"embeds": "sequence"}  # noqa: RUF012
    corrections = {"steps_offset": 1, "clip_sample": False}  # noqa: RUF012
    default_guidance = 7.5

    def __init__(self, source: str, config: Mapping[str, Any]) -> None:
        super().__init__(source, config)
        version = 2 if config.get("cross_attention_dim") == SECOND_WIDTH else 1
        self.architecture = f"Stable Diffusion {version}"

    def refuse_misfits(self) -> None:
        super().refuse_misfits()
        width = config_of(self.source, "text_encoder").get("hidden_size")
        name = "cross_attention_dim of the network"
        same(name, self.prompt_width, "the text encoder gives", width)

    @property
    def widths(self) -> Mapping[str, int]:
        return {"embeds": self.prompt_width}

    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        from shared.models.families.sd.text import SdTextEncoder

        return SdTextEncoder(self.source, device, dtype)
