"""Signs of life come from steps that were taken, and from nothing else."""

import asyncio

from tests.conftest import eventually
from tests.services.denoiser.models import Gated
from tests.services.denoiser.world import World, engine, in_world


def test_rows_that_wait_live_by_the_steps_of_the_others_and_a_hung_engine_s_rows_do_not() -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", service_class="interactive")
        await world.add("job-2", service_class="batch")
        await world.add("job-3", model="other-1")
        alive, hung = Gated(), Gated()
        async with engine(alive, max_rows=1, max_admitted=1) as busy, engine(hung) as stuck:
            denoiser = world.denoiser(busy, stuck)
            running, waiting, stalled = [await world.task(f"job-{k}") for k in (1, 2, 3)]
            async with asyncio.TaskGroup() as group:
                group.create_task(denoiser.run(running))
                await alive.stepping()
                group.create_task(denoiser.run(waiting))
                group.create_task(denoiser.run(stalled))
                await hung.stepping()
                alive.let(3)

                async def three_steps() -> bool:
                    return running.beats == 3

                await eventually(three_steps)
                assert (waiting.beats, stalled.beats) == (3, 0)
                assert world.publisher.steps("job-2") == []
                alive.open()
                hung.open()

    in_world(scenario)
