"""Rows with ControlNets: each is the one that diffusers' pipeline paints, whoever else is in the
batch, and whatever becomes of the processes that are asked."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import pytest
import torch

from services.denoiser.controlnet.client import MOST_UNANSWERED
from services.denoiser.controlnet.exchange import ResidualExchange
from services.denoiser.controlnet.state import Answer, ControlState, ControlUse, Share, Traffic
from services.denoiser.engine.engine import Engine
from services.denoiser.rows.row import Row
from shared.errors import ControlUnavailable, HandleLost
from shared.models.families.sdxl.unet import SdxlControlNet
from shared.models.families.unet.traced import traced
from tests.conftest import HANG_SECONDS, eventually, run
from tests.helpers import controls
from tests.helpers.controls import Studio, studio
from tests.services.denoiser.models import make_row, network
from tests.services.denoiser.models import with_diffusers as without_controls

EDGES: dict[str, Any] = {"model": "edges", "seed": 1}
BLOCKS: dict[str, Any] = {"model": "blocks", "seed": 2}
CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "one": (EDGES,),
    "weaker": (EDGES | {"scale": 0.4},),
    "for a while": (EDGES | {"start": 0.2, "end": 0.7},),
    "from later on": (EDGES | {"start": 0.5},),
    "guessing": (EDGES | {"guess_mode": True},),
    "two": (EDGES | {"scale": 0.7}, BLOCKS),
    "two in turns": (EDGES | {"end": 0.5}, BLOCKS | {"start": 0.5}),
    "the same twice": (EDGES, EDGES | {"seed": 3, "scale": 0.5}),
}


def steered_of(row: Row) -> ControlState:
    found = row.extension(ControlState)
    assert found is not None
    return found


def engine(studio: Studio) -> Engine:
    return Engine(network(), predictors=[ResidualExchange(studio.ask)])


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@cache
def expected(case: str) -> torch.Tensor:
    """Of a row whose prompt is the name of its case."""
    return controls.with_diffusers(case, *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_a_row_is_steered_as_diffusers_pipeline_does_it(case: str) -> None:
    async def main() -> torch.Tensor:
        async with studio() as s, engine(s) as e:
            return await e.run(s.row(case, *CASES[case]))

    found = run(main())
    assert close(found, expected(case))
    assert not torch.allclose(found, without_controls(case), atol=0.01)


def test_rows_with_other_controls_and_with_none_share_their_steps() -> None:
    async def main() -> list[torch.Tensor]:
        async with (
            studio() as s,
            Engine(traced(network()), predictors=[ResidualExchange(s.ask)]) as e,
        ):
            rows = [s.row(case, *wanted) for case, wanted in CASES.items()]
            rows += [make_row("plain"), make_row("unguided", guidance=1.0)]
            found = await asyncio.gather(*(e.run(row) for row in rows))
            assert e.statistics().steps < 3 * 6
            assert e.statistics().features["control_rounds"] <= 2 * e.statistics().steps
            return found

    *with_residuals, plain, unguided = run(main())
    for latents, case in zip(with_residuals, CASES, strict=True):
        assert close(latents, expected(case)), case
    assert close(plain, without_controls("plain"))
    assert close(unguided, without_controls("unguided", guidance=1.0))


def test_two_denoisers_are_answered_out_of_one_batch() -> None:
    async def main() -> None:
        async with studio() as s, engine(s) as one, engine(s) as other:
            found = await asyncio.gather(
                one.run(s.row("a", EDGES)), other.run(s.row("b", EDGES | {"seed": 5}, seed=2))
            )
        assert close(found[0], controls.with_diffusers("a", EDGES))
        assert close(found[1], controls.with_diffusers("b", EDGES | {"seed": 5}, seed=2))

    run(main())


def test_with_lag_each_step_but_the_first_is_steered_by_the_one_before() -> None:
    async def main() -> tuple[torch.Tensor, Row]:
        async with studio() as s, engine(s) as e:
            row = s.row("a", EDGES, lag=True)
            return await e.run(row), row

    latents, row = run(main())
    exact = controls.with_diffusers("a", EDGES)
    assert steered_of(row).lagged == {"edges"}
    assert not close(latents, exact)
    assert (latents - exact).abs().mean() < (latents - without_controls("a")).abs().mean()


def test_the_first_lagging_step_is_exact() -> None:
    async def main() -> None:
        async with studio() as s, engine(s) as e:
            row = s.row("a", EDGES, lag=True, steps=1)
            latents = await e.run(row)
            assert not steered_of(row).lagged
            assert close(latents, controls.with_diffusers("a", EDGES, steps=1))

    run(main())


def test_nobody_is_there_at_first() -> None:
    """Mates of the row take their steps meanwhile; it goes on when somebody comes."""

    async def main() -> None:
        async with studio(replicas=0) as s, engine(s) as e:
            with_residuals = asyncio.create_task(e.run(s.row("a", EDGES)))
            mate = await e.run(make_row("mate"))
            assert close(mate, without_controls("mate"))
            assert not with_residuals.done()
            await s.start()
            assert close(await with_residuals, controls.with_diffusers("a", EDGES))
            assert s.ask.retries > 0

    run(main())


def test_none_is_left_and_the_row_fails_by_name_while_its_mates_go_on() -> None:
    async def main() -> None:
        async with studio(replicas=0, seconds=1.0) as s, engine(s) as e:
            with_residuals, mate = await asyncio.gather(
                e.run(s.row("a", EDGES)), e.run(make_row("mate")), return_exceptions=True
            )
        assert isinstance(with_residuals, ControlUnavailable)
        assert with_residuals.fields["control"] == "edges"
        assert isinstance(mate, torch.Tensor)
        assert close(mate, without_controls("mate"))

    run(main())


def test_an_answer_that_never_comes_is_asked_of_another() -> None:
    """One replica takes every question and says nothing, like one that was killed."""

    async def main() -> None:
        async with studio(seconds=3.0) as s, engine(s) as e:
            dead = s.broker.connect("dead")
            async with dead.subscribe("dr.v1.control.edges", queue="controlnet") as questions:
                row = asyncio.create_task(e.run(s.row("a", EDGES)))
                taken = 0
                async for _ in questions:
                    taken += 1
                    break
            assert taken == 1
            assert close(await row, controls.with_diffusers("a", EDGES))
            assert s.ask.retries >= 1

    run(main())


class Slow:
    """A ControlNet that answers nothing before it is `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, name: str) -> Any:
        self._network = controls.control(name)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def residuals(self, *arguments: Any) -> list[torch.Tensor]:
        assert self.open.wait(HANG_SECONDS), "the test never let it answer"
        return self._network.residuals(*arguments)


def test_one_that_takes_longer_than_ever_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again, in vain, more often than anybody is listened to."""
    monkeypatch.setattr("services.denoiser.controlnet.client.LEAST_TIMEOUT", 0.01)

    async def main() -> None:
        async with studio(replicas=0) as s, engine(s) as e:
            slow = Slow()
            await s.start(["edges"], slow)
            s.ask._measured("edges", 0.0)
            row = asyncio.create_task(e.run(s.row("a", EDGES)))
            await eventually(lambda: _asked(s, 2 * MOST_UNANSWERED))
            slow.open.set()
            assert close(await row, controls.with_diffusers("a", EDGES))

    async def _asked(s: Studio, retries: int) -> bool:
        return s.ask.retries >= retries

    run(main())


def test_one_replica_of_many_is_found_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.denoiser.controlnet.client.LEAST_TIMEOUT", 0.01)

    async def main() -> None:
        async with studio(replicas=0) as s, engine(s) as e, AsyncExitStack() as silent:
            for k in range(2 * MOST_UNANSWERED):
                bus = s.broker.connect(f"silent-{k}")
                subject = "dr.v1.control.edges"
                await silent.enter_async_context(bus.subscribe(subject, queue="controlnet"))
            await s.start()
            s.ask._measured("edges", 0.0)
            found = await e.run(s.row("a", EDGES, steps=2))
            assert close(found, controls.with_diffusers("a", EDGES, steps=2))
            assert s.ask.retries >= 2 * MOST_UNANSWERED

    run(main())


@pytest.mark.parametrize("wanted", [(EDGES,), (EDGES, BLOCKS)], ids=["one", "two"])
def test_a_controlnet_may_compute_in_another_dtype(wanted: tuple[dict[str, Any], ...]) -> None:
    def narrow(name: str) -> SdxlControlNet:
        return SdxlControlNet(controls.make_control(name).to(torch.bfloat16))

    async def main() -> torch.Tensor:
        async with studio(replicas=0) as s, engine(s) as e:
            await s.start(["edges"], narrow)
            await s.start(["blocks"])
            return await e.run(s.row("a", *wanted))

    found, exact = run(main()), controls.with_diffusers("a", *wanted)
    assert (found - exact).abs().mean() < 0.1 * (exact - without_controls("a")).abs().mean()


def test_a_lost_picture_is_made_again_by_whom_it_concerns() -> None:
    """Its row fails with `HandleLost`, which makes the node run again; others are answered."""

    async def main() -> None:
        async with studio() as s, engine(s) as e:
            lost, kept = s.row("a", EDGES), s.row("b", EDGES)
            handle = s.put(torch.zeros(64, 64, 64))
            s.transport.free(handle)
            steered_of(lost).controls = (
                *(type(c)(model=c.model, hint=handle) for c in steered_of(lost).controls),
            )
            found = await asyncio.gather(e.run(lost), e.run(kept), return_exceptions=True)
            assert isinstance(found[0], HandleLost)
            assert found[0].fields["handle"] == handle.name
            assert isinstance(found[1], torch.Tensor)
            assert close(found[1], controls.with_diffusers("b", EDGES))

    run(main())


def test_nothing_is_left_in_the_arenas_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.helpers.memory_transport.INLINE_LIMIT", 0)

    async def main() -> None:
        async with studio() as s, engine(s) as e:
            row = s.row("a", EDGES, BLOCKS)
            brought = set(s.store)
            await e.run(row)
            assert all(transport.puts >= 6 for transport in s.transports)
            await eventually(lambda: _equal(set(s.store), brought))

    async def _equal(found: set[object], expected: set[object]) -> bool:
        return found == expected

    run(main())


def test_a_row_remembers_which_of_its_controls_took_float32() -> None:
    answer: Future[Answer] = Future()
    answer.set_result(Answer([], {}, {}, 0.0, 0.0, Traffic(0, 0), widened=frozenset({1})))
    hint: Any = None
    for place, widened in ((0, set()), (1, {"edges"})):
        with_residuals = ControlState((ControlUse("edges", hint),))
        with_residuals.ask(0, {0: Share(answer, place)})
        with_residuals.used()
        assert with_residuals.widened == widened
