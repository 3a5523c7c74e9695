"""Pixels become files that the bus can carry."""

import io

import pytest
import torch
from PIL import Image

from services.vae.images import encode_image, less_quality
from shared.messages import ImageFormat

NOISE = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_file_that_is_too_large_has_less_quality(form: ImageFormat) -> None:
    best = encode_image(NOISE, form, 100)
    assert encode_image(NOISE, form, 100, most=len(best.data)) == best
    smaller = encode_image(NOISE, form, 100, most=len(best.data) - 1)
    assert smaller == encode_image(NOISE, form, 95)
    least = encode_image(NOISE, form, 40, most=1)
    assert least == encode_image(NOISE, form, 30)


def test_an_answer_says_which_image_has_less_quality_than_was_asked_for() -> None:
    encoded = encode_image(NOISE, "jpeg", 100, most=1)
    said = less_quality(2, "jpeg", 100, encoded.quality) or ""
    assert said.startswith("output_compression: image 2 is a jpeg of quality 30, for with 100")
    assert less_quality(0, "webp", 80, encode_image(NOISE, "webp", 80).quality) is None
    assert less_quality(0, "png", 80, encode_image(NOISE, "png", 80).quality) is None


def test_a_png_keeps_its_pixels() -> None:
    with Image.open(io.BytesIO(encode_image(NOISE, "png", 100).data)) as image:
        assert image.tobytes() == NOISE.numpy().tobytes()
