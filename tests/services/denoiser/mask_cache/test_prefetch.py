"""Activation caches that do not lie where the network reads them are brought there ahead of it."""

import threading
from pathlib import Path

import pytest
import torch

from services.denoiser.mask_cache.files import ActivationCache
from services.denoiser.mask_cache.prefetch import PrefetchedStep, Prefetcher
from services.denoiser.mask_cache.store import ActivationStore
from shared.residency.item import Item, Pieces
from shared.residency.loader import Load, Loader
from shared.residency.transfer import Moved, Transfer
from tests.conftest import HANG_SECONDS, until
from tests.helpers.flux import Atelier, make_flux
from tests.services.denoiser.mask_cache.test_masked import (
    another,
    edit,
    masked_of,
    painted,
    picture,
)

KEY = "1" * 64
STEPS, BLOCKS, IMAGES = range(4), 3, 2
NAMES = [f"{i}.{kind}.{n}" for n in range(BLOCKS) for i in (0, 1) for kind in ("key", "value")]
NBYTES = 2 * 8 * 4
"""Of a tensor."""


class Counting(Transfer):
    def __init__(self, loader: Loader) -> None:
        super().__init__(loader, torch.device("cpu"))
        self.begun = 0

    def begin(
        self, tensor: torch.Tensor, within: float = 0.0, likelihood: float = 1.0
    ) -> Load[Moved]:
        self.begun += 1
        return super().begin(tensor, within, likelihood)


@pytest.fixture
def loads(loader: Loader) -> Counting:
    return Counting(loader)


@pytest.fixture
def cache(tmp_path: Path) -> ActivationCache:
    """Tensors that say which they are."""
    store = ActivationStore(tmp_path / "memory", tmp_path / "disk", 2**20, 2**20)
    recording = store.record(KEY, 2**10)
    assert recording is not None
    for step in STEPS:
        tensors = {name: value(step, name) for name in NAMES}
        recording.write(step, tensors | ({"mask": torch.arange(3)} if step == 0 else {}))
    recording.finish()
    found = store.find(KEY, STEPS)
    assert found is not None
    return found


def value(step: int, name: str) -> torch.Tensor:
    return torch.full((8, 4), 100.0 * step + NAMES.index(name)).half()


def test_tensors_come_in_the_order_of_the_blocks_a_window_ahead(
    loads: Counting, cache: ActivationCache
) -> None:
    window = 5
    ahead = Prefetcher(loads, cache, 1, window * NBYTES)
    assert loads.begun == window
    asked = [(step, name) for step in range(1, 4) for name in NAMES]
    for number, (step, name) in enumerate(asked, 1):
        assert torch.equal(ahead.take(step, name), value(step, name))
        assert loads.begun == min(number + window, len(asked))


def test_what_is_asked_for_out_of_turn_comes_too(loads: Counting, cache: ActivationCache) -> None:
    ahead = Prefetcher(loads, cache, 0, 2 * NBYTES)
    for step, name in ((0, "1.value.2"), (2, "0.key.0"), (2, "0.key.0"), (3, "1.key.1")):
        assert torch.equal(ahead.take(step, name), value(step, name))


def test_what_a_row_that_ended_wanted_is_given_up_and_a_step_that_runs_still_has_its_own(
    loader: Loader, loads: Counting, cache: ActivationCache
) -> None:
    gate = threading.Event()

    def held() -> Pieces[None]:
        assert gate.wait(HANG_SECONDS)
        yield 1

    loader.bring(Item("gate", 1, held))
    ahead = Prefetcher(loads, cache, 0, 4 * NBYTES)
    ahead.close()
    gate.set()
    assert torch.equal(ahead.take(0, NAMES[0]), value(0, NAMES[0]))
    assert torch.equal(ahead.take(1, NAMES[5]), value(1, NAMES[5]))
    until(lambda: loader.statistics().waiting == 0)
    assert loader.statistics().cancelled == 4
    assert loads.begun == 6


def test_a_step_gives_an_images_own_and_a_block_may_ask_twice(
    loads: Counting, cache: ActivationCache
) -> None:
    names = [f"{kind}.{n}" for n in range(BLOCKS) for kind in ("key", "value")]
    step = PrefetchedStep(Prefetcher(loads, cache, 0, NBYTES), 0, 1, names)
    assert list(step) == names
    for name in ("key.0", "value.0", "key.0", "value.0", "key.1"):
        assert torch.equal(step[name], value(0, f"1.{name}"))
    with pytest.raises(KeyError):
        step["output.0"]


def test_an_edit_with_a_cache_on_disk_is_the_same(tmp_path: Path) -> None:
    atelier = Atelier(make_flux(tmp_path / "model"))
    room, nothing = 2**26, 0
    store = ActivationStore(tmp_path / "memory", tmp_path / "disk", room, room)
    with another(store, atelier) as lookup:
        painted(atelier, lookup, edit(atelier, picture(), lookup))
        row = edit(atelier, picture(), lookup, guidance=1.0)
        assert masked_of(row).prefetcher is None
        assert row.work.loaded == 0
        [expected] = painted(atelier, lookup, row)
        spilling = ActivationStore(tmp_path / "memory", tmp_path / "disk", nothing, room)
        spilling._evict_to_bound()
        row = edit(atelier, picture(), lookup)
        assert masked_of(row).prefetcher is not None
        assert row.work.loaded > 0
        [found] = painted(atelier, lookup, row)
        assert torch.equal(found, expected)
        masked_of(row).close()
        assert row.work.loaded == 0
