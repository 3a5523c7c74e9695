"""Paint captions with a pipeline and judge the pictures by the verifier."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from pocket.scenes import Scene
from pocket.verify import accuracy, read, score

MODEL = Path(__file__).parent / "models" / "pocket-sdxl"


def load(folder: Path = MODEL, device: str = "cpu") -> StableDiffusionXLPipeline:
    """The shipped model in float32, through plain diffusers."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, local_files_only=True, add_watermarker=False
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(
    pipeline: StableDiffusionXLPipeline,
    captions: list[str],
    *,
    steps: int,
    guidance: float,
    seed: int = 0,
    batch: int = 20,
    hints: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """One picture a caption, (128, 128, 3) bytes; caption n has the seed `seed + n`.

    `hints`, one a caption, (128, 128, 3) and 0 to 1, are for a pipeline with a control.
    """
    images: list[np.ndarray] = []
    for start in range(0, len(captions), batch):
        part = captions[start : start + batch]
        generators = [
            torch.Generator("cpu").manual_seed(seed + start + n) for n in range(len(part))
        ]
        followed = {"image": hints[start : start + batch]} if hints else {}
        painted = pipeline(
            prompt=part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
            **followed,
        ).images
        images += list((painted * 255).round().astype(np.uint8))
    return images


def judge(scenes: list[Scene], images: list[np.ndarray]) -> dict[str, float]:
    """The share of right attributes, by kind and under `all`."""
    return accuracy([score(s, read(i)) for s, i in zip(scenes, images, strict=True)])
