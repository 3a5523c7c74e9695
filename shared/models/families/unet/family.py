"""What the families of UNets have in common, and everybody without torch needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from shared.errors import Misconfigured
from shared.models.contracts.family import Family
from shared.models.contracts.makers import Wanted
from shared.models.contracts.options import whole
from shared.models.families.unet import makers
from shared.models.families.unet.lora_names import sgm_names
from shared.models.files.layers import Piece, clip_names

if TYPE_CHECKING:
    import torch

    from shared.models.contracts.controlnet import ControlNet
    from shared.models.contracts.network import Network

_INTERFACE: Final = (
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)


class UnetFamily(Family):
    """A convolutional network with cross-attention (arXiv 2112.10752), and ControlNets beside it
    (arXiv 2302.05543). A network with `time_cond_proj_dim` was distilled with its guidance in it
    (Luo et al. 2023, arXiv 2310.04378): it takes the number, and there is no second forward."""

    addition: ClassVar[str | None]
    """What its networks add to the time: their `addition_embed_type`."""

    denoiser = "unet"
    control = "ControlNetModel"
    predictions = frozenset(
        {"epsilon", "v_prediction", "sample", "edm_epsilon", "edm_v_prediction"}
    )
    patch = 1
    masks = False
    even_sigmas = False
    rounds_up = False

    @property
    def native_side(self) -> int:
        return whole("unet", self.config, "sample_size")

    @property
    def latent_channels(self) -> int:
        return whole("unet", self.config, "in_channels", 4)

    @property
    def embedded_guidance(self) -> bool:
        return self.config.get("time_cond_proj_dim") is not None

    @property
    def prompt_width(self) -> int:
        """Of what cross-attention sees."""
        return whole("unet", self.config, "cross_attention_dim", 1280)

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

    def scalars(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        """`sizes`, and the guidance, if the network takes it."""
        sizes = self.sizes(width, height)
        return (*sizes, guidance) if self.embedded_guidance else sizes

    def sizes(self, width: int, height: int) -> tuple[float, ...]:
        """The scalars that say how many pixels an image has."""
        return ()

    def wanted(self, names: Sequence[str]) -> Wanted | None:
        return makers.wanted(names, self.scheduler, self.embedded_guidance)

    def lora_names(self, part: str) -> Mapping[str, tuple[Piece, ...]]:
        layers = self.layers[part]
        return sgm_names(layers) if part == self.denoiser else clip_names(layers)

    def network(self, device: str, dtype: torch.dtype) -> Network:
        from shared.models.families.unet.traced import traced
        from shared.models.families.unet.unet import Unet

        return traced(Unet.load(self.source, dtype, device))

    @classmethod
    def control_interface(cls, config: Mapping[str, Any]) -> str | None:
        """What the UNet and a ControlNet take, and the sizes of what one adds to the other."""
        if config.get("addition_embed_type") != cls.addition:
            return None
        return " ".join(f"{name}={json.dumps(config.get(name))}" for name in _INTERFACE)

    @classmethod
    def control_network(cls, source: str, device: str, dtype: torch.dtype) -> ControlNet:
        from shared.models.families.unet.controlnet import UnetControlNet

        return UnetControlNet.load(source, dtype, device)
