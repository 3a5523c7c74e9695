"""Two denoisers and two ControlNet processes: one helps the other, and one is enough."""

import os
import signal
from typing import Any

from benchmarks.harness.fleet import denoisers
from shared.bus.nats import connect
from tests.conftest import eventually, run
from tests.e2e.helpers.secured import Secured
from tests.e2e.test_controls import drawn, request
from tests.e2e.test_kills import largest_difference


def test_an_idle_denoiser_takes_half_of_another_ones_work(secured: Secured) -> None:
    async def scenario() -> None:
        images: list[bytes] = []
        found: list[dict[str, Any]] = []
        bus = await connect(secured.nats_url, "admin", credentials=secured.credentials("admin"))
        async with secured.client() as darkroom:

            async def shared() -> bool:  # a half that comes late on a busy machine is none
                image, _ = await drawn(darkroom, request(steps=40))
                images.append(image)
                found[:] = [one["engines"]["pocket-sdxl"] for one in await denoisers(bus)]
                return len(found) == 2 and any(one["shared_steps"] for one in found)

            await eventually(shared)
        await bus.close()
        [one, other] = found
        assert one["shared_steps"] <= other["halves"]
        assert other["shared_steps"] <= one["halves"]
        assert all(largest_difference(images[0], image) <= 1 for image in images)

    run(scenario())


def test_of_two_replicas_one_may_be_killed_or_hang_and_nothing_fails(secured: Secured) -> None:
    """Half of the questions go to the one that hangs."""

    async def scenario() -> None:
        async with secured.client() as darkroom:
            expected, _ = await drawn(darkroom, request("edges", steps=10))
            victim = next(m for m in secured.state.members if m.name.startswith("controlnet"))
            assert victim.pid is not None
            for number in (signal.SIGSTOP, signal.SIGKILL):
                with secured.hold("step-2@denoiser") as held:
                    job = await darkroom.submit(request("edges", steps=10))
                    await held.reached()
                    os.kill(victim.pid, number)
                (image,) = await job.images()
                assert largest_difference(image.data, expected) <= 1

    run(scenario())
