"""Pictures steered by ControlNets on a real fleet, and `kill -9` of those while they are asked."""

import io
import random
from pathlib import Path

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import (
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

from pocket.captions import parse
from pocket.hints import HINTS
from pocket.render import lay_out, to_bytes
from shared.client import Darkroom, new_job_id
from shared.messages import ControlChoice, GenerationRequest, JobDone
from shared.shipped import DEFAULT_CONTROLS, DEFAULT_MODEL
from tests.conftest import run
from tests.e2e.helpers.running import RunningFleet
from tests.e2e.test_kills import largest_difference

PROMPT = "a large red circle left and a small blue square right on white"
GUIDANCE = 5.0


def hint(kind: str) -> bytes:
    layout = lay_out(parse(PROMPT), random.Random(3))
    file = io.BytesIO()
    Image.fromarray(to_bytes(HINTS[kind](layout) * 255)).save(file, "PNG")
    return file.getvalue()


def request(*kinds: str, steps: int = 20, **fields: object) -> GenerationRequest:
    return GenerationRequest(
        job_id=new_job_id(),
        prompt=PROMPT,
        negative_prompt="a green star on black",
        steps=steps,
        guidance=GUIDANCE,
        seed=11,
        sampler="euler",
        controls=tuple(
            ControlChoice(model=kind, image=hint(kind), scale=1.0 - 0.3 * k)
            for k, kind in enumerate(kinds)
        ),
        **fields,  # type: ignore[arg-type]
    )


async def drawn(darkroom: Darkroom, wanted: GenerationRequest) -> tuple[bytes, JobDone]:
    job = await darkroom.submit(wanted)
    (image,) = await job.images()
    done = await job.outcome()
    assert isinstance(done, JobDone)
    return image.data, done


def with_diffusers(wanted: GenerationRequest) -> bytes:
    torch.set_num_threads(1)
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(
        DEFAULT_MODEL,
        controlnet=[
            ControlNetModel.from_pretrained(Path(DEFAULT_CONTROLS) / one.model)
            for one in wanted.controls
        ],
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    assert wanted.seed is not None
    [image] = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        image=[Image.open(io.BytesIO(one.image)) for one in wanted.controls],
        controlnet_conditioning_scale=[one.scale for one in wanted.controls],
        num_inference_steps=wanted.steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(wanted.seed),
    ).images
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def undisturbed(fleet: RunningFleet) -> bytes:
    """The picture of `request("edges")` from a fleet that nobody harms."""

    async def scenario() -> bytes:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            return (await drawn(darkroom, request("edges")))[0]

    return run(scenario())


def test_two_controls_give_the_image_of_diffusers_pipeline(fleet: RunningFleet) -> None:
    wanted = request("edges", "blocks")

    async def scenario() -> tuple[bytes, bytes]:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            image, done = await drawn(darkroom, wanted)
            assert done.approximations == []
            plain, _ = await drawn(darkroom, request())
            return image, plain

    image, plain = run(scenario())
    assert largest_difference(image, with_diffusers(wanted)) <= 1
    assert largest_difference(image, plain) > 50


def test_a_lagging_control_is_named_in_the_result(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            _, done = await drawn(darkroom, request("edges", control_lag=1))
            assert done.approximations == ["control_lag edges: image 0"]

    run(scenario())


def test_a_job_outlives_the_kill_of_its_controlnet_and_its_image_is_the_same(
    fleet: RunningFleet, undisturbed: bytes
) -> None:
    """There is one replica: the row waits until it was started again. A job without controls is
    done meanwhile."""

    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold("step-8@denoiser") as held:
                job = await darkroom.submit(request("edges"))
                await held.reached()
                fleet.kill("controlnet")
            await drawn(darkroom, request())
            (image,) = await job.images()
            assert largest_difference(image.data, undisturbed) <= 1

    run(scenario())


def test_a_picture_whose_arena_is_gone_is_embedded_again(
    fleet: RunningFleet, undisturbed: bytes
) -> None:
    """Its ControlNet is killed in the middle of the row, and so is what it had embedded."""

    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold("step-8@denoiser") as held:
                job = await darkroom.submit(request("edges"))
                await held.reached()
                arenas = list(fleet.arenas.glob(f"*{fleet.member('controlnet').pid}*"))
                fleet.kill("controlnet")
                for arena in arenas:
                    arena.unlink()
            assert arenas
            (image,) = await job.images()
            record = await darkroom.job(job.job_id)
            assert record.nodes["hint-0"].attempt >= 2
            assert largest_difference(image.data, undisturbed) <= 1

    run(scenario())
