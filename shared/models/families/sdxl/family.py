"""What the planner and everybody else without torch need to know of SDXL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared.models.contracts.autoencoder import ImageAutoencoder
from shared.models.contracts.options import CLIP_TOKENIZER, same, whole
from shared.models.families.sdxl.options import ADDITION, CONTROLNET, SIZES, TEXT_ENCODERS, UNET
from shared.models.families.unet.family import UnetFamily
from shared.models.files.directory import config_of

if TYPE_CHECKING:
    import torch

    from shared.models.contracts.controlnet import ControlNet
    from shared.models.contracts.network import Network
    from shared.models.contracts.text_encoder import TextEncoder


class Sdxl(UnetFamily):
    """arXiv 2307.01952."""

    architecture = "SDXL"
    pipeline = "StableDiffusionXLPipeline"
    text_encoders = TEXT_ENCODERS
    tokenizers = {  # noqa: RUF012
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
    }
    lora_encoders = {  # noqa: RUF012  # `Family` says what it is
        **dict.fromkeys(("te", "te1", "text_encoder", "text_encoder_1", "clip_l"), "text_encoder"),
        **dict.fromkeys(("te2", "text_encoder_2", "clip_g"), "text_encoder_2"),
    }
    addition = ADDITION
    options = UNET
    control_options = CONTROLNET
    autoencoder = ImageAutoencoder(statistics=True)
    classes = {  # noqa: RUF012
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    conditioning = {"embeds": "sequence", "pooled": "vector"}  # noqa: RUF012
    default_guidance = 5.0

    def refuse_misfits(self) -> None:
        super().refuse_misfits()
        clip, bigger = (config_of(self.source, folder) for folder in self.text_encoders)
        hidden = [config.get("hidden_size") for config in (clip, bigger)]
        both = None if None in hidden else sum(filter(None, hidden))
        same(
            "cross_attention_dim of the network", self.prompt_width, "the text encoders give", both
        )
        width = whole("unet", self.config, "projection_class_embeddings_input_dim")
        sizes = SIZES * whole("unet", self.config, "addition_time_embed_dim")
        pooled = bigger.get("projection_dim")
        wanted = None if pooled is None else pooled + sizes
        name = "projection_class_embeddings_input_dim of the network"
        same(name, width, "the pooled prompt and six sizes need", wanted)

    @property
    def widths(self) -> Mapping[str, int]:
        width = whole("unet", self.config, "projection_class_embeddings_input_dim")
        sizes = SIZES * whole("unet", self.config, "addition_time_embed_dim")
        return {"embeds": self.prompt_width, "pooled": width - sizes}

    def sizes(self, width: int, height: int) -> tuple[float, ...]:
        """The original size, the crop's corner and the target size (§2.2), as the pipeline has them
        by default."""
        return (float(height), float(width), 0.0, 0.0, float(height), float(width))

    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        from shared.models.families.sdxl.text import SdxlTextEncoder

        return SdxlTextEncoder(self.source, device, dtype)

    def network(self, device: str, dtype: torch.dtype) -> Network:
        from shared.models.families.sdxl.unet import SdxlUnet
        from shared.models.families.unet.traced import traced

        return traced(SdxlUnet.load(self.source, dtype, device))

    @classmethod
    def control_network(cls, source: str, device: str, dtype: torch.dtype) -> ControlNet:
        from shared.models.families.sdxl.unet import SdxlControlNet

        return SdxlControlNet.load(source, dtype, device)
