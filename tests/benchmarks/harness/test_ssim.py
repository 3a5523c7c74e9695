"""SSIM has the properties that its authors state."""

import numpy as np
import pytest

from benchmarks.harness.ssim import SIDE, ssim, ssim_within

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)


def flat(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


def noisy(image: np.ndarray, spread: float) -> np.ndarray:
    added = image + RNG.normal(0, spread, image.shape)
    return added.clip(0, 255).astype(np.uint8)


def test_a_picture_is_as_similar_as_can_be_to_itself_alone() -> None:
    assert ssim(NOISE, NOISE) == pytest.approx(1.0, abs=1e-12)
    assert ssim(NOISE, NOISE[::-1]) < 0.2


def test_it_does_not_matter_which_picture_comes_first() -> None:
    other = noisy(NOISE, 30)
    assert ssim(NOISE, other) == pytest.approx(ssim(other, NOISE), abs=1e-12)


def test_of_flat_pictures_only_the_brightness_counts() -> None:
    constant = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + constant) / (100**2 + 150**2 + constant)
    assert ssim(flat(100), flat(150)) == pytest.approx(expected, abs=1e-9)


def test_the_opposite_of_a_picture_is_less_than_unlike() -> None:
    assert ssim(NOISE, 255 - NOISE) < -0.5


def test_more_noise_is_less_similar() -> None:
    ramp = np.repeat(np.linspace(0, 255, 40, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    found = [ssim(ramp, noisy(ramp, spread)) for spread in (0, 5, 20, 80)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1.0)


def test_one_window_is_the_formula_of_the_paper() -> None:
    """Weighted by hand in one sum over both dimensions."""
    x, y = (RNG.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(2))
    d = np.arange(SIDE) - SIDE // 2
    w = np.exp(-(d[:, None] ** 2 + d[None, :] ** 2) / (2 * 1.5**2))[..., None]
    w /= w.sum()
    mx, my = (w * x).sum((0, 1)), (w * y).sum((0, 1))
    vx, vy, cov = (
        (w * (x - mx) ** 2).sum((0, 1)),
        (w * (y - my) ** 2).sum((0, 1)),
        (w * (x - mx) * (y - my)).sum((0, 1)),
    )
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y) == pytest.approx(expected.mean(), abs=1e-9)


def test_pictures_of_different_or_too_small_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no SSIM"):
        ssim(NOISE, NOISE[:, :-1])
    with pytest.raises(ValueError, match="no SSIM"):
        ssim(NOISE[: SIDE - 1], NOISE[: SIDE - 1])


def test_within_a_part_only_the_windows_around_it_count() -> None:
    other = NOISE.copy()
    other[:, 30:] = 0
    left, everything = np.zeros((32, 40), bool), np.ones((32, 40), bool)
    left[:, :24] = True
    assert ssim_within(NOISE, other, left) == pytest.approx(1.0, abs=1e-12)
    assert ssim_within(NOISE, other, ~left) < 0.8
    assert ssim_within(NOISE, other, everything) == ssim(NOISE, other)


def test_a_part_at_the_edge_has_no_window() -> None:
    edge = np.zeros((32, 40), bool)
    edge[:4] = True
    with pytest.raises(ValueError, match="160 pixels"):
        ssim_within(NOISE, NOISE, edge)
