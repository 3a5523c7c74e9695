"""A model of another architecture on a real fleet: `darkroom up --model`, `models`, `render`."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shared.client import Darkroom, new_job_id
from shared.messages import GenerationRequest, JobDone
from tests.conftest import HANG_SECONDS, eventually, run, until
from tests.e2e.helpers.running import RunningFleet, checkpointed
from tests.e2e.test_kills import largest_difference
from tests.helpers import pictures
from tests.helpers.flux import Atelier, Wish, apart

MODEL = ("--model", "tiny-flux")
ASKED = (*MODEL, "--steps", "4", "--size", "64x64", "--json")


def picture(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy())


def test_what_it_is_stands_in_the_lists_of_models(fleet: RunningFleet) -> None:
    listed = fleet.darkroom("models").stdout
    assert "tiny-flux" in listed
    assert "flow_euler" in listed
    with urllib.request.urlopen(f"{fleet.http}/v1/models", timeout=HANG_SECONDS) as answer:
        assert "tiny-flux" in [model["id"] for model in json.load(answer)["data"]]


def test_its_pictures_are_those_of_the_pipeline(
    fleet: RunningFleet, atelier: Atelier, tmp_path: Path
) -> None:
    plain = Wish(seed=11)
    guided = Wish(seed=12, guidance=5.0, negative="a blur", sampler="flow_dpmpp_2m")
    for wish, options in (
        (plain, ()),
        (guided, ("--guidance", "5", "--negative", "a blur", "--sampler", "flow_dpmpp_2m")),
    ):
        out = tmp_path / f"{wish.seed}.png"
        done = fleet.darkroom(
            "render", wish.prompt, *ASKED, *options, "--seed", str(wish.seed), "--out", str(out)
        )
        assert done.returncode == 0, done.stderr
        assert apart(picture(out), atelier.expected(wish)) <= 1


@pytest.mark.parametrize(
    ("options", "named"),
    [(("--size", "72x64"), "multiple of 16"), (("--sampler", "euler"), "one of flow_euler")],
)
def test_what_it_cannot_do_is_refused_with_what_it_can(
    fleet: RunningFleet, options: tuple[str, ...], named: str
) -> None:
    done = fleet.darkroom("render", "a red cube", *MODEL, *options)
    assert done.returncode == 2
    assert named in done.stderr


def test_a_later_edit_with_cached_masks_says_what_it_left_out(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(pictures.file(pictures.picture((64, 64))))
    mask.write_bytes(pictures.file(pictures.mask((64, 64), (0, 0, 16, 32))))

    def edited(prompt: str) -> Any:
        done = fleet.darkroom(
            *("edit", str(image), prompt, "--mask", str(mask), "--mask-mode", "cached"),
            *(*MODEL, "--steps", "4", "--seed", "3", "--json", "--out", str(tmp_path / "out.png")),
        )
        assert done.returncode == 0, done.stderr
        out = picture(tmp_path / "out.png")
        assert torch.equal(out[32:], picture(image)[32:])
        return json.loads(done.stdout)["approximations"]

    assert edited("a red cube") == []

    def later() -> bool:  # an activation cache is written behind its edit
        found = edited("a blue cube")
        assert found in ([], ["mask_cached: image 0, 0.12 of tokens, 4 of steps 1 to 4"])
        return bool(found)

    until(later)


def test_a_cached_edit_outlives_the_kill_of_its_denoiser(fleet: RunningFleet) -> None:
    shown = (16, 0, 64, 48)

    def request(seed: int) -> GenerationRequest:
        return GenerationRequest(
            job_id=new_job_id(),
            model="tiny-flux",
            prompt="a red cube",
            steps=20,
            seed=seed,
            image=pictures.file(pictures.picture((64, 64), seed=5)),
            mask=pictures.file(pictures.mask((64, 64), shown)),
            mask_mode="cached",
        )

    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:

            async def whole() -> bool:
                job = await darkroom.submit(request(1))
                done, [image] = await job.outcome(), await job.images()
                assert isinstance(done, JobDone)
                expected[:] = [image.data]
                return bool(done.approximations)

            expected: list[bytes] = []
            await eventually(whole)  # an activation cache is written behind its edit
            with fleet.hold("step-10@denoiser") as held:
                job = await darkroom.submit(request(1))
                await held.reached()
                await checkpointed(darkroom, job.job_id, 10)
                fleet.kill("denoiser")
            done, [image] = await job.outcome(), await job.images()
            assert isinstance(done, JobDone)
            assert len(done.approximations) == 2  # of the steps until its checkpoint, and after it
            assert all("mask_cached" in said for said in done.approximations)
            assert largest_difference(image.data, expected[0]) <= 1

    run(scenario())
