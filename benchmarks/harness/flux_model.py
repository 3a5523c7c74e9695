"""Transformers of FLUX's shape with random weights, and a model that has one.

What a step costs is told by its tokens and channels, not by pictures, so the transformer is random,
and large enough for its arithmetic to dominate. So is the autoencoder, and thin: in FLUX it takes
some hundredth of the time of a picture, as long as pictures of 1,024 tokens would keep that of a
model in miniature for a tenth. Everything else is another model's, which is told the same prompts.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

from shared.errors import Misconfigured
from shared.models.families.registry import family_of
from shared.models.settings import CARD_FILE
from shared.shipped import DEFAULT_MODEL

THIN: Final = 8
"""Channels on each level of the autoencoder."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a transformer: attention heads, channels of each, and blocks of both kinds."""

    heads: int
    head: int
    doubles: int
    singles: int


def random_transformer(
    shape: Shape, conditioning: Mapping[str, Any], seed: int = 0
) -> FluxTransformer2DModel:
    """`conditioning`: what else its config says, of what it is told and of latents."""
    torch.manual_seed(seed)
    side = 3 * shape.head // 8
    return FluxTransformer2DModel(
        **conditioning,
        num_layers=shape.doubles,
        num_single_layers=shape.singles,
        attention_head_dim=shape.head,
        num_attention_heads=shape.heads,
        axes_dims_rope=(shape.head - 2 * side, side, side),
    )


def flux_model(directory: Path, base: str, shape: Shape, pixels: int, seed: int = 0) -> Path:
    """A diffusers directory of a model with a random transformer of `shape`, for pictures of
    `pixels` x `pixels`, float32; what is not random is that of the model in the directory `base`.
    Returns it. Raises `Misconfigured` if `base` is no FLUX."""
    family = family_of(base)
    if family.pipeline != "FluxPipeline":
        raise Misconfigured(f"--model {base!r} is a {family.pipeline}, not a FluxPipeline")
    random = {"transformer", "vae"}
    shutil.copytree(base, directory, ignore=lambda _, names: random & set(names))
    names = ("in_channels", "joint_attention_dim", "pooled_projection_dim", "guidance_embeds")
    config = {name: family.config[name] for name in names}
    random_transformer(shape, config, seed).save_pretrained(directory / "transformer")
    _thin(Path(base) / "vae").save_pretrained(directory / "vae")
    file = directory / CARD_FILE
    card = json.loads(file.read_text()) if file.is_file() else {}
    card |= {f"{most}{side}": pixels for most in ("", "max_") for side in ("width", "height")}
    file.write_text(json.dumps(card | {"name": directory.name}))
    return directory


def _thin(folder: Path) -> AutoencoderKL:
    """A random autoencoder for the same latents as the one in `folder`."""
    config = json.loads((folder / "config.json").read_text())
    channels = [THIN] * len(config["block_out_channels"])
    return AutoencoderKL.from_config(
        config | {"block_out_channels": channels, "norm_num_groups": 1}
    )


MODEL: Final = str(Path(DEFAULT_MODEL).with_name("pocket-flux"))
"""The model that ships and whose masks can be cached."""
