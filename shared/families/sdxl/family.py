"""What the planner and everybody else without torch need to know of SDXL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from shared.errors import Misconfigured
from shared.families.base import Family
from shared.families.layers import Piece, clip_names
from shared.families.options import CLIP_TOKENIZER, refuse_ignored, same, whole
from shared.families.sdxl.lora_names import sgm_names
from shared.families.sdxl.options import CONTROLNET, SIZES, TEXT_ENCODERS, UNET
from shared.model_files import config_of

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
    """arXiv 2307.01952. A network with `time_cond_proj_dim` was distilled with its guidance in it
    (Luo et al. 2023, arXiv 2310.04378): it is told the number, and there is no second forward."""

    architecture = "SDXL"
    pipeline = "StableDiffusionXLPipeline"
    denoiser = "unet"
    text_encoders = TEXT_ENCODERS
    tokenizers = {  # noqa: RUF012
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
    }
    lora_encoders = {  # noqa: RUF012  # `Family` says what it is
        **dict.fromkeys(("te", "te1", "text_encoder", "text_encoder_1", "clip_l"), "text_encoder"),
        **dict.fromkeys(("te2", "text_encoder_2", "clip_g"), "text_encoder_2"),
    }
    control = "ControlNetModel"
    control_options = CONTROLNET
    options = UNET
    classes = {  # noqa: RUF012
        "vae": "AutoencoderKL",
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    predictions = frozenset(
        {"epsilon", "v_prediction", "sample", "edm_epsilon", "edm_v_prediction"}
    )
    patch = 1
    masks = False
    even_sigmas = False
    rounds_up = False
    default_guidance = 5.0

    @property
    def native_side(self) -> int:
        return whole("unet", self.config, "sample_size")

    @property
    def latent_channels(self) -> int:
        return whole("unet", self.config, "in_channels", 4)

    @property
    def embedded_guidance(self) -> bool:
        return self.config.get("time_cond_proj_dim") is not None

    def refuse_misfits(self) -> None:
        inward, outward = self.latent_channels, self.config.get("out_channels", 4)
        if inward != outward:
            raise Misconfigured(
                f"unet/config.json: in_channels is {inward} and out_channels {outward}; honoured "
                "is a network that is given images alone, and has as many channels in as out"
            )
        if self.embedded_guidance and whole("unet", self.config, "time_cond_proj_dim") < 4:
            raise Misconfigured(
                f"unet/config.json: time_cond_proj_dim is {self.config['time_cond_proj_dim']}; "
                "honoured is null, or a whole number from 4, for a guidance is that many sines and "
                "cosines"
            )
        refuse_ignored(config_of(self.source, "vae"), ("shift_factor",), self.pipeline)
        clip, bigger = (config_of(self.source, folder) for folder in self.text_encoders)
        widths = [config.get("hidden_size") for config in (clip, bigger)]
        both = None if None in widths else sum(filter(None, widths))
        prompt = whole("unet", self.config, "cross_attention_dim", 1280)
        same("cross_attention_dim of the network", prompt, "the text encoders give", both)
        told = whole("unet", self.config, "projection_class_embeddings_input_dim")
        sizes = SIZES * whole("unet", self.config, "addition_time_embed_dim")
        pooled = bigger.get("projection_dim")
        wanted = None if pooled is None else pooled + sizes
        name = "projection_class_embeddings_input_dim of the network"
        same(name, told, "the pooled prompt and six sizes need", wanted)

    @property
    def told_widths(self) -> tuple[int, int]:
        told = whole("unet", self.config, "projection_class_embeddings_input_dim")
        sizes = SIZES * whole("unet", self.config, "addition_time_embed_dim")
        return whole("unet", self.config, "cross_attention_dim", 1280), told - sizes

    def numbers(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        """The original size, the crop's corner and the target size (§2.2), as the pipeline has them
        by default; and the guidance, if the network is told it."""
        sizes = (float(height), float(width), 0.0, 0.0, float(height), float(width))
        return (*sizes, guidance) if self.embedded_guidance else sizes

    def lora_names(self, part: str) -> Mapping[str, tuple[Piece, ...]]:
        layers = self.layers[part]
        return sgm_names(layers) if part == self.denoiser else clip_names(layers)

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
