"""Adapters that all rows agree on go into the weights when it pays, and come out bit for bit."""

import asyncio
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.denoiser.engine.engine import Engine
from services.denoiser.engine.events import StepReport
from services.denoiser.forward.step import Batch
from services.denoiser.loras.extension import LateLoras, give
from services.denoiser.loras.merging import Merging, agreed, worth_merging
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.rows.row import Row
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import traced
from shared.models.loras.read import read_adapter
from shared.models.lowrank.weights import Adapter
from shared.policy.step_work import StepWork
from tests.conftest import run
from tests.helpers.loras import write_lora
from tests.services.denoiser.models import family, make_row, make_unet


def adapter(folder: Path, name: str, seed: int = 0) -> Adapter:
    unet = make_unet()
    path = write_lora(folder / f"{name}.safetensors", {"unet": unet}, rank=2, seed=seed)
    return read_adapter(name, path, family())


def weights(network: SdxlUnet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@given(
    st.integers(0, 100),
    st.floats(1e-3, 1.0),
    st.floats(1e-3, 1.0),
    st.floats(0.0, 10.0),
)
def test_merging_pays_exactly_when_it_takes_less_time(
    steps: int, plain: float, banked: float, change: float
) -> None:
    merging, not_merging = steps * plain + 2 * change, steps * banked
    if abs(merging - not_merging) > 1e-6:
        assert worth_merging(steps, plain, banked, change) == (merging < not_merging)


def test_rows_agree_only_when_they_all_have_the_same_and_wait_for_none(tmp_path: Path) -> None:
    one = adapter(tmp_path, "one")
    uses = ((one, 1.0),)
    assert agreed([make_row(adapters=uses), make_row(adapters=uses)]) == uses
    assert agreed([make_row(), make_row()]) == ()
    assert agreed([make_row(adapters=uses), make_row()]) is None
    assert agreed([make_row(adapters=uses), make_row(adapters=((one, 0.5),))]) is None
    late = LateLoras(2, ())
    late.uses = uses
    assert agreed([make_row(adapters=uses), make_row(extensions=(late,))]) is None
    assert agreed([]) is None


@torch.inference_mode()
def test_merged_weights_compute_what_a_bank_does_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    network = SdxlUnet(make_unet())
    graph = traced(network)
    uses = ((adapter(tmp_path, "one", 1), 0.7), (adapter(tmp_path, "two", 2), -1.3))
    example = network.example(2, 2, 2, 5)
    before, plain = weights(network), graph.predict(*example)
    banked = network.predict(*example, network.bank([uses, uses]))
    graph.merge(uses)
    torch.testing.assert_close(graph.predict(*example), banked, atol=1e-4, rtol=1e-4)
    graph.merge(uses[:1])
    assert not same(before, weights(network))
    graph.merge(())
    assert same(before, weights(network))
    assert torch.equal(graph.predict(*example), plain)


def test_a_merge_that_fails_halfway_leaves_the_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SdxlUnet(make_unet())
    before, uses = weights(network), ((adapter(tmp_path, "one"), 1.0),)
    merging, row = Merging(network), make_row(steps=50, adapters=uses)
    clone, left = torch.Tensor.clone, [3]

    def scarce(tensor: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return clone(tensor)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "clone", scarce)
        merging.settle([row])
    assert merging.merged == ()
    assert same(before, weights(network))
    merging.settle([row])
    assert merging.merged == ()


def test_long_rows_that_agree_are_merged_and_a_newcomer_that_differs_undoes_it(
    tmp_path: Path,
) -> None:
    network = SdxlUnet(make_unet())
    before = weights(network)
    uses = ((adapter(tmp_path, "one"), 1.0),)
    merging = Merging(network)
    long = make_row(steps=50, adapters=uses)
    merging.settle([long, long])
    assert (merging.merged, merging.changes) == (uses, 1)
    merging.settle([long, long])
    assert merging.changes == 1
    merging.settle([long, make_row(steps=50)])
    assert merging.merged == ()
    assert same(before, weights(network))


def test_what_steps_cost_decides(tmp_path: Path) -> None:
    uses = ((adapter(tmp_path, "one"), 1.0),)
    row = make_row(steps=50, adapters=uses)
    merging = Merging(SdxlUnet(make_unet()))
    for _ in range(10):
        merging.observe(StepWork.full(2, 64), 0.010, banked=False)
        merging.observe(StepWork.full(2, 64), 0.0101, banked=True)
    merging._change_seconds = 1.0
    merging.settle([row])
    assert merging.merged == ()
    for _ in range(60):
        merging.observe(StepWork.full(2, 64), 0.100, banked=True)
    merging.settle([row])
    assert [*merging.merged] == [*uses]


@pytest.mark.parametrize("steps", [4, 20])
def test_pictures_are_the_same_either_way_and_the_weights_are_left_as_they_were(
    tmp_path: Path, steps: int
) -> None:
    network = SdxlUnet(make_unet())
    before = weights(network)
    one, two = adapter(tmp_path, "one", 1), adapter(tmp_path, "two", 2)

    def rows() -> list[Row]:
        return [
            make_row("a", steps=steps, adapters=((one, 1.0),)),
            make_row("b", steps=steps, adapters=((two, 0.5),)),
            make_row("c", steps=steps),
        ]

    async def alone() -> list[torch.Tensor]:
        async with Engine(network, predictors=[LoraWeights(network)]) as engine:
            return [await engine.run(row) for row in rows()]

    async def together() -> list[torch.Tensor]:
        async with Engine(network, predictors=[LoraWeights(network)]) as engine:
            return await asyncio.gather(*(engine.run(row) for row in rows()))

    for ours, theirs in zip(run(alone()), run(together()), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert same(before, weights(network))


def test_an_engine_that_ends_leaves_the_weights_as_it_found_them(tmp_path: Path) -> None:
    network = SdxlUnet(make_unet())
    before = weights(network)
    row = make_row(steps=50, adapters=((adapter(tmp_path, "one"), 1.0),))

    async def main() -> None:
        merged = asyncio.Event()

        def on_step(report: StepReport) -> None:
            if not same(before, weights(network)):
                merged.set()

        async with Engine(network, predictors=[LoraWeights(network)]) as engine:
            await engine.run(row, on_step)
            assert merged.is_set()

    run(main())
    assert same(before, weights(network))


def test_batches_are_made_anew_when_the_weights_change_also_because_a_change_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SdxlUnet(make_unet())
    before = weights(network)
    row, other = (
        make_row(steps=50, adapters=((adapter(tmp_path, name, number), 1.0),))
        for number, name in enumerate(("one", "two"))
    )
    lora_weights = LoraWeights(network)
    assert lora_weights.settle([row])
    assert not lora_weights.settle([row])
    merged = Batch.of([row], network)
    lora_weights.batched(merged, network)
    assert merged.beside == {}

    def scarce(tensor: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "clone", scarce)
        assert lora_weights.settle([other])
    assert same(before, weights(network))
    beside = Batch.of([row], network)
    lora_weights.batched(beside, network)
    assert list(beside.beside) == ["bank"]


def test_a_row_that_is_given_other_adapters_is_another_one_to_its_batch(tmp_path: Path) -> None:
    network, row = SdxlUnet(make_unet()), make_row(extensions=(LateLoras(2, ("one",)),))
    batch = Batch.of([row], network)
    assert batch.still_is([row])
    give(row, ((adapter(tmp_path, "one"), 1.0),))
    assert not batch.still_is([row])
    assert row.local
