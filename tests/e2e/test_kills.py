"""`kill -9` of each service while a job runs: the job still ends, once, with the same image."""

import io
import re
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image

from services.fleet.supervisor.forks import can_fork
from shared.client import Darkroom, new_job_id
from shared.messages import GenerationRequest, StepProgress
from tests.conftest import eventually, run, until
from tests.e2e.helpers.running import RunningFleet, checkpointed

STEPS = 40
PROMPT = "a large green star top and a small yellow ring right on black"


def request(steps: int = STEPS) -> GenerationRequest:
    return GenerationRequest(
        job_id=new_job_id(),
        prompt=PROMPT,
        steps=steps,
        seed=11,
        sampler="euler_ancestral",
        output_format="png",
    )


def largest_difference(first: bytes, second: bytes) -> int:
    """Of any pixel's channel, in steps of 1/255."""
    pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in (first, second)]
    return int(np.abs(pixels[0].astype(int) - pixels[1].astype(int)).max())


@pytest.fixture(scope="module")
def undisturbed(fleet: RunningFleet) -> bytes:
    """The picture of `request()` from a fleet that nobody harms."""

    async def scenario() -> bytes:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            job = await darkroom.submit(request())
            return (await job.images())[0].data

    return run(scenario())


PLACES = {
    "planner": "publish.before@planner",
    "prompt_encoder": "write.before@prompt_encoder",
    "vae": f"step-{STEPS // 2}@denoiser",
    "gateway": f"step-{STEPS // 2}@denoiser",
}
"""Service -> where somebody holds the job while that service is killed."""


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
def test_every_service_is_forked(fleet: RunningFleet) -> None:
    """What is executed keeps the name of the interpreter."""
    shown = {
        member.name: Path(f"/proc/{member.pid}/comm").read_text().strip()
        for member in fleet.state.members
    }
    assert shown == {name: name for name in shown}


@pytest.mark.parametrize("service", PLACES)
def test_a_job_outlives_the_kill_of_a_service_whose_restart_is_shown_and_its_image_is_the_same(
    fleet: RunningFleet, undisturbed: bytes, service: str
) -> None:
    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold(PLACES[service]) as held:
                job = await darkroom.submit(request())
                await held.reached()
                fleet.kill(service)
            (image,) = await job.images()
            assert largest_difference(image.data, undisturbed) <= 1

    before = fleet.member(service)
    run(scenario())
    until(lambda: fleet.member(service).state == "ready" and fleet.member(service) != before)
    now = fleet.member(service)
    assert now.restarts == before.restarts + 1
    shown = fleet.darkroom("status").stdout
    assert re.search(rf"{service}\W+{now.pid}\W+ready\W+{now.restarts}\b", shown), shown


def test_a_killed_denoiser_s_row_continues_from_its_checkpoint_to_the_same_image(
    fleet: RunningFleet, undisturbed: bytes
) -> None:
    async def scenario() -> list[int]:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold(f"step-{STEPS // 2}@denoiser") as held:
                job = await darkroom.submit(request())
                await held.reached()
                await checkpointed(darkroom, job.job_id, STEPS // 2)
                fleet.kill("denoiser")
            steps = [event.step async for event in job.events() if isinstance(event, StepProgress)]
            (image,) = await job.images()
            assert largest_difference(image.data, undisturbed) <= 1
            return steps

    steps = run(scenario())
    # It went on from the checkpoint: no step is taken twice.
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


def test_jobs_are_cancelled_while_they_run_and_hold_nothing_afterwards(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            with fleet.hold("step-1@denoiser") as held:
                job = await darkroom.submit(request())
                await held.reached()
                await job.cancel()
            record = await darkroom.job(job.job_id)
            assert record.status == "cancelled"
            await eventually(lambda: _no_slot_is_held(fleet))

    run(scenario())


async def _no_slot_is_held(fleet: RunningFleet) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"{fleet.http}/metrics") as answer:
        text = await answer.text()
    used = [line for line in text.splitlines() if line.startswith("darkroom_arena_used_bytes{")]
    assert used, "no service tells about its arena"
    return all(float(line.split()[-1]) == 0.0 for line in used)
