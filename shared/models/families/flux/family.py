"""What the planner and everybody else without torch need to know of FLUX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shared.errors import Misconfigured
from shared.models.contracts.autoencoder import ImageAutoencoder
from shared.models.contracts.family import Family
from shared.models.contracts.makers import Wanted
from shared.models.contracts.options import CLIP_TOKENIZER, T5_TOKENIZER, same, whole
from shared.models.families.flux import makers
from shared.models.families.flux.lora_names import bfl_names
from shared.models.families.flux.options import TRANSFORMER
from shared.models.files.directory import config_of
from shared.models.files.layers import Piece, clip_names

if TYPE_CHECKING:
    import torch

    from shared.models.contracts.network import Network
    from shared.models.contracts.text_encoder import TextEncoder


class Flux(Family):
    """Black Forest Labs' FLUX.1, as diffusers has it: a rectified flow transformer (Esser et al.
    2024, arXiv 2403.03206).

    Guidance is what its config makes of it. A model with `guidance_embeds` was distilled: it is
    given the number, and has no use for a negative prompt. The others are guided as usual, by a
    second forward with the negative prompt (`true_cfg_scale` in `FluxPipeline`)."""

    architecture = "FLUX"
    pipeline = "FluxPipeline"
    denoiser = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2")
    tokenizers = {  # noqa: RUF012
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": T5_TOKENIZER,
    }
    lora_encoders = {  # noqa: RUF012
        **dict.fromkeys(("te", "te1", "text_encoder", "text_encoder_1", "clip_l"), "text_encoder"),
        **dict.fromkeys(("te2", "te3", "text_encoder_2", "t5", "t5xxl"), "text_encoder_2"),
    }
    control = None
    control_options = None
    options = TRANSFORMER
    autoencoder = ImageAutoencoder(shifts=True)
    classes = {  # noqa: RUF012
        "transformer": "FluxTransformer2DModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    }
    predictions = frozenset({"flow"})
    conditioning = {"embeds": "sequence", "pooled": "vector"}  # noqa: RUF012
    patch = 2
    masks = True
    even_sigmas = True
    rounds_up = True
    native_side = 128

    @property
    def latent_channels(self) -> int:
        return whole("transformer", self.config, "in_channels", 64) // self.patch**2

    def refuse_misfits(self) -> None:
        inward = whole("transformer", self.config, "in_channels", 64)
        outward = self.config.get("out_channels") or inward
        if inward != outward or inward % self.patch**2:
            raise Misconfigured(
                f"transformer/config.json: in_channels is {inward} and out_channels {outward}; "
                "honoured is a network that is given images alone, and has as many channels in as "
                f"out, {self.patch**2} for each of the autoencoder's"
            )
        clip, t5 = (config_of(self.source, folder) for folder in self.text_encoders)
        for name, default, folder, width in (
            ("joint_attention_dim", 4096, "text_encoder_2", t5.get("d_model")),
            ("pooled_projection_dim", 768, "text_encoder", clip.get("hidden_size")),
        ):
            own = whole("transformer", self.config, name, default)
            same(f"{name} of the network", own, f"{folder} gives", width)

    @property
    def embedded_guidance(self) -> bool:
        return bool(self.config.get("guidance_embeds"))

    @property
    def default_guidance(self) -> float:
        return 3.5 if self.embedded_guidance else 1.0

    @property
    def widths(self) -> Mapping[str, int]:
        return {
            "embeds": whole("transformer", self.config, "joint_attention_dim", 4096),
            "pooled": whole("transformer", self.config, "pooled_projection_dim", 768),
        }

    def scalars(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        return (guidance,) if self.embedded_guidance else ()

    def wanted(self, names: Sequence[str]) -> Wanted | None:
        return makers.wanted(names, self.scheduler, self.embedded_guidance)

    def lora_names(self, part: str) -> Mapping[str, tuple[Piece, ...]]:
        layers = self.layers[part]
        if part == self.denoiser:
            return bfl_names(layers)
        return clip_names(layers) if part == "text_encoder" else {}

    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        from shared.models.families.flux.text import FluxTextEncoder

        return FluxTextEncoder(self.source, device, dtype)

    def network(self, device: str, dtype: torch.dtype) -> Network:
        from shared.models.families.flux.traced import traced
        from shared.models.families.flux.transformer import FluxTransformer

        return traced(FluxTransformer.load(self.source, dtype, device))
