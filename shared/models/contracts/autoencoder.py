"""Which autoencoder a family has, and what its latents are to the network. No torch here.

A network is trained on latents that are shifted and scaled, and each family's pipeline takes that
from other fields of the autoencoder's config. Here one `LatentSpace` says it for all of them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from shared.errors import Misconfigured
from shared.models.contracts.options import Options, number, same, whole
from shared.models.files.directory import read_json

FOLDER: Final = "vae"
STATISTICS: Final = ("latents_mean", "latents_std")
"""Options with a number for each channel."""


class LatentSpace(NamedTuple):
    """Latents as the network has them are (z - mean) · scaling / deviation, of the autoencoder's
    own z; `mean` and `deviation` have one number for all channels, or one for each."""

    channels: int
    scale: int
    """Pixels, each way, of a latent position."""
    scaling: float
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)


class AutoencoderKind(ABC):
    """The class of autoencoder that a family's models have in `vae/`."""

    options: ClassVar[Options]
    """Of its config, as far as they are honoured."""
    module: ClassVar[str]
    """Where diffusers has its class."""
    frames: ClassVar[bool]
    """Whether it is made for videos: an image is a video of one frame to it."""

    def check(self, config: Mapping[str, Any], channels: int, pipeline: str) -> None:
        """Raises `Misconfigured` if a config is not honoured by diffusers' `pipeline`, or does not
        fit a network whose images have so many `channels`."""
        self.options.check(FOLDER, config)
        self.refuse_ignored(config, pipeline)
        own = self.space(config).channels
        same("latent_channels of the autoencoder", own, "the network's images have", channels)
        for name in STATISTICS:
            if (values := config.get(name)) is not None:
                length = f"the length of the autoencoder's {name}"
                same(length, len(values), "latent_channels is", own)

    @abstractmethod
    def refuse_ignored(self, config: Mapping[str, Any], pipeline: str) -> None:
        """Raises `Misconfigured` if a config asks for what diffusers' `pipeline` leaves out."""

    @abstractmethod
    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        """Of one with this config. Raises `Misconfigured`."""

    def upcasts(self, config: Mapping[str, Any]) -> bool:
        """Whether one with this config overflows in float16."""
        return bool(config.get("force_upcast", True))

    def space_of(self, source: str) -> LatentSpace:
        """Of the model in directory or hub id `source`. Raises `Misconfigured`."""
        return self.space(read_json(source, FOLDER, "config.json"))


class ImageAutoencoder(AutoencoderKind):
    """diffusers' `AutoencoderKL`. Which of the numbers in its config count is a matter of the
    pipeline."""

    options = Options(
        "AutoencoderKL",
        frozenset(
            {
                "act_fn",
                "block_out_channels",
                "down_block_types",
                "force_upcast",
                "latent_channels",
                "latents_mean",
                "latents_std",
                "layers_per_block",
                "mid_block_add_attention",
                "norm_num_groups",
                "sample_size",
                "scaling_factor",
                "shift_factor",
                "up_block_types",
                "use_post_quant_conv",
                "use_quant_conv",
            }
        ),
        {"in_channels": (3,), "out_channels": (3,)},
    )
    module = "diffusers.models.autoencoders.autoencoder_kl"
    frames = False

    def __init__(self, *, shifts: bool = False, statistics: bool = False) -> None:
        """`shifts`: by `shift_factor`; `statistics`: by `latents_mean` and `latents_std`."""
        self._shifts, self._statistics = shifts, statistics

    def refuse_ignored(self, config: Mapping[str, Any], pipeline: str) -> None:
        ignored = () if self._shifts else ("shift_factor",)
        for name in ignored if self._statistics else (*ignored, *STATISTICS):
            if config.get(name):
                raise Misconfigured(
                    f"{FOLDER}/config.json: {name} is {json.dumps(config[name])}; honoured is "
                    f"null, for diffusers' {pipeline} takes no notice of it"
                )

    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        levels = config["block_out_channels"]
        if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
            raise Misconfigured(
                f"{FOLDER}/config.json: block_out_channels is {json.dumps(levels)}; "
                "honoured is a list of channels"
            )
        scaling = number(FOLDER, config, "scaling_factor", 0.18215)
        if scaling == 0.0:
            raise Misconfigured(
                f"{FOLDER}/config.json: scaling_factor is 0; honoured is any other number"
            )
        mean, deviation = self._normal(config)
        return LatentSpace(
            channels=whole(FOLDER, config, "latent_channels", 4),
            scale=2 ** (len(levels) - 1),
            scaling=scaling,
            mean=mean,
            deviation=deviation,
        )

    def _normal(self, config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What is taken from latents, and what the rest is divided by."""
        if self._shifts:
            return (number(FOLDER, config, "shift_factor"),), (1.0,)
        mean, deviation = (config.get(name) for name in STATISTICS)
        if (mean is None) != (deviation is None):
            raise Misconfigured(
                f"{FOLDER}/config.json: honoured are {' and '.join(STATISTICS)}, or neither"
            )
        if mean is None or deviation is None:
            return (0.0,), (1.0,)
        return tuple(mean), tuple(deviation)


class VideoAutoencoder(AutoencoderKind):
    """diffusers' `AutoencoderKLQwenImage`: made for videos, whose latents are normalised channel by
    channel."""

    options = Options(
        "AutoencoderKLQwenImage",
        frozenset(
            {
                "attn_scales",
                "base_dim",
                "dim_mult",
                "dropout",
                "latents_mean",
                "latents_std",
                "num_res_blocks",
                "temperal_downsample",
                "z_dim",
            }
        ),
        {"input_channels": (3,)},
    )
    module = "diffusers.models.autoencoders.autoencoder_kl_qwenimage"
    frames = True

    def refuse_ignored(self, config: Mapping[str, Any], pipeline: str) -> None:
        """Nothing is left out."""

    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        mean, deviation = (tuple(config[name]) for name in STATISTICS)
        return LatentSpace(
            channels=whole(FOLDER, config, "z_dim"),
            scale=2 ** len(config["temperal_downsample"]),
            scaling=1.0,
            mean=mean,
            deviation=deviation,
        )
