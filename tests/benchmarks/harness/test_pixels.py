"""How images are compared."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.harness.pixels import Difference, difference, total


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_equal_images_do_not_differ() -> None:
    image = png(np.full((2, 3, 3), 200))
    assert difference(image, image) == Difference(0, 6, 0, 0, 0)


def test_a_pixel_is_counted_once_by_its_worst_channel() -> None:
    black = np.zeros((2, 2, 3))
    other = black.copy()
    other[0, 0] = (1, 2, 0)
    other[0, 1] = (0, 0, 1)
    other[1, 1] = (255, 1, 2)
    assert difference(png(black), png(other)) == Difference(255, 4, 1, 1, 1)


def test_images_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(png(np.zeros((2, 2, 3))), png(np.zeros((2, 3, 3))))


def test_a_total_is_as_bad_as_its_worst() -> None:
    found = total([Difference(1, 4, 2, 0, 0), Difference(2, 4, 1, 3, 0)])
    assert found == Difference(2, 8, 3, 3, 0)
