"""Pixels become files that the bus can carry."""

import io

import pytest
import torch
from PIL import Image

from services.vae.images import encode_image
from shared.messages import ImageFormat

NOISE = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_file_that_is_too_large_has_less_quality(form: ImageFormat) -> None:
    best = encode_image(NOISE, form, 100)
    assert encode_image(NOISE, form, 100, most=len(best)) == best
    smaller = encode_image(NOISE, form, 100, most=len(best) - 1)
    assert smaller == encode_image(NOISE, form, 95)
    least = encode_image(NOISE, form, 40, most=1)
    assert least == encode_image(NOISE, form, 30)


def test_a_png_keeps_its_pixels() -> None:
    with Image.open(io.BytesIO(encode_image(NOISE, "png", 100))) as image:
        assert image.tobytes() == NOISE.numpy().tobytes()
