"""LoRA in forty lines: low-rank additions to frozen linear layers, and how they are written."""

import math
import os
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from pocket.addons import kohya_name, linear_layers

_ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
_FEED_FORWARD = (".ff.net.0.proj", ".ff.net.2")
_TEXT = (".q_proj", ".k_proj", ".v_proj", ".out_proj")


class Lora(nn.Module):
    """alpha / rank * up(down(x)), zero before training. https://arxiv.org/abs/2106.09685"""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What to add to the frozen layer's output at input `x`."""
        added: Tensor = self.up(self.down(x))
        return self.scale * added


class Adapters(nn.Module):
    """One LoRA: an addition to each of the layers that `targets` names."""

    def __init__(self, layers: dict[str, nn.Linear], rank: int, alpha: float) -> None:
        super().__init__()
        self.names = tuple(layers)
        self.alpha = alpha
        self.loras = nn.ModuleList([Lora(layer, rank, alpha) for layer in layers.values()])

    def attach(self, layers: dict[str, nn.Linear]) -> None:
        """Let every layer's output include the addition from now on."""
        for layer, lora in zip(layers.values(), self.loras, strict=True):
            layer.register_forward_hook(lambda _, args, out, lora=lora: out + lora(args[0]))

    def tensors(self, kohya: bool) -> dict[str, Tensor]:
        """What a file holds, in half precision: diffusers' (PEFT's) names, or Kohya's."""
        down, up = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        out = {}
        for plain, lora in zip(self.names, self.loras, strict=True):
            assert isinstance(lora, Lora)
            name = kohya_name(plain) if kohya else plain
            out[f"{name}.{down}.weight"] = lora.down.weight.detach().half().cpu().contiguous()
            out[f"{name}.{up}.weight"] = lora.up.weight.detach().half().cpu().contiguous()
            if kohya:
                out[f"{name}.alpha"] = torch.tensor(self.alpha).half()
        return out


def targets(pipeline: StableDiffusionXLPipeline, with_text: bool) -> dict[str, nn.Linear]:
    """The attention and feed-forward layers of the UNet, and on request the text attention."""
    ends = _ATTENTION + _FEED_FORWARD
    return {
        name: layer
        for name, layer in linear_layers(pipeline).items()
        if (name.endswith(ends) if name.startswith("unet.") else with_text and name.endswith(_TEXT))
    }


def write_lora(path: Path, adapters: Adapters, kohya: bool) -> None:
    """Replace the file at `path`, never leaving half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    save_file(adapters.tensors(kohya), fresh, metadata={"format": "pt"})
    os.replace(fresh, path)
