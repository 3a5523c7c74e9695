"""Edits with cached masks on a tiny FLUX: the first one is recorded, later ones compute less."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.denoiser.cfg_parallel.split import can_be_shared
from services.denoiser.forward.step import Batch
from services.denoiser.mask_cache.lookup import CacheLookup, planned
from services.denoiser.mask_cache.recorder import MAX_PENDING, Recorder
from services.denoiser.mask_cache.row_cache import RowCache
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage, content_digest
from shared.models.contracts.network import MaskedNetwork
from shared.models.loras.read import read_adapter
from shared.policy.cost_model import CostModel
from shared.residency.loader import Loader
from tests.helpers.flux import Atelier, Wish, make_flux
from tests.helpers.loras import write_lora

STEPS = 4
SIZE = (128, 128)
ROOM = 2**26


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    return Atelier(make_flux(tmp_path_factory.mktemp("model")))


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "memory", tmp_path / "disk", ROOM, ROOM)


@pytest.fixture
def lookup(store: ActivationStore, atelier: Atelier) -> Iterator[CacheLookup]:
    with another(store, atelier) as found:
        yield found


def another(store: ActivationStore, atelier: Atelier) -> closing[CacheLookup]:
    """A denoiser's."""
    assert isinstance(atelier.network, MaskedNetwork)
    return closing(CacheLookup(store, atelier.family, atelier.network, Loader()))


def picture(box: tuple[int, int, int, int] = (2, 2, 8, 8), number: int = 0) -> SourceImage:
    """An image of which `box` (left, top, right, bottom; latent positions) is drawn anew."""
    mean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(number))
    std = torch.full_like(mean, 0.1)
    mask = torch.zeros(1, 1, 16, 16)
    left, top, right, bottom = box
    mask[..., top:bottom, left:right] = 1.0
    found = content_digest(mean, std)
    return SourceImage(mean, std, mask, pure=True, digest=found)


def edit(
    atelier: Atelier,
    image: SourceImage,
    lookup: CacheLookup | None,
    prompt: str = "a red cube",
    seed: int = 1,
    guidance: float = 1.0,
) -> Row:
    wish = Wish(prompt, seed=seed, steps=STEPS, guidance=guidance, size=SIZE)
    row = atelier.row(wish, image=image)
    masked = None if lookup is None else lookup.masked(row, image, 0)
    row.extensions = () if masked is None else (masked,)
    return row


def masked_of(row: Row) -> RowCache:
    """What is masked of it, if anything is."""
    found = row.extension(RowCache)
    assert found is not None
    return found


def painted(atelier: Atelier, lookup: CacheLookup, *rows: Row) -> list[torch.Tensor]:
    atelier.paint(rows)
    lookup.settle()
    return [row.latents for row in rows]


def test_outside_the_mask_all_edits_of_an_image_begin_alike(atelier: Atelier) -> None:
    image = picture()
    assert image.mask is not None
    first, second = (edit(atelier, image, None, seed=seed) for seed in (1, 2))
    outside = image.mask.expand_as(first.latents) == 0
    assert torch.equal(first.latents[outside], second.latents[outside])
    assert not torch.isclose(first.latents[~outside], second.latents[~outside]).any()
    other = edit(atelier, picture(number=1), None)
    assert not torch.isclose(first.latents[outside], other.latents[outside]).any()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_first_edit_is_exact_and_a_later_one_uses_what_it_recorded(
    atelier: Atelier, lookup: CacheLookup, guidance: float
) -> None:
    plain = edit(atelier, picture(), None, guidance=guidance)
    atelier.paint([plain])
    first = edit(atelier, picture(), lookup, guidance=guidance)
    [exact] = painted(atelier, lookup, first)
    torch.testing.assert_close(exact, plain.latents, atol=1e-5, rtol=1e-5)
    assert masked_of(first).approximations(0, STEPS) == set()

    again = edit(atelier, picture(), lookup, guidance=guidance)
    [found] = painted(atelier, lookup, again)
    torch.testing.assert_close(found, exact, atol=2e-2, rtol=2e-2)
    assert not torch.equal(found, exact)
    told = f"mask_cached: image 0, 0.14 of tokens, {STEPS} of steps 1 to {STEPS}"
    assert masked_of(again).approximations(0, STEPS) == {told}


def test_another_prompt_and_mask_use_the_cache_of_the_image(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    painted(atelier, lookup, edit(atelier, picture(), lookup))
    image = picture((6, 6, 12, 12))
    row = edit(atelier, image, lookup, prompt="a blue ball", seed=5)
    assert masked_of(row).cache is not None
    # 9 tokens each, one in common: what another edit made there is never seen.
    assert len(masked_of(row).tokens) == 17
    [found] = painted(atelier, lookup, row)
    assert image.mask is not None
    assert row.mask_blend is not None
    outside = image.mask.expand_as(found) == 0
    assert torch.equal(found[outside], row.mask_blend.image[outside])
    assert store.statistics().hits == 1


def test_another_denoiser_of_the_host_finds_the_cache(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    painted(atelier, lookup, edit(atelier, picture(), lookup))
    with another(store, atelier) as elsewhere:
        row = edit(atelier, picture(), elsewhere)
        assert masked_of(row).cache is not None


def test_rows_in_one_step_do_not_notice_each_other(atelier: Atelier, lookup: CacheLookup) -> None:
    plain = Wish("a green cone", steps=STEPS, size=SIZE)
    alone = atelier.row(plain)
    atelier.paint([alone])
    painted(atelier, lookup, edit(atelier, picture(), lookup))
    expected = painted(atelier, lookup, edit(atelier, picture(), lookup, seed=3))
    rows = (
        atelier.row(plain),
        edit(atelier, picture(), lookup, seed=3),
        edit(atelier, picture(number=1), lookup),
    )
    found = painted(atelier, lookup, *rows)
    torch.testing.assert_close(found[0], alone.latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[0], atol=1e-5, rtol=1e-5)
    later = edit(atelier, picture(number=1), lookup)
    assert masked_of(later).cache is not None


def test_beside_a_row_with_loras_all_is_computed(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore, tmp_path: Path
) -> None:
    [expected] = painted(atelier, lookup, edit(atelier, picture(), lookup))
    networks = {"transformer": atelier.pipeline.transformer}
    file = write_lora(tmp_path / "style.safetensors", networks, seed=1, endings=("attn.to_q",))
    adapter = read_adapter("style", file, atelier.family)
    styled = atelier.row(Wish("a tree", steps=STEPS, size=SIZE), ((adapter, 1.0),))
    row, unknown = edit(atelier, picture(), lookup), edit(atelier, picture(number=1), lookup)
    [found, *_] = painted(atelier, lookup, row, unknown, styled)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert masked_of(row).approximations(0, STEPS) == set()
    assert store.statistics().templates == 1


def test_a_cache_that_was_cut_short_is_recorded_anew(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore, tmp_path: Path
) -> None:
    [expected] = painted(atelier, lookup, edit(atelier, picture(), lookup))
    [file] = (tmp_path / "memory").glob("*/2.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    row = edit(atelier, picture(), lookup)
    assert masked_of(row).cache is None
    assert torch.equal(painted(atelier, lookup, row)[0], expected)
    assert (store.statistics().distrusted, store.statistics().recorded) == (1, 2)


def test_what_is_not_finished_is_no_cache(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    row = edit(atelier, picture(), lookup)
    masked_of(row).partials(0, 1, row.latents.device)
    masked_of(row).stepped(0)
    masked_of(row).close()
    masked_of(row).stepped(1)
    lookup.settle()
    found = store.statistics()
    assert (found.templates, found.bytes, found.recorded) == (0, 0, 0)


def test_a_step_that_was_not_recorded_is_the_end_of_the_recording(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    """As one with others' adapters in a bank is."""
    row = edit(atelier, picture(), lookup)
    masked_of(row).partials(0, 1, row.latents.device)
    masked_of(row).stepped(0)
    assert masked_of(row).active
    masked_of(row).stepped(1)
    assert not masked_of(row).active
    lookup.settle()
    assert store.statistics().bytes == 0


def test_a_recording_that_is_too_slow_is_given_up(store: ActivationStore) -> None:
    busy = threading.Event()
    with ThreadPoolExecutor(1) as writer:
        writer.submit(busy.wait)
        recorder = Recorder(store, "1" * 64, 1000, MAX_PENDING + 2, writer)
        for step in range(MAX_PENDING):
            recorder.put(step, {"0.key.0": torch.zeros(4)})
            assert not recorder.over
        recorder.put(MAX_PENDING, {"0.key.0": torch.zeros(4)})
        assert recorder.over
        busy.set()
    assert store.statistics().bytes == 0


def test_of_several_that_record_the_first_one_does(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    painted(atelier, lookup, *(edit(atelier, picture(), lookup, seed=k) for k in (1, 2)))
    assert (store.statistics().templates, store.statistics().recorded) == (1, 1)


def test_a_row_goes_on_elsewhere_with_the_cache(atelier: Atelier, lookup: CacheLookup) -> None:
    painted(atelier, lookup, edit(atelier, picture(), lookup))
    row, kept = edit(atelier, picture(), lookup, seed=2), dict[int, dict[str, torch.Tensor]]()
    atelier.paint([row], kept.__setitem__)
    resumed = edit(atelier, picture(), None, seed=2).resume(2, kept[2])
    masked = lookup.masked(resumed, picture(), 0)
    assert masked is not None
    resumed.extensions = (masked,)
    atelier.paint([resumed])
    torch.testing.assert_close(resumed.latents, row.latents, atol=1e-5, rtol=1e-5)
    assert masked_of(resumed).approximations(0, STEPS) == {
        f"mask_cached: image 0, 0.14 of tokens, 2 of steps 3 to {STEPS}"
    }


def test_a_row_that_goes_on_where_its_cache_is_gone_is_computed_in_full(
    atelier: Atelier, lookup: CacheLookup
) -> None:
    row, kept = edit(atelier, picture(), None), dict[int, dict[str, torch.Tensor]]()
    atelier.paint([row], kept.__setitem__)
    resumed = edit(atelier, picture(), None).resume(2, kept[2])
    assert lookup.masked(resumed, picture(), 0) is None


def computed(atelier: Atelier, lookup: CacheLookup, box: tuple[int, int, int, int]) -> int:
    """Tokens of an edit of `box`, which is made."""
    row = edit(atelier, picture(box), lookup, prompt="a ball", seed=3)
    painted(atelier, lookup, row)
    return (
        len(masked_of(row).tokens) if masked_of(row).cache is not None else masked_of(row).positions
    )


def test_what_an_edit_painted_is_mended_by_the_next_one(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    one, two = (2, 2, 8, 8), (6, 6, 12, 12)
    boxes = (one, two, one, two, (12, 12, 16, 16), one)
    # 64 tokens; 9 each, one in common, which the one elsewhere mends: but that is not worth it.
    assert [computed(atelier, lookup, box) for box in boxes] == [64, 17, 9, 9, 5, 9]
    assert (store.statistics().templates, store.statistics().recorded) == (1, 2)


def test_what_is_mended_is_what_is_in_the_image(atelier: Atelier, lookup: CacheLookup) -> None:
    """What another edit is given of it is what it would be given if nothing had been painted."""
    elsewhere, here = (12, 12, 16, 16), (2, 2, 8, 8)
    painted(atelier, lookup, edit(atelier, picture(elsewhere), lookup, prompt="a ball"))
    first = edit(atelier, picture(here), lookup)
    assert masked_of(first).cache is not None
    [exact] = painted(atelier, lookup, first)
    again = edit(atelier, picture(here), lookup)
    assert masked_of(again).cache is not None
    assert len(masked_of(again).tokens) == 9
    [found] = painted(atelier, lookup, again)
    torch.testing.assert_close(found, exact, atol=2e-2, rtol=2e-2)


def test_a_cache_of_a_large_edit_is_recorded_anew(
    atelier: Atelier, lookup: CacheLookup, store: ActivationStore
) -> None:
    most, some = (0, 0, 16, 12), (0, 12, 6, 16)
    assert [computed(atelier, lookup, box) for box in (most, some, some)] == [64, 54, 6]
    assert store.statistics().recorded == 2
    other = picture((0, 0, 16, 12), number=1), picture((0, 10, 16, 16), number=1)
    rows = [edit(atelier, image, lookup) for image in other]
    painted(atelier, lookup, rows[0])
    row = edit(atelier, other[1], lookup)
    assert masked_of(row).cache is None
    painted(atelier, lookup, row)
    again = edit(atelier, other[1], lookup)
    assert len(masked_of(again).tokens) == 24


def test_an_edit_of_nearly_all_of_an_image_is_not_recorded(
    atelier: Atelier, lookup: CacheLookup
) -> None:
    assert edit(atelier, picture((0, 0, 16, 14)), lookup).extension(RowCache) is None


PLACES = st.sets(st.integers(0, 99), min_size=1).map(lambda found: torch.tensor(sorted(found)))


@given(PLACES, st.none() | PLACES, st.booleans())
def test_nothing_of_an_edit_is_seen_by_others(
    own: torch.Tensor, before: torch.Tensor | None, whole: bool
) -> None:
    found = planned(own, before, 100, whole)
    ours, tokens, edited = (set(each.tolist()) for each in (own, found.tokens, found.dirty))
    theirs = set() if before is None else set(before.tolist())
    if found.cached:
        assert before is not None
        assert tokens == ours | theirs
    assert found.cached == (before is not None and len(ours | theirs) <= 85)
    if found.recorded:
        assert whole
        assert edited == (ours & theirs if found.cached else ours)
        assert before is None or len(edited) <= len(theirs) - 2


def test_what_a_row_computes_is_what_is_predicted_of_it(
    atelier: Atelier, lookup: CacheLookup
) -> None:
    first = edit(atelier, picture(), lookup)
    painted(atelier, lookup, first)
    row = edit(atelier, picture(), lookup)
    full, part = first.work, row.work
    share = (9 + 12) / (64 + 12)
    assert full.tokens == 16 * 16
    assert part.tokens == round(share * full.tokens)
    assert part.pairs == part.tokens * full.tokens
    cost = CostModel().observe(full, 1.0)
    assert cost.predict(part) < cost.predict(full)


def test_half_of_a_masked_row_is_nobody_elses_to_compute(
    atelier: Atelier, lookup: CacheLookup
) -> None:
    painted(atelier, lookup, edit(atelier, picture(), lookup, guidance=3.0))
    row = edit(atelier, picture(), lookup, guidance=3.0)
    assert masked_of(row).cache is not None
    assert not can_be_shared(Batch.of([row], atelier.network))
