import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.engine.events import EngineStopped, StepReport
from services.denoiser.rows.row import Row
from shared.errors import NotFinite, QueueFull
from shared.policy.checkpoint_interval import Interval
from shared.policy.step_scheduler import Limits
from tests.conftest import eventually, run
from tests.services.denoiser.models import Gated, make_row, network, with_diffusers

MIXED: list[dict[str, Any]] = [
    {"prompt": "a red cube", "sampler": "euler", "steps": 6},
    {"prompt": "two green balls", "sampler": "euler_ancestral", "steps": 9, "seed": 5},
    {"prompt": "a cat", "sampler": "dpmpp_2m_karras", "steps": 4, "guidance": 7.5, "seed": 3},
    {"prompt": "a dog", "sampler": "ddim", "steps": 7, "guidance": 1.0},
    {"prompt": "a house", "sampler": "euler_karras", "steps": 5, "guidance": 2.0},
    {"prompt": "a star", "sampler": "dpmpp_2m", "steps": 16, "seed": 9},
]


def alone(row: Row) -> torch.Tensor:
    async def main() -> torch.Tensor:
        async with Engine(network()) as engine:
            return await engine.run(row)

    return run(main())


def together(rows: list[Row], limits: Limits | None = None) -> list[torch.Tensor]:
    async def main() -> list[torch.Tensor]:
        async with Engine(network(), limits) as engine:
            return await asyncio.gather(*(engine.run(row) for row in rows))

    return run(main())


@pytest.mark.parametrize("settings", MIXED, ids=lambda s: s["sampler"])
def test_a_row_equals_the_diffusers_loop(settings: dict[str, Any]) -> None:
    torch.testing.assert_close(
        alone(make_row(**settings)), with_diffusers(**settings), atol=1e-4, rtol=1e-4
    )


def test_a_row_equals_the_diffusers_loop_in_any_company() -> None:
    for got, settings in zip(
        together([make_row(**settings) for settings in MIXED]), MIXED, strict=True
    ):
        torch.testing.assert_close(got, with_diffusers(**settings), atol=1e-4, rtol=1e-4)


def test_rows_of_other_shapes_and_prompt_lengths_do_not_mix() -> None:
    def rows() -> list[Row]:
        return [make_row(seed=k, shape=(4, 8, 8 + 8 * (k % 2))) for k in range(4)]

    for got, row in zip(together(rows(), Limits(max_rows=2)), rows(), strict=True):
        torch.testing.assert_close(got, alone(row), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m"])
def test_a_resumed_row_ends_like_an_uninterrupted_one(sampler: str) -> None:
    checkpoints: dict[int, dict[str, torch.Tensor]] = {}

    async def main() -> torch.Tensor:
        async with Engine(network()) as engine:
            return await engine.run(
                make_row(sampler=sampler, steps=16),
                on_checkpoint=checkpoints.__setitem__,
                interval=Interval(3),
            )

    expected = run(main())
    assert sorted(checkpoints) == [3, 6, 9, 12, 15]
    for step in (3, 12):
        resumed = make_row(sampler=sampler, steps=16).resume(step, checkpoints[step])
        torch.testing.assert_close(alone(resumed), expected, atol=1e-6, rtol=1e-6)


def test_a_new_row_joins_at_the_next_step() -> None:
    async def main() -> list[int]:
        gated = Gated()
        company: list[int] = []
        async with Engine(gated) as engine, asyncio.TaskGroup() as group:
            group.create_task(engine.run(make_row(), lambda report: company.append(report.rows)))
            await gated.stepping()
            group.create_task(engine.run(make_row("late", steps=2)))
            await asyncio.sleep(0)
            gated.open()
        return company

    assert run(main()) == [1, 2, 2, 1, 1, 1]


def test_a_cancelled_row_leaves_at_the_next_step_and_the_others_go_on() -> None:
    async def main() -> list[int]:
        gated = Gated()
        company: list[int] = []
        async with Engine(gated) as engine, asyncio.TaskGroup() as group:
            gone = asyncio.create_task(engine.run(make_row("gone")))
            group.create_task(engine.run(make_row(), lambda report: company.append(report.rows)))
            await gated.stepping()
            gated.let()
            await gated.stepping()
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            gated.open()
        assert engine.statistics().finished == 1
        return company

    assert run(main())[-4:] == [1, 1, 1, 1]


def test_only_the_row_that_fails_alone_fails() -> None:
    broken = make_row("broken", guidance=1.0)

    def holds_broken(embeds: torch.Tensor) -> bool:
        return any(torch.equal(one, broken.cond.tensors["embeds"][0]) for one in embeds)

    async def main() -> Sequence[torch.Tensor | BaseException]:
        gated = Gated()
        gated.fails = holds_broken
        gated.open()
        async with Engine(gated) as engine:
            rows = [make_row(sampler="euler_ancestral"), broken, make_row("a cat")]
            return await asyncio.gather(*(engine.run(row) for row in rows), return_exceptions=True)

    first, second, third = run(main())
    assert isinstance(second, RuntimeError)
    assert isinstance(first, torch.Tensor)
    assert isinstance(third, torch.Tensor)
    expected = with_diffusers(sampler="euler_ancestral")
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(third, with_diffusers("a cat"), atol=1e-4, rtol=1e-4)


def test_a_row_that_is_no_number_fails_and_does_not_spoil_the_others() -> None:
    async def main() -> Sequence[torch.Tensor | BaseException]:
        async with Engine(network()) as engine:
            poisoned = make_row("poisoned")
            poisoned.latents = poisoned.latents.clone()
            poisoned.latents[0, 0, 0, 0] = float("nan")
            rows = [make_row(), poisoned]
            return await asyncio.gather(*(engine.run(row) for row in rows), return_exceptions=True)

    good, bad = run(main())
    assert isinstance(bad, NotFinite)
    assert isinstance(good, torch.Tensor)
    torch.testing.assert_close(good, with_diffusers(), atol=1e-4, rtol=1e-4)


def test_every_step_is_reported_and_previews_come_when_they_were_asked_for() -> None:
    reports: list[StepReport] = []

    async def main() -> torch.Tensor:
        async with Engine(network()) as engine:
            return await engine.run(make_row(previews=frozenset({2, 6})), reports.append)

    latents = run(main())
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {report.steps for report in reports} == {6}
    assert [report.step for report in reports if report.preview is not None] == [2, 6]
    assert reports[-1].preview is not None
    torch.testing.assert_close(reports[-1].preview, latents, atol=1e-5, rtol=1e-5)


def test_a_callback_that_raises_ends_its_row_only() -> None:
    def refuse(report: StepReport) -> None:
        raise ConnectionError("nobody listens")

    async def main() -> Sequence[torch.Tensor | BaseException]:
        async with Engine(network()) as engine:
            return await asyncio.gather(
                engine.run(make_row(), refuse),
                engine.run(make_row("a cat")),
                return_exceptions=True,
            )

    first, second = run(main())
    assert isinstance(first, ConnectionError)
    assert isinstance(second, torch.Tensor)


def test_a_full_waiting_room_refuses_by_name() -> None:
    async def main() -> None:
        gated = Gated()
        limits = Limits(max_rows=1, max_admitted=1, max_waiting=2)
        async with Engine(gated, limits) as engine, asyncio.TaskGroup() as group:
            group.create_task(engine.run(make_row()))
            await gated.stepping()
            group.create_task(engine.run(make_row()))
            group.create_task(engine.run(make_row()))
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="waiting room is full: its bound is 2"):
                await engine.run(make_row())
            assert repr(engine) == "<Engine 1 rows, 2 waiting, 0.0 rows per step>"
            gated.open()
        assert engine.statistics().finished == 3
        assert engine.statistics().rows_per_step == 1.0

    run(main())


def test_stopping_checkpoints_what_is_in_flight_and_says_so() -> None:
    checkpoints: dict[int, dict[str, torch.Tensor]] = {}

    async def main() -> None:
        gated = Gated()
        engine = Engine(gated)
        await engine.start()
        row = asyncio.create_task(
            engine.run(make_row(), on_checkpoint=checkpoints.__setitem__, interval=Interval(100))
        )
        await gated.stepping()
        gated.let()
        await gated.stepping()
        stop = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        gated.open()
        await stop
        with pytest.raises(EngineStopped):
            await row
        with pytest.raises(EngineStopped):
            await engine.run(make_row())

    run(main())
    (step,) = checkpoints
    assert step >= 2
    torch.testing.assert_close(
        alone(make_row().resume(step, checkpoints[step])), with_diffusers(), atol=1e-4, rtol=1e-4
    )


def test_interactive_rows_park_batch_rows() -> None:
    ended: list[str] = []

    async def denoise(engine: Engine, name: str, **fields: Any) -> None:
        await engine.run(make_row(name, **fields))
        ended.append(name)

    async def main() -> None:
        gated = Gated()
        limits = Limits(max_rows=2, max_admitted=2)
        async with Engine(gated, limits) as engine, asyncio.TaskGroup() as group:
            for name in ("slow-1", "slow-2"):
                group.create_task(denoise(engine, name, service_class="batch"))
            await gated.stepping()
            for name in ("fast-1", "fast-2"):
                group.create_task(denoise(engine, name, service_class="interactive"))
            await asyncio.sleep(0)
            gated.open()

    run(main())
    assert set(ended[:2]) == {"fast-1", "fast-2"}


def test_while_an_engine_is_held_only_a_row_by_itself_takes_steps() -> None:
    gated = Gated("crowd", "lone")

    async def main() -> list[torch.Tensor]:
        async with Engine(gated, Limits(max_rows=1, max_admitted=1)) as engine:
            crowd = asyncio.create_task(engine.run(make_row("crowd")))
            await gated.until("crowd")
            gated.open()
            lone = make_row("lone")
            async with engine.held():
                before = gated.count("crowd")
                await engine.step_alone(lone)
                await engine.step_alone(lone)
                assert lone.step == gated.count("lone") == 2
                assert gated.count("crowd") == before
            async with engine.held():
                assert gated.count("crowd") > before or crowd.done()
            return list(await asyncio.gather(crowd, engine.run(lone)))

    for got, name in zip(run(main()), ("crowd", "lone"), strict=True):
        torch.testing.assert_close(got, with_diffusers(name), atol=1e-4, rtol=1e-4)
    assert ("crowd", "lone") not in gated.seen


def test_an_engine_that_is_stopped_can_be_held_and_takes_no_step() -> None:
    async def main() -> None:
        async with Engine(network()) as engine:
            await engine.run(make_row())
            await engine.stop()
            async with engine.held():
                with pytest.raises(EngineStopped):
                    await engine.step_alone(make_row())

    run(main())


def test_a_row_that_leaves_while_the_engine_is_held_is_forgotten_at_once() -> None:
    gated = Gated("gone")

    async def main() -> None:
        async with Engine(gated) as engine:
            gone = asyncio.create_task(engine.run(make_row("gone")))
            await gated.until("gone")
            gated.let()
            await gated.stepping()
            gated.let()
            async with engine.held():
                gone.cancel()

                async def forgotten() -> bool:
                    return engine.statistics().rows == 0

                await eventually(forgotten)
            async with engine.held():  # nobody is left who would have to take a step before
                pass
            gated.open()

    run(main())


def test_a_crash_of_the_thread_is_told_before_it_fails_every_row() -> None:
    class Dying(Gated):
        def predict(self, *args: Any, **named: Any) -> Any:
            raise SystemExit("the driver is gone")

    async def main() -> None:
        crashes: list[BaseException] = []
        untold: list[bool] = []

        def crashed(error: BaseException) -> None:
            crashes.append(error)
            untold.append(not row.done())

        async with Engine(Dying(), on_crash=crashed) as engine:
            row = asyncio.create_task(engine.run(make_row()))
            with pytest.raises(EngineStopped, match="the driver is gone"):
                await row
            with pytest.raises(EngineStopped):
                await engine.run(make_row())
        assert [type(crash) for crash in crashes] == [SystemExit]
        assert untold == [True]

    run(main())


def test_an_idle_engine_takes_no_steps() -> None:
    async def main() -> None:
        async with Engine(network()) as engine:
            await engine.run(make_row())
            before = engine.statistics()
            assert before.steps == 6
            assert (before.rows, before.waiting) == (0, 0)

            async def still() -> bool:
                return engine.statistics() == before

            await eventually(still)

    run(main())
