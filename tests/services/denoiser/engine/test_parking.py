"""Rows that give way to more urgent ones, and go on by themselves."""

import asyncio

import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.node.model import burst_capacity, limits
from shared.config import Settings
from shared.policy.step_scheduler import Limits
from shared.service_classes import CLASSES
from tests.conftest import run
from tests.services.denoiser.models import Gated, make_row, network, with_diffusers
from tests.services.denoiser.world import settled


def test_an_interactive_row_joins_a_full_batch_at_the_next_step_and_all_images_are_the_same() -> (
    None
):
    gated = Gated("slow-1", "slow-2", "fast")

    async def main() -> list[torch.Tensor]:
        bounds = Limits(max_rows=2, max_admitted=2)
        async with Engine(gated, bounds) as engine, asyncio.TaskGroup() as group:
            slow = [
                group.create_task(engine.run(make_row(name, service_class="batch", steps=9)))
                for name in ("slow-1", "slow-2")
            ]
            await gated.until("slow-1", "slow-2")
            urgent = make_row("fast", service_class="interactive", steps=3)
            fast = group.create_task(engine.run(urgent))
            await settled()
            gated.let()
            await gated.stepping()
            parked = engine.statistics()
            assert (parked.rows, parked.waiting, parked.parked, parked.parks) == (2, 1, 1, 1)
            gated.open()
            assert not [task for task in slow if task.done()]
            await fast
            assert not [task for task in slow if task.done()]
        assert (engine.statistics().parked, engine.statistics().parks) == (0, 1)
        return [task.result() for task in (*slow, fast)]

    results = run(main())
    joined = gated.seen.index(("slow-1", "slow-2"))
    assert gated.seen[joined + 1 : joined + 4] == [("slow-1", "fast")] * 3
    assert [gated.count(name) for name in ("slow-1", "slow-2", "fast")] == [9, 9, 3]
    expected = [with_diffusers(name, steps=9) for name in ("slow-1", "slow-2")]
    expected.append(with_diffusers("fast", steps=3))
    for got, alone in zip(results, expected, strict=True):
        torch.testing.assert_close(got, alone, atol=1e-4, rtol=1e-4)


def test_a_waiting_room_has_a_place_for_all_that_a_process_pulls() -> None:
    settings = Settings(max_rows=2)

    async def main(models: int) -> int:
        pulled = settings.max_rows + burst_capacity(settings) + models * len(CLASSES)
        async with Engine(network(), limits(settings)) as engine:
            rows = [make_row(steps=1, service_class="interactive") for _ in range(pulled)]
            await asyncio.gather(*(engine.run(row) for row in rows))
            return engine.statistics().finished - pulled

    assert [run(main(models)) for models in (1, 3)] == [0, 0]
