"""Blocks whose caches have to be loaded: computed in full where that is sooner."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.denoiser.mask_cache.block_modes import block_modes, choose_modes
from services.denoiser.mask_cache.lookup import CacheLookup
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.rows.row import Row
from shared.policy.cost_model import CostModel
from shared.policy.step_work import StepWork
from shared.residency.item import Item, Pieces
from shared.residency.loader import Loader
from tests.helpers.flux import Atelier, make_flux
from tests.services.denoiser.mask_cache.test_masked import (
    STEPS,
    another,
    edit,
    masked_of,
    painted,
    picture,
)


def known() -> CostModel:
    """A millisecond for each token."""
    cost = CostModel()
    for tokens in (40, 100, 268) * 8:
        cost = cost.observe(StepWork.full(1, tokens), 1e-3 * tokens)
    return cost


def test_where_loads_are_quick_all_caches_are_used_and_where_they_are_slow_none() -> None:
    assert block_modes(4, whole=1.0, part=0.2, load=0.1, head=0.1) == ("keys_values",) * 4
    assert block_modes(4, whole=1.0, part=0.2, load=100.0, head=0.0) == ("full",) * 4
    assert block_modes(4, whole=1.0, part=0.2, load=1.0, head=0.0) == (
        *("full",) * 2,
        *("keys_values",) * 2,
    )


class Spilled:
    """A denoiser, and lookup that lie on its host's disk."""

    def __init__(self, atelier: Atelier, folder: Path) -> None:
        self.atelier, self.folder = atelier, folder
        self.store = self._with_room(2**26)

    def _with_room(self, room: int) -> ActivationStore:
        return ActivationStore(self.folder / "memory", self.folder / "disk", room, 2**26)

    def spill(self) -> None:
        self._with_room(0)._evict_to_bound()

    def row(self, lookup: CacheLookup) -> Row:
        return edit(self.atelier, picture(), lookup)


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    return Atelier(make_flux(tmp_path_factory.mktemp("model")))


@pytest.fixture
def busy() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def host(atelier: Atelier, tmp_path: Path) -> Iterator[tuple[Spilled, CacheLookup]]:
    found = Spilled(atelier, tmp_path)
    with another(found.store, atelier) as lookup:
        painted(atelier, lookup, found.row(lookup))
        yield found, lookup


def hold(loader: Loader, until: threading.Event) -> None:
    def held() -> Pieces[None]:
        until.wait()
        yield 1

    loader.bring(Item("busy", 1, held))


def test_rows_agree_on_modes_and_their_work_is_predicted_by_them(
    host: tuple[Spilled, CacheLookup], busy: threading.Event
) -> None:
    spilled, lookup = host
    near = spilled.row(lookup)
    spilled.spill()
    hold(lookup._transfer._loader, busy)  # nothing is loaded meanwhile
    far = spilled.row(lookup)
    before = far.work
    lookup._transfer.rate.seconds_per_byte = 1.0
    choose_modes([near, far], known())
    assert masked_of(near).modes == masked_of(far).modes == ("full",) * 4
    ahead = masked_of(far).prefetcher
    assert ahead is not None
    assert ahead.skipped == 4
    assert far.work == StepWork.full(1, far.shape_key.tokens)
    lookup._transfer.rate.seconds_per_byte = 0.0
    choose_modes([near, far], known())
    assert masked_of(near).modes == masked_of(far).modes == ("keys_values",) * 4
    assert far.work == before
    lookup._transfer.rate.seconds_per_byte = 1.0
    choose_modes([near], known())
    assert masked_of(near).modes == ("keys_values",) * 4


def test_where_nothing_is_loaded_all_caches_are_used_however_long_that_takes(
    host: tuple[Spilled, CacheLookup],
) -> None:
    spilled, lookup = host
    row, slow = spilled.row(lookup), known()
    for _ in range(20):
        slow = slow.observe(StepWork.of(1, 100, 256, masked=1), 10.0)
    choose_modes([row], slow)
    assert masked_of(row).modes == ("keys_values",) * 4
    assert row.work.masked == 1


def test_before_anything_was_measured_all_caches_are_used(
    host: tuple[Spilled, CacheLookup],
) -> None:
    spilled, lookup = host
    spilled.spill()
    row = spilled.row(lookup)
    lookup._transfer.rate.seconds_per_byte = 1.0
    choose_modes([row], CostModel())
    assert masked_of(row).modes == ("keys_values",) * 4


def test_an_edit_whose_blocks_are_all_computed_in_full_is_exact_and_says_so(
    host: tuple[Spilled, CacheLookup], atelier: Atelier
) -> None:
    spilled, lookup = host
    spilled.spill()
    exact = edit(atelier, picture(), None)
    atelier.paint([exact])
    row = spilled.row(lookup)
    masked_of(row).modes = ("full",) * 4
    partials = masked_of(row).partials(0, 1, torch.device("cpu"))
    assert partials[0].masked is not None
    masked_of(row).stepped(0)
    assert masked_of(row).approximations(0, STEPS) == set()
