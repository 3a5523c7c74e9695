"""Edits on a real fleet: those of diffusers, equal outside the mask, not lost by `kill -9`."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline
from PIL import Image

from pocket.captions import parse
from pocket.render import render
from shared.client import Darkroom, new_job_id
from shared.messages import GenerationRequest
from shared.shipped import DEFAULT_MODEL
from tests.conftest import run
from tests.e2e.helpers.running import RunningFleet
from tests.e2e.test_kills import largest_difference
from tests.helpers import pictures

BEFORE = "a large red circle left and a small blue square right on white"
AFTER = "a large green circle left and a small blue square right on white"
BOX = (0, 16, 72, 112)
INSIDE = np.zeros((128, 128), bool)
INSIDE[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True


def original() -> Image.Image:
    return Image.fromarray(render(parse(BEFORE), random.Random(3)))


def holes() -> Image.Image:
    return Image.fromarray(np.where(INSIDE, 255, 0).astype(np.uint8))


def request(masked: bool, **fields: Any) -> GenerationRequest:
    settings: dict[str, Any] = {
        "steps": 20,
        "guidance": 2.0,
        "seed": 5,
        "sampler": "euler",
    } | fields
    return GenerationRequest(
        job_id=new_job_id(),
        prompt=AFTER,
        negative_prompt="a red circle",
        image=pictures.file(original()),
        mask=pictures.file(pictures.mask(shown=BOX)) if masked else None,
        **settings,
    )


def with_diffusers(wanted: GenerationRequest) -> bytes:
    torch.set_num_threads(1)
    kind = StableDiffusionXLImg2ImgPipeline
    extra: dict[str, Any] = {}
    if wanted.mask is not None:
        kind = StableDiffusionXLInpaintPipeline
        extra = {"mask_image": holes(), "width": 128, "height": 128}
    pipeline = kind.from_pretrained(DEFAULT_MODEL, add_watermarker=False)
    pipeline.register_to_config(requires_aesthetics_score=False)
    pipeline.set_progress_bar_config(disable=True)
    assert wanted.seed is not None
    [image] = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        image=original(),
        strength=wanted.strength,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        generator=torch.Generator().manual_seed(wanted.seed),
        **extra,
    ).images
    if wanted.mask is not None:
        image = pipeline.image_processor.apply_overlay(holes(), original(), image)
    return pictures.file(image)


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def much_of(data: bytes, channel: int) -> int:
    """Pixels that the mask shows in which red (0) or green (1) is far above the other."""
    shown = pixels(data)[INSIDE].astype(int)
    return int((shown[:, channel] > shown[:, 1 - channel] + 60).sum())


def assert_equal_outside(data: bytes) -> None:
    assert (pixels(data)[~INSIDE] == np.asarray(original())[~INSIDE]).all()


def test_darkroom_edit_changes_what_the_mask_shows_and_nothing_else(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    original().save(tmp_path / "before.png")
    pictures.mask(shown=BOX).save(tmp_path / "mask.png")
    out = tmp_path / "after.png"
    options = ("--mask", str(tmp_path / "mask.png"), "--seed", "5", "--out", str(out), "--json")
    done = fleet.darkroom("edit", str(tmp_path / "before.png"), AFTER, *options)
    assert done.returncode == 0, done.stderr
    assert "encode_image" in json.loads(done.stdout)["stages"]
    assert_equal_outside(out.read_bytes())
    assert much_of(out.read_bytes(), 1) > 400 > much_of(pictures.file(original()), 1)
    assert much_of(out.read_bytes(), 0) < 100 < much_of(pictures.file(original()), 0)


def test_edits_are_those_of_diffusers_pipelines(fleet: RunningFleet) -> None:
    wanted = [
        request(True, strength=1.0),
        request(True, strength=0.6),
        request(False, strength=0.5),
    ]

    async def scenario() -> list[bytes]:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            jobs = [await darkroom.submit(one) for one in wanted]
            return [(await job.images())[0].data for job in jobs]

    for one, image in zip(wanted, run(scenario()), strict=True):
        assert largest_difference(image, with_diffusers(one)) <= 1


def test_an_edit_outlives_the_kills_of_all_that_work_on_it(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            [expected] = await (await darkroom.submit(request(True))).images()
            with fleet.hold("step-10@denoiser") as held:
                job = await darkroom.submit(request(True))
                await held.reached()
                fleet.kill("vae")
                fleet.kill("denoiser")
            [image] = await job.images()
            assert_equal_outside(image.data)
            assert largest_difference(image.data, expected.data) <= 1

    run(scenario())


def test_an_edit_outlives_the_kill_of_what_encodes_its_image(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold("write.before@vae") as held:
                job = await darkroom.submit(request(True))
                await held.reached()
                fleet.kill("vae")
            [image] = await job.images()
            assert_equal_outside(image.data)

    run(scenario())
