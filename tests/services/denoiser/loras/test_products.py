"""What adapters add to the weights is computed beside the steps, and added between two of them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.denoiser.loras.extension import LateLoras
from services.denoiser.loras.merging import Merging
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.loras.products import Preparation
from services.denoiser.rows.row import Row
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.lowrank.bank import Products, Use
from shared.models.lowrank.weights import Adapter, LowRank
from shared.residency.item import Item, Pieces, at_once
from shared.residency.loader import Loader
from tests.conftest import HANG_SECONDS, until
from tests.services.denoiser.loras.test_lora_merge import adapter, same, weights
from tests.services.denoiser.models import make_row, make_unet

ROOM = 2**30


@pytest.fixture
def gate(loader: Loader) -> Iterator[threading.Event]:
    """Until it is set the loader does nothing else."""
    opened = threading.Event()
    hold(loader, opened)
    yield opened
    opened.set()


def hold(loader: Loader, gate: threading.Event) -> None:
    def held() -> Pieces[None]:
        assert gate.wait(HANG_SECONDS)
        yield 1

    loader.bring(Item("gate", 1, held))


def with_magnitude(plain: Adapter, by_input: bool) -> Adapter:
    """As DoRA and LyCORIS have them, and with biases where the layer has one."""
    found = {}
    for name, low in plain.parts["unet"].items():
        size = low.down.shape[1] if by_input else low.up.shape[0]
        bias = torch.randn(low.up.shape[0]) if name.endswith("to_out.0") else None
        found[name] = LowRank(low.down, low.up, bias, torch.rand(size) + 0.5, by_input)
    return Adapter(plain.name, {"unet": found})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_prepared_gives_the_same_weights_to_the_bit(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = SdxlUnet(make_unet().to(dtype))
    one, two = adapter(tmp_path, "one", 1), adapter(tmp_path, "two", 2)
    uses: tuple[Use, ...] = ((one, 0.7), (two, -1.3))
    others = [((with_magnitude(one, by_input), 0.7), (two, 0.4)) for by_input in (False, True)]
    before = weights(network)
    for each in (uses, uses[:1], *others):
        network.merge(each)
        expected = weights(network)
        prepared = at_once(network.products(each))  # while others are merged
        network.merge(())
        network.merge(each, prepared)
        assert same(expected, weights(network))
        assert not same(before, expected)
        nbytes = sum(tensor.nbytes for layer in prepared.values() for tensor in layer)
        assert nbytes == network.product_bytes(each)
    network.merge(())
    assert same(before, weights(network))


def test_steps_go_on_with_a_bank_until_it_is_prepared(
    tmp_path: Path, loader: Loader, gate: threading.Event
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    network.merge(uses)
    expected = weights(network)
    network.merge(())
    merging = Merging(network, Preparation(network, loader, ROOM))
    row = make_row(steps=50, adapters=uses)
    for _ in range(3):
        merging.settle([row])
        assert merging.merged == ()
    assert loader.statistics().waiting == 2
    gate.set()
    until(lambda: loader.statistics().waiting == 0)
    merging.settle([row])
    assert merging.merged == uses
    assert same(expected, weights(network))


def test_what_is_merged_leaves_at_once_for_rows_that_want_others(
    tmp_path: Path, loader: Loader, gate: threading.Event
) -> None:
    network = SdxlUnet(make_unet())
    before, one, two = weights(network), adapter(tmp_path, "one", 1), adapter(tmp_path, "two", 2)
    merging = Merging(network)
    merging.settle([make_row(steps=50, adapters=((one, 1.0),))])
    merging._preparation = Preparation(network, loader, ROOM)
    merging.settle([make_row(steps=50, adapters=((two, 1.0),))])
    assert merging.merged == ()
    assert same(before, weights(network))


def test_what_nobody_agrees_on_any_more_is_not_prepared(
    tmp_path: Path, loader: Loader, gate: threading.Event
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    merging = Merging(network, Preparation(network, loader, ROOM))
    row = make_row(steps=50, adapters=uses)
    for rows in ([row, make_row(steps=50)], [make_row(steps=50)], []):
        merging.settle([row])
        assert loader.statistics().waiting == 2
        merging.settle(rows)
        gate.set()
        until(lambda: loader.statistics().waiting == 0)
        gate.clear()
        assert merging.merged == ()
        hold(loader, gate)
    assert loader.statistics().cancelled == 3


def late_row(uses: tuple[Use, ...], most: int, steps_done: int = 0) -> tuple[Row, LateLoras]:
    """One whose adapters are all there now."""
    late = LateLoras(most, {adapter.name for adapter, _ in uses})
    row = make_row(steps=50, extensions=(late,))
    row.step = steps_done
    late.arrive(uses, complete=True)
    return row, late


def test_a_late_row_does_without_its_adapters_until_they_can_be_in_the_weights(
    tmp_path: Path, loader: Loader, gate: threading.Event
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    lora_weights = LoraWeights(network, Preparation(network, loader, ROOM))
    row, late = late_row(uses, most=10)
    lora_weights.settle([row])
    assert not late.uses
    gate.set()
    until(lambda: loader.statistics().waiting == 0)
    assert lora_weights.settle([row])
    assert late.uses == lora_weights.merging.merged == uses


def test_a_late_row_waits_for_no_preparation_beyond_its_bound(
    tmp_path: Path, loader: Loader, gate: threading.Event
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    lora_weights = LoraWeights(network, Preparation(network, loader, ROOM))
    row, late = late_row(uses, most=10, steps_done=9)
    lora_weights.settle([row])
    assert not late.uses
    row.step = 10
    lora_weights.settle([row])
    assert late.uses == uses
    assert not lora_weights.merging.merged


@pytest.mark.parametrize("others", [0, 1])
def test_a_late_row_joins_at_once_where_nothing_is_to_be_merged(
    tmp_path: Path, loader: Loader, gate: threading.Event, others: int
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    lora_weights = LoraWeights(network, Preparation(network, loader, ROOM))
    row, late = late_row(uses, most=50, steps_done=0 if others else 49)
    lora_weights.settle([row, *[make_row(steps=50)] * others])
    assert late.uses == uses


class Broken(Preparation):
    """What it prepares fails."""

    def _begin(self, uses: tuple[Use, ...]) -> None:
        assert self._loader is not None

        def load() -> Pieces[Products]:
            yield 0
            raise MemoryError("no memory for the products")

        self._coming = uses, self._loader.bring(Item("products", 1, load))


@pytest.mark.parametrize("kind", [Preparation, Broken])
def test_what_cannot_be_prepared_is_computed_when_it_is_added(
    tmp_path: Path, loader: Loader, kind: type[Preparation]
) -> None:
    network, uses = SdxlUnet(make_unet()), ((adapter(tmp_path, "one"), 1.0),)
    merging = Merging(network, kind(network, loader, max_bytes=10))
    row = make_row(steps=50, adapters=uses)
    merging.settle([row])
    until(lambda: loader.statistics().waiting == 0)
    merging.settle([row])
    assert merging.merged == uses
