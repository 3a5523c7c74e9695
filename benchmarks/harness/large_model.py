"""A model of realistic weight for measurements: the one that ships, with a far larger UNet.

What a ControlNet or a LoRA costs is told by weights and work, not by pictures, so all that is made
here is random, and nothing needs to be fetched. The text encoders and the autoencoder are those
that ship: the UNet is told the same embeddings. Every directory is a standard one of diffusers.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn

from shared.models.settings import CARD_FILE
from shared.shipped import DEFAULT_MODEL

LORA_LAYERS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""How the names of the layers end that a LoRA file of ours has weights for."""
LORA_STRENGTH: Final = 0.3
"""What such a LoRA adds to a layer's output, of what it gets: roughly, and at any rank."""
CONTROL_STRENGTH: Final = 0.02
"""Of the convolutions that are zero in a ControlNet that is not trained."""
_SHIPPED: Final = Path(DEFAULT_MODEL)
_AUTOENCODER_SCALE: Final = 8
_HALVINGS: Final = (16, 32, 96, 256)
"""Channels of a ControlNet's convolutions from pixels to latents: three halvings."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a UNet with three levels, the lower two of which have attention."""

    channels: tuple[int, int, int]
    transformers: tuple[int, int]
    """Transformer blocks in each of the lower levels' attention layers."""
    latent_side: int
    """Latents are square; pictures have 8 times as many pixels on a side."""


LARGE: Final = Size(channels=(192, 384, 704), transformers=(1, 2), latent_side=24)
"""Some 240 million parameters: a guided step takes about a second of one core."""
SMALL: Final = Size(channels=(32, 64, 96), transformers=(1, 2), latent_side=16)
"""To see whether a program works."""


def shipped_model(directory: Path) -> Path:
    """A copy of the model that ships, which is named as the directory is. Returns it."""
    shutil.copytree(_SHIPPED, directory)
    card = json.loads((_SHIPPED / CARD_FILE).read_text())
    (directory / CARD_FILE).write_text(json.dumps(card | {"name": directory.name}))
    return directory


def large_model(directory: Path, size: Size = LARGE, seed: int = 0) -> Path:
    """A diffusers directory of a model with a random UNet of `size`, float32. Returns it."""
    shutil.copytree(_SHIPPED, directory, ignore=lambda _, names: {"unet"} & set(names))
    torch.manual_seed(seed)
    diffusers.UNet2DConditionModel.from_config(_unet_config(size)).save_pretrained(
        directory / "unet"
    )
    card = json.loads((_SHIPPED / CARD_FILE).read_text())
    side = size.latent_side * _AUTOENCODER_SCALE
    card |= {f"{most}{side_of}": side for most in ("", "max_") for side_of in ("width", "height")}
    (directory / CARD_FILE).write_text(json.dumps(card | {"name": directory.name}))
    return directory


def controlnet(directory: Path, model: Path, seed: int = 0) -> Path:
    """A diffusers directory of a ControlNet for `model`: its UNet's encoder half, with random
    convolutions where a new one has zeros, so that it has an effect. Returns it."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(
        model / "unet", use_safetensors=True, low_cpu_mem_usage=False
    )
    torch.manual_seed(seed)
    control = diffusers.ControlNetModel.from_unet(
        unet,
        conditioning_embedding_out_channels=_HALVINGS,
    )
    for layer in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        nn.init.normal_(layer.weight, std=CONTROL_STRENGTH)
    nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight)
    control.save_pretrained(directory)
    return directory


def lora_file(path: Path, model: Path, nbytes: int, seed: int = 0) -> int:
    """Write a random LoRA for the UNet of `model` (PEFT's keys, float32) whose size comes as near
    to `nbytes` as a whole rank allows. Returns the rank."""
    sizes = lora_layers(model)
    rank = max(1, round(nbytes / 4 / sum(inner + outer for inner, outer in sizes.values())))
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, (inner, outer) in sizes.items():
        down = torch.randn(rank, inner, generator=generator) / inner**0.5
        up = torch.randn(outer, rank, generator=generator) * (LORA_STRENGTH / rank**0.5)
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return rank


def parameters(model: Path) -> int:
    """Of the UNet of `model`."""
    return sum(weight.numel() for weight in _empty_unet(model).parameters())


def _unet_config(size: Size) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_SHIPPED / "unet" / "config.json").read_text())
    return config | {
        "block_out_channels": list(size.channels),
        # By its old name the number of heads: each has 32 or 64 channels, as in large models.
        "attention_head_dim": [max(1, channels // 64) for channels in size.channels],
        "transformer_layers_per_block": [1, *size.transformers],
        "layers_per_block": 2,
        "norm_num_groups": 32 if size.channels[0] % 32 == 0 else 8,
        "sample_size": size.latent_side,
    }


def lora_layers(model: Path) -> dict[str, tuple[int, int]]:
    """(in, out) by the name of each layer."""
    return {
        name: (layer.in_features, layer.out_features)
        for name, layer in _empty_unet(model).named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(LORA_LAYERS)
    }


def _empty_unet(model: Path) -> nn.Module:
    """Without weights."""
    config = json.loads((model / "unet" / "config.json").read_text())
    with torch.device("meta"):
        unet: nn.Module = diffusers.UNet2DConditionModel.from_config(config)
    return unet
