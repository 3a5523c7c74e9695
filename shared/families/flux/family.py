"""What the planner and everybody else without torch need to know of FLUX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import Misconfigured
from shared.families.base import Family, LoraState
from shared.families.flux.options import TRANSFORMER
from shared.families.options import same, whole
from shared.model_files import config_of

if TYPE_CHECKING:
    import torch

    from shared.families.network import Network
    from shared.families.text import TextEncoder


class Flux(Family):
    """Black Forest Labs' FLUX.1, as diffusers has it: a rectified flow transformer (Esser et al.
    2024, arXiv 2403.03206).

    Guidance is what its config makes of it. A model with `guidance_embeds` was distilled: it is
    told the number, and has no use for a negative prompt. The others are guided as usual, by a
    second forward with the negative prompt (`true_cfg_scale` in `FluxPipeline`)."""

    pipeline = "FluxPipeline"
    denoiser = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2")
    lora_keys = {  # noqa: RUF012
        "transformer": ("transformer.", "lora_unet_", "lora_transformer_"),
        "text_encoder": ("text_encoder.", "lora_te_", "lora_te1_"),
    }
    control = None
    control_options = None
    options = TRANSFORMER
    classes = {  # noqa: RUF012
        "vae": "AutoencoderKL",
        "transformer": "FluxTransformer2DModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    }
    predictions = frozenset({"flow"})
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

    def numbers(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        return (guidance,) if self.embedded_guidance else ()

    def lora_state(self, path: Path) -> LoraState:
        # When needed: the mixin's module imports much of diffusers.
        from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin

        state, alphas, metadata = FluxLoraLoaderMixin.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            use_safetensors=True,  # else diffusers would try to unpickle what is none
            local_files_only=True,
            return_alphas=True,
            return_lora_metadata=True,
        )
        return state, {key: float(alpha) for key, alpha in (alphas or {}).items()}, metadata or {}

    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        from shared.families.flux.text import FluxTextEncoder

        return FluxTextEncoder(self.source, device, dtype)

    def network(self, device: str, dtype: torch.dtype) -> Network:
        from shared.families.flux.traced import traced
        from shared.families.flux.transformer import FluxTransformer

        return traced(FluxTransformer.load(self.source, dtype, device))
