"""Write pocket-flux in the standard diffusers layout, in half precision, never half of it."""

from pathlib import Path

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)

from pocket.train.flux.text import FluxText
from pocket.train.sdxl.export import defaults, halved, write

STEPS, SHIFT = 20, 1.5
GUIDANCE = 1.0  # true classifier-free guidance: at 1 a step is one forward


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
    half_vae, clip, t5, half_transformer = halved(vae, text.clip, text.t5, transformer)
    half_text = FluxText(text.tokenizer, clip, text.tokenizer_2, t5)
    pipeline = assemble_flux(half_vae, half_text, half_transformer)
    write(folder, pipeline, defaults("pocket-flux", "flow_euler", STEPS, GUIDANCE))
