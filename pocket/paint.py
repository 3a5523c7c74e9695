"""Paint captions with a pipeline and judge the pictures by the verifier."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FluxPipeline

from pocket.captions import paraphrase
from pocket.scenes import SIDE, Scene, held_out_scenes
from pocket.verify import accuracy, read, score

MODEL = Path(__file__).parent / "models" / "pocket-sdxl"
FLUX = MODEL.with_name("pocket-flux")


def load(folder: Path = MODEL, device: str = "cpu") -> Any:
    """A model in float32, through plain diffusers: the pipeline that its index names."""
    index = json.loads((folder / "model_index.json").read_text())
    plain = {"add_watermarker": False} if "XL" in index["_class_name"] else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **plain).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(
    pipeline: DiffusionPipeline,
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
            generator=generators,
            output_type="np",
            **_guided(pipeline, guidance, len(part)),
            **followed,
        ).images
        images += list((painted * 255).round().astype(np.uint8))
    return images


def _guided(pipeline: DiffusionPipeline, guidance: float, count: int) -> dict[str, Any]:
    """Classifier-free guidance, in the words of each family. FLUX has to be told its sizes, too."""
    if not isinstance(pipeline, FluxPipeline):
        return {"guidance_scale": guidance}
    return {
        "true_cfg_scale": guidance,
        "negative_prompt": [""] * count if guidance > 1 else None,
        "max_sequence_length": pipeline.tokenizer_2.model_max_length,
        "height": SIDE,
        "width": SIDE,
    }


def held_out_accuracy(
    pipeline: DiffusionPipeline, *, steps: int, guidance: float, count: int = 32
) -> dict[str, float]:
    """Attribute accuracy on held-out captions other than the benchmark's."""
    rng, scenes = random.Random(1), held_out_scenes(count, seed=1)
    captions = [paraphrase(scene, rng) for scene in scenes]
    images = paint(pipeline, captions, steps=steps, guidance=guidance, batch=count)
    return {f"accuracy_{kind}": share for kind, share in judge(scenes, images).items()}


def judge(scenes: list[Scene], images: list[np.ndarray]) -> dict[str, float]:
    """The share of right attributes, by kind and under `all`."""
    return accuracy([score(s, read(i)) for s, i in zip(scenes, images, strict=True)])
