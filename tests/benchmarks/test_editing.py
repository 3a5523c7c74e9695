"""The edits that all sides are asked for, and what is made of the figures."""

import io
import json
import random
from collections import Counter
from statistics import fmean
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.editing.__main__ import Found, figures, rows, summary
from benchmarks.editing.load import Load, all_at_once, arriving
from benchmarks.editing.orders import (
    Format,
    first_edits,
    mask_file,
    masks,
    poisson,
    requests_of,
    template_files,
)
from benchmarks.editing.sides import SIDES, Edited, computed_share
from loadgen.simulator.edit_mix import mixed
from services.denoiser.mask_cache.files import ActivationCache
from services.denoiser.mask_cache.row_cache import RowCache
from shared.media.masks import read_mask
from shared.media.reader import read_image
from shared.messages import GenerationRequest
from tests.conftest import run

FORM = Format(side=4, patch=16, steps=2)


# ------------------------------------------------------------------------------------ what is asked


def test_a_short_list_of_masks_has_the_mean_and_the_tails_of_a_long_one() -> None:
    lot = random.Random(5)
    long = sorted(mixed(lot) for _ in range(20_000))
    short = sorted(masks(16, random.Random(6)))
    assert fmean(short) == pytest.approx(fmean(long), abs=0.01)
    assert short[0] < 0.03
    assert short[-1] > 0.7


def test_the_list_is_the_same_in_every_run_and_another_one_for_another_seed() -> None:
    assert poisson(8, 20, seed=3) == poisson(8, 20, seed=3)
    assert poisson(8, 20, seed=3) != poisson(8, 20, seed=4)


def test_templates_are_asked_for_as_zipf_has_it_and_edits_come_one_a_unit() -> None:
    orders = poisson(2000, 20, seed=0)
    asked = Counter(order.template for order in orders)
    assert set(asked) <= set(range(20))
    assert asked[0] / asked[3] == pytest.approx(4.0, rel=0.3)
    times = [order.at for order in orders]
    assert times == sorted(times)
    assert times[-1] / len(times) == pytest.approx(1.0, rel=0.1)


def test_each_template_is_edited_once_before_anything_is_measured() -> None:
    assert [order.template for order in first_edits(5, seed=0)] == [0, 1, 2, 3, 4]


def test_a_masks_file_shows_its_tokens_and_nothing_else() -> None:
    data = mask_file(torch.tensor([0, 6]), FORM)
    holes = np.asarray(read_mask(read_image("mask", data))) > 0
    assert holes.shape == (64, 64)
    assert holes[::16, ::16].flatten().nonzero()[0].tolist() == [0, 6]
    assert holes.sum() == 2 * 16 * 16


def test_every_edit_brings_its_template_and_a_mask_of_its_own_size() -> None:
    files = template_files(3, FORM.pixels)
    orders = poisson(4, 3, seed=0)
    wanted = requests_of(orders, files, FORM)
    assert [request.image for request in wanted] == [files[order.template] for order in orders]
    assert len({request.mask for request in wanted}) > 1
    assert {Image.open(io.BytesIO(data)).size for data in files} == {(64, 64)}


# -------------------------------------------------------------------------------------- the figures


class Noting:
    """A side that notes what it is asked for, and draws at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def edit(self, request: GenerationRequest) -> Edited:
        if request.prompt == "trouble":
            raise RuntimeError("trouble")
        self.asked.append(request.prompt)
        return Edited(b"", share=0.25)


def test_edits_are_asked_for_when_they_are_due() -> None:
    side = Noting()
    wanted = [GenerationRequest(job_id=name, prompt=name) for name in ("third", "first", "second")]
    load = run(arriving(side, wanted, [0.02, 0.0, 0.01]))
    assert side.asked == ["first", "second", "third"]
    assert load.shares == (0.25, 0.25, 0.25)


def test_an_edit_that_fails_ends_the_measurement() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="trouble")):
        run(all_at_once(Noting(), [GenerationRequest(job_id="a", prompt="trouble")]))


def test_the_share_is_read_from_what_a_denoiser_says() -> None:
    some = torch.arange(16)
    cache = cast(ActivationCache, "any")
    masked = RowCache(tokens=some, dirty=some, positions=64, modes=(), cache=cache)
    masked.used = [0, 1]
    assert computed_share(sorted(masked.approximations(index=0, steps=2))) == 0.25
    assert computed_share(["control_lag edges: image 0"]) == 1.0
    assert computed_share([]) == 1.0


def found_with(cached: float, latency: float) -> Found:
    """Two rounds; the baselines edit 0.5 and 0.4 a second, in 8 and 9 seconds."""
    seconds = dict(zip(SIDES, (latency, 7.0, 8.0, 9.0), strict=True))
    found = Found({"recording": Load(2.0, (1.0,), (1.0,))}, 1, 4, ("contiguous",), rate=0.5)
    for name, rate in zip(SIDES, (cached, 0.6, 0.5, 0.4), strict=True):
        shares = (0.2, 1.0) if name == "cached" else (1.0, 1.0)
        found.backlogs[name] = [Load(2.0 / rate, (1.0, 1.0), shares)] * 2
        found.arrived[name] = Load(1.0, (seconds[name],) * 2, shares)
    return found


def test_ratios_are_against_the_better_baseline() -> None:
    one = figures(found_with(cached=1.5, latency=0.5))
    assert (one["throughput_ratio"], one["mean_latency_ratio"]) == (3.0, 16.0)
    assert one["firsts"]["recording"] == {"edits_per_second": 0.5, "computed_share": 1.0}
    cached = one["sides"]["cached"]
    assert (cached["computed_share"], cached["with_template"], cached["edits"]) == (0.6, 3, 6)


def test_of_one_and_of_two_denoisers_the_smaller_ratios_count() -> None:
    report = summary({"1": found_with(1.5, 1.0), "2": found_with(2.0, 4.0)})
    assert (report["throughput_ratio"], report["mean_latency_ratio"]) == (3.0, 2.0)
    assert max(len(line) for line in rows(report)) == len(rows(report)[0])
    json.dumps(report)
