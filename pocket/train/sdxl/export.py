"""Write the standard diffusers directory layout, in half precision, never half of it."""

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTokenizer

from pocket.scenes import SIDE
from pocket.train.sdxl.text import TextEncoders
from pocket.train.sdxl.tokenizer import write_tokenizer

STEPS, GUIDANCE = 25, 2.0


def build_scheduler() -> EulerDiscreteScheduler:
    """SDXL's noise levels; trailing steps, so that sampling starts at the highest."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def assemble(
    vae: AutoencoderKL, text: TextEncoders, unet: UNet2DConditionModel
) -> StableDiffusionXLPipeline:
    """The parts as one pipeline; zeros stand for no prompt, as in SDXL's base model."""
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text.first,
        text_encoder_2=text.second,
        tokenizer=text.tokenizer,
        tokenizer_2=text.tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(
    folder: Path, vae: AutoencoderKL, text: TextEncoders, unet: UNet2DConditionModel
) -> None:
    """Write the parts to `folder`."""
    half_vae, first, second, half_unet = halved(vae, text.first, text.second, unet)
    pipeline = assemble(half_vae, TextEncoders(text.tokenizer, first, second), half_unet)
    write(folder, pipeline, defaults("pocket-sdxl", "euler", STEPS, GUIDANCE))


def halved(*parts: Any) -> list[Any]:
    """Copies in half precision: training goes on with the parts themselves."""
    return [copy.deepcopy(part).cpu().half() for part in parts]


def defaults(name: str, sampler: str, steps: int, guidance: float) -> dict[str, object]:
    """What a request gets that says nothing; see `shared/models/settings.py`."""
    sides = ("width", "height", "max_width", "max_height")
    told = {"name": name, "steps": steps, "guidance": guidance, "sampler": sampler}
    return {**told, **dict.fromkeys(sides, SIDE)}


def write(folder: Path, pipeline: DiffusionPipeline, defaults: dict[str, object]) -> None:
    """Write a pipeline to `folder`, whole files at a time, so that a reader never sees half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name)
        pipeline.save_pretrained(fresh)
        for part in ("text_encoder", "text_encoder_2"):
            _load_as_float32(fresh / part / "config.json")
        for part in ("tokenizer", "tokenizer_2"):
            if isinstance(getattr(pipeline, part), CLIPTokenizer):
                write_tokenizer(fresh / part)  # adds vocab.json and merges.txt, for other readers
        (fresh / "darkroom.json").write_text(json.dumps(defaults, indent=2) + "\n")
        for path in sorted(path for path in fresh.rglob("*") if path.is_file()):
            target = folder / path.relative_to(fresh)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _load_as_float32(config: Path) -> None:
    """transformers loads in the precision that the config names, diffusers in float32.

    Unless told otherwise; then a UNet in float32 would meet text in float16, and refuse it.
    """
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"dtype": "float32"}, indent=2) + "\n")
