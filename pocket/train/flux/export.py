"""Write pocket-flux in the standard diffusers layout, in half precision, never half of it."""

import copy
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)

from pocket.scenes import SIDE
from pocket.train.flux.text import FluxText
from pocket.train.sdxl.export import write

STEPS, GUIDANCE, SHIFT = 20, 1.0, 1.5
DEFAULTS: dict[str, object] = {
    "name": "pocket-flux",
    "steps": STEPS,
    "guidance": GUIDANCE,  # true classifier-free guidance: at 1 a step is one forward
    "sampler": "flow_euler",
    "width": SIDE,
    "height": SIDE,
    "max_width": SIDE,
    "max_height": SIDE,
}


def assemble_flux(
    vae: AutoencoderKL, text: FluxText, transformer: FluxTransformer2DModel
) -> FluxPipeline:
    """The parts as one pipeline."""
    pipeline = FluxPipeline(
        vae=vae,
        text_encoder=text.clip,
        tokenizer=text.tokenizer,
        text_encoder_2=text.t5,
        tokenizer_2=text.tokenizer_2,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export_flux(
    folder: Path, vae: AutoencoderKL, text: FluxText, transformer: FluxTransformer2DModel
) -> None:
    """Write the parts to `folder`, whole files at a time, so that a reader never sees half."""
    parts = (vae, text.clip, text.t5, transformer)
    halves = [copy.deepcopy(part).cpu().half() for part in parts]
    halved = FluxText(text.tokenizer, halves[1], text.tokenizer_2, halves[2])
    write(folder, assemble_flux(halves[0], halved, halves[3]), DEFAULTS)
