"""The add-ons that the model ships with: LoRAs, merged by hand, and ControlNets."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from pocket.paint import MODEL

LORAS = MODEL.parent / "loras"
CONTROLS = MODEL.parent / "controls"
PARTS = ("unet", "text_encoder", "text_encoder_2")
"""The parts of a pipeline that a LoRA may change."""

_LAYOUTS = ((".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight"))


def lora_name(part: str, module: str) -> str:
    """What a layer is called in LoRA files: with `text_model`, also where transformers has none."""
    if part != "unet" and not module.startswith("text_model."):
        module = f"text_model.{module}"
    return f"{part}.{module}"


def kohya_name(name: str) -> str:
    """The same layer in Kohya's spelling, e.g. `lora_unet_mid_block_attentions_0_..._to_q`."""
    part, _, module = name.partition(".")
    short = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}[part]
    return f"lora_{short}_{module.replace('.', '_')}"


def linear_layers(pipeline: StableDiffusionXLPipeline) -> dict[str, nn.Linear]:
    """Every layer that a LoRA may change, by its name in LoRA files."""
    return {
        lora_name(part, name): module
        for part in PARTS
        for name, module in getattr(pipeline, part).named_modules()
        if isinstance(module, nn.Linear)
    }


def deltas(path: Path) -> dict[str, Tensor]:
    """What a LoRA file adds to each layer's weight, (out, in) in float32, by the file's names.

    `alpha / rank * up @ down`; without an alpha it equals the rank.
    """
    tensors = load_file(path)
    found = {}
    for key in tensors:
        for down_end, up_end in _LAYOUTS:
            if key.endswith(down_end):
                name = key.removesuffix(down_end)
                down, up = tensors[key].float(), tensors[name + up_end].float()
                alpha = float(tensors.get(f"{name}.alpha", torch.tensor(len(down))))
                found[name] = alpha / len(down) * (up @ down)
    return found


@torch.no_grad()
def merge(pipeline: StableDiffusionXLPipeline, path: Path, weight: float = 1.0) -> None:
    """Add `weight` times a LoRA to the pipeline's own weights; the negative takes it out again.

    Raises KeyError for a layer that the pipeline does not have.
    """
    layers = linear_layers(pipeline)
    layers |= {kohya_name(name): layer for name, layer in layers.items()}
    for name, delta in deltas(path).items():
        layers[name].weight += weight * delta.to(layers[name].weight)


def controlled(
    pipeline: StableDiffusionXLPipeline, folder: Path
) -> StableDiffusionXLControlNetPipeline:
    """A pipeline of the same parts that follows a control, in float32."""
    parts: dict[str, Any] = pipeline.components
    both = StableDiffusionXLControlNetPipeline(
        **parts,
        controlnet=ControlNetModel.from_pretrained(folder, local_files_only=True),
        add_watermarker=False,
    )
    both.set_progress_bar_config(disable=True)
    return both
