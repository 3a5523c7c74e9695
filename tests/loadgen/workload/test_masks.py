"""The production figures of FlashPS (arXiv 2505.20600)."""

from random import Random
from statistics import fmean, quantiles

import pytest

from loadgen.workload.masks import LEAST, MOST, USES, MaskUse

PUBLISHED: dict[MaskUse, dict[float, float]] = {
    "face_swap": {0.5: 0.095, 0.9: 0.208, 0.95: 0.245},
    "detail_fixing": {0.5: 0.023, 0.95: 0.065},
    "inpainting": {0.5: 0.221, 0.9: 0.873, 0.95: 0.916},
}
MEANS: dict[MaskUse, float] = {"face_swap": 0.112, "detail_fixing": 0.029, "inpainting": 0.354}


@pytest.mark.parametrize("use", tuple(PUBLISHED))
def test_what_is_drawn_has_about_the_published_quantiles_and_mean(use: MaskUse) -> None:
    random = Random(1)
    ratios = [USES[use](random) for _ in range(20_000)]
    assert fmean(ratios) == pytest.approx(MEANS[use], rel=0.05)
    hundredths = quantiles(ratios, n=100)
    for probability, ratio in PUBLISHED[use].items():
        assert hundredths[round(100 * probability) - 1] == pytest.approx(ratio, rel=0.06)
    assert min(ratios) >= LEAST
    assert max(ratios) <= MOST
