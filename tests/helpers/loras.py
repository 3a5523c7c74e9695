"""Random LoRA files in the forms that people have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import nn

Form = Literal["peft", "diffusers", "kohya"]
_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
STRENGTH = 0.3


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the weights that LoRAs may change, by layer."""
    named = network.named_modules()
    return {n: tuple(m.weight.shape) for n, m in named if isinstance(m, nn.Linear | nn.Conv2d)}


def biased_of(network: nn.Module) -> frozenset[str]:
    """The layers that have a bias."""
    return frozenset(n for n, m in network.named_modules() if getattr(m, "bias", None) is not None)


def write_lora(
    path: Path,
    networks: Mapping[str, nn.Module],
    form: Form = "peft",
    *,
    rank: int = 3,
    alpha: float | None = None,
    endings: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "fc1"),
    seed: int = 0,
) -> Path:
    """A LoRA for all layers of `networks` (by part) whose names end so. Only kohya's form can tell
    an `alpha`."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for part, network in networks.items():
        for name, layer in network.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d) or not name.endswith(endings):
                continue
            kernel = layer.weight.shape[2:]
            down = torch.randn(rank, layer.weight.shape[1], *kernel, generator=generator)
            up = torch.randn(layer.weight.shape[0], rank, *[1] * len(kernel), generator=generator)
            down_key, up_key = _keys(part, name, form)
            tensors[down_key] = STRENGTH * down / layer.weight.shape[1] ** 0.5
            tensors[up_key] = STRENGTH * up
            if alpha is not None:
                tensors[down_key.replace("lora_down.weight", "alpha")] = torch.tensor(alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _keys(part: str, layer: str, form: Form) -> tuple[str, str]:
    """Of down and up."""
    if form == "kohya":
        if part != "unet" and not layer.startswith("text_model."):
            layer = f"text_model.{layer}"
        base = f"{_KOHYA[part]}_{layer.replace('.', '_')}"
        return f"{base}.lora_down.weight", f"{base}.lora_up.weight"
    base = f"{part}.{layer}"
    if form == "peft":
        return f"{base}.lora_A.weight", f"{base}.lora_B.weight"
    return f"{base}.lora.down.weight", f"{base}.lora.up.weight"
