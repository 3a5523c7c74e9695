"""The production figures of FlashPS (arXiv 2505.20600)."""

from random import Random
from statistics import fmean, quantiles

import pytest

from loadgen.workload.masks import KNOTS, MaskUse, draw, mean, quantile

PUBLISHED: dict[MaskUse, dict[float, float]] = {
    "face_swap": {0.5: 0.095, 0.9: 0.208, 0.95: 0.245},
    "detail_fixing": {0.5: 0.023, 0.95: 0.065},
    "inpainting": {0.5: 0.221, 0.9: 0.873, 0.95: 0.916},
}
MEANS: dict[MaskUse, float] = {"face_swap": 0.112, "detail_fixing": 0.029, "inpainting": 0.354}
USES = tuple(PUBLISHED)


@pytest.mark.parametrize("use", USES)
def test_the_distribution_has_the_published_quantiles_and_mean(use: MaskUse) -> None:
    for probability, ratio in PUBLISHED[use].items():
        assert quantile(use, probability) == pytest.approx(ratio, abs=1e-9)
    assert mean(use) == pytest.approx(MEANS[use], abs=0.0005)


@pytest.mark.parametrize("use", USES)
def test_what_is_drawn_follows_the_distribution(use: MaskUse) -> None:
    random = Random(1)
    ratios = [draw(use, random) for _ in range(20_000)]
    assert fmean(ratios) == pytest.approx(MEANS[use], rel=0.02)
    hundredths = quantiles(ratios, n=100)
    for probability, ratio in PUBLISHED[use].items():
        assert hundredths[round(100 * probability) - 1] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("use", USES)
def test_every_ratio_is_a_part_of_the_picture_and_knots_ascend(use: MaskUse) -> None:
    assert KNOTS[use] == tuple(sorted(KNOTS[use]))
    ratios = [ratio for _, ratio in KNOTS[use]]
    assert ratios == sorted(ratios)
    assert ratios[0] > 0
    assert ratios[-1] <= 1
