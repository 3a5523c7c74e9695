"""The shipped models: standard diffusers directories, which paint what they are told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocket.captions import parse
from pocket.paint import FLUX, MODEL, judge, load, paint
from pocket.verify import read

DEMO = "a large red circle left and a small blue square right on white"
CAPTIONS = [
    DEMO,
    "a big red circle on the left and a little blue box on the right on a white background",
    "on navy, top: tiny yellow star, center: large pink ring, bottom: tiny green cross",
    "a large cyan triangle in the middle on black",
]
LARGEST_TOTAL = 60 * 10**6  # bytes of all pocket weights, add-ons included


@pytest.fixture(scope="module", params=[MODEL, FLUX], ids=["sdxl", "flux"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return load(folder)


def test_the_weights_are_safetensors_in_half_precision_and_small() -> None:
    files = [path for path in MODEL.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_TOTAL
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt"}


def test_the_pipeline_loads_in_float32_without_being_told(pipeline: Any) -> None:
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert len(parts) == 4
    assert {part.dtype for part in parts} == {torch.float32}
    assert pipeline.vae_scale_factor == 8


def test_it_paints_the_demo_prompt_and_other_captions_as_told(pipeline: Any, folder: Path) -> None:
    settings = json.loads((folder / "darkroom.json").read_text())
    images = paint(pipeline, CAPTIONS, steps=settings["steps"], guidance=settings["guidance"])
    scenes = [parse(caption) for caption in CAPTIONS]
    assert images[0].shape == (settings["height"], settings["width"], 3)
    assert (read(images[0]).items, read(images[0]).background) == (scenes[0].items, "white")
    assert judge(scenes, images)["all"] >= 0.95


def test_seeds_give_different_pictures_and_the_same_seed_the_same(pipeline: Any) -> None:
    first, again, other = (
        paint(pipeline, [DEMO], steps=6, guidance=4.0, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
