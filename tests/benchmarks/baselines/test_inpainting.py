"""Edits as diffusers' inpaint pipelines draw them, and a random FLUX to measure them with."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.baselines.batching import Policy
from benchmarks.baselines.drawing import drawing
from benchmarks.baselines.inpainting import EditJob, edit_job
from benchmarks.baselines.pipeline import LAYOUTS, Pipeline, Setup, compatible
from benchmarks.baselines.processes import drawn, pipeline_processes, tried
from benchmarks.harness.flux_model import Shape, flux_model
from shared.errors import Misconfigured
from shared.media.masks import read_mask
from shared.media.reader import read_image
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.shipped import DEFAULT_MODEL
from tests.conftest import run
from tests.helpers import pictures
from tests.helpers.flux import make_flux

# ------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_flux(tmp_path_factory.mktemp("models") / "flux")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_catalogue_has_a_random_flux_with_its_own_size(flux: str, tmp_path: Path) -> None:
    model = str(flux_model(tmp_path / "large", flux, Shape(2, 16, 1, 1), 96))
    card = Catalogue.load([model]).default
    assert (card.name, card.default_width, card.max_height, card.masks) == ("large", 96, 96, True)
    config, before = family_of(model).config, family_of(flux).config
    assert (config["num_layers"], config["num_single_layers"]) == (1, 1)
    assert config["joint_attention_dim"] == before["joint_attention_dim"]
    [picture] = Pipeline(model, Setup(1)).draw([edit_job(wish(96), Catalogue.load([model]))])
    assert picture.shape == (96, 96, 3)


def test_what_is_no_flux_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not a FluxPipeline"):
        flux_model(tmp_path / "large", DEFAULT_MODEL, Shape(2, 16, 1, 1), 96)


# -------------------------------------------------------------------------------------------- edits


def wish(pixels: int, seed: int = 0, **fields: Any) -> GenerationRequest:
    box = (pixels // 4, pixels // 4, pixels // 2, pixels // 4 * 3 - 16 * (seed % 2))
    size = (pixels, pixels)
    return GenerationRequest(
        job_id="test",
        prompt="a red cube",
        steps=2,
        seed=seed,
        image=pictures.file(pictures.picture(size, seed=seed)),
        mask=pictures.file(pictures.mask(size, box)),
        **fields,
    )


def jobs(model: str, *wanted: GenerationRequest) -> list[EditJob]:
    catalogue = Catalogue.load([model])
    return [edit_job(request, catalogue) for request in wanted]


def kept_pixels(picture: torch.Tensor, request: GenerationRequest) -> bool:
    assert request.image is not None
    assert request.mask is not None
    original = np.asarray(Image.open(io.BytesIO(request.image)).convert("RGB"))
    holes = np.asarray(read_mask(read_image("mask", request.mask))) > 0
    changed = (picture.numpy() != original).any(axis=2)
    return bool(changed[holes].mean() > 0.5 and not changed[~holes].any())


@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_edits_that_share_a_call_are_those_they_would_be_alone(family: str, flux: str) -> None:
    model, pixels = (flux, 64) if family == "flux" else (DEFAULT_MODEL, 128)
    wanted = [wish(pixels, seed=0), wish(pixels, seed=1)]
    pipeline, both = Pipeline(model, Setup(1)), jobs(model, *wanted)
    together = pipeline.draw(both)
    for picture, job, request in zip(together, both, wanted, strict=True):
        [alone] = pipeline.draw([job])
        assert (picture.int() - alone.int()).abs().max() <= 1
        assert kept_pixels(picture, request)


def test_an_edit_without_a_mask_is_refused(flux: str) -> None:
    with pytest.raises(ValueError, match="no mask"):
        jobs(flux, GenerationRequest(job_id="test", prompt="a", image=wish(64).image))


def test_edits_of_another_strength_are_drawn_apart(flux: str) -> None:
    one, same, other = jobs(flux, wish(64), wish(64, seed=1), wish(64, strength=0.5))
    assert compatible(one) == compatible(same) != compatible(other)


def test_pipelines_in_processes_draw_from_one_queue_what_one_would_draw(flux: str) -> None:
    wanted = jobs(flux, *(wish(64, seed=seed) for seed in range(3)))
    expected = Pipeline(flux, Setup(1)).draw(wanted)

    async def check() -> list[list[bytes]]:
        async with pipeline_processes(flux, 2, threads=1) as processes:
            loop = asyncio.get_running_loop()
            layout, seconds = await loop.run_in_executor(processes[0], tried, [wanted[:1]], 1)
            assert layout in LAYOUTS
            assert len(seconds) == 1
            async with drawing(drawn, processes, Policy(max_batch=2, window=0.0)) as queue:
                return await asyncio.gather(*(queue.images("test", job) for job in wanted))

    for [data], pixels in zip(run(check()), expected, strict=True):
        found = np.asarray(Image.open(io.BytesIO(data)))
        assert np.abs(found.astype(int) - pixels.numpy().astype(int)).max() <= 1
