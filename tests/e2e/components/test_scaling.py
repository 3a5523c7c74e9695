"""Placement says how many processes a fleet has, and the fleet follows, whoever of those that place
is there."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Final

import pytest

from shared.bus.base import Message
from shared.bus.nats import connect
from shared.bus.service import data_of
from shared.client import Darkroom, new_job_id
from shared.messages import GenerationRequest, JobCancelled, JobDone
from tests.conftest import eventually, run
from tests.e2e.helpers.running import RunningFleet, running_fleet

JOBS: Final = 200


@pytest.fixture(scope="module")
def scaled() -> Iterator[RunningFleet]:
    """It begins with one denoiser, may have two, and has two that place."""
    replicas = ("--replicas", "denoiser=1", "--replicas", "placement=2")
    with running_fleet("--max-processes", "denoiser=2", replicas=replicas) as found:
        yield found


def denoisers(fleet: RunningFleet) -> list[str]:
    """Those that are ready."""
    return [
        member.name
        for member in fleet.state.members
        if member.name.startswith("denoiser") and member.state == "ready"
    ]


async def active(fleet: RunningFleet) -> list[int]:
    """Process ids of those that hold the lease of placement."""
    bus = await connect(fleet.nats_url, "test")
    try:
        answers = await bus.gather("$SRV.STATS", b"", 0.3)
    finally:
        await bus.close()
    pids = [json.loads(answer.data)["metadata"]["pid"] for answer in answers if _holds(answer)]
    return list(map(int, pids))


def _holds(answer: Message) -> bool:
    return data_of(answer).get("active") is True


def test_a_fleet_grows_with_what_waits_though_whoever_places_is_killed(
    scaled: RunningFleet,
) -> None:
    """So much waits that a machine of any speed has not done it before."""

    async def scenario() -> None:
        async def somebody_places() -> bool:
            return len(await active(scaled)) == 1

        async def another_one_places() -> bool:
            found = await active(scaled)
            return len(found) == 1 and found != [first]

        async def are_two() -> bool:
            return denoisers(scaled) == ["denoiser-1", "denoiser-2"]

        async with Darkroom.connect(scaled.nats_url) as darkroom:
            assert isinstance(await (await darkroom.submit(wanted(0))).outcome(), JobDone)
            await eventually(somebody_places)
            assert denoisers(scaled) == ["denoiser-1"]
            [first] = await active(scaled)
            os.kill(first, signal.SIGKILL)
            jobs = [await darkroom.submit(wanted(seed)) for seed in range(JOBS)]
            await eventually(another_one_places)
            await eventually(are_two)
            for job in jobs[4:]:
                await job.cancel()
            ends = [await job.outcome() for job in jobs]
            assert all(isinstance(end, JobDone) for end in ends[:4])
            assert {type(end) for end in ends} <= {JobDone, JobCancelled}

    run(scenario())


def wanted(seed: int) -> GenerationRequest:
    prompt = "a large red circle left on white"
    return GenerationRequest(job_id=new_job_id(), prompt=prompt, seed=seed, steps=50)
