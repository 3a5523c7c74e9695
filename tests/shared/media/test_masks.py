"""What a mask says, in all the forms that one comes in: docs/images.md, masks."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from shared.errors import InvalidRequest
from shared.media.masks import HALF, holes, mask_of, read_mask
from shared.media.reader import read_image
from tests.helpers.pictures import MIDDLE, SIZE, file, mask, picture, turned

LIGHT = Image.new("L", SIZE, 0)
LIGHT.paste(255, MIDDLE)
SOFT = LIGHT.filter(ImageFilter.GaussianBlur(3))


def opaque(light: Image.Image) -> Image.Image:
    return Image.merge("LA", (light, Image.new("L", light.size, 255))).convert("RGBA")


def drawn(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Where a mask's file has the image drawn anew, at the mask's own size."""
    return np.asarray(read_mask(read_image("mask", data))) >= HALF


@pytest.mark.parametrize(
    "data",
    [
        file(mask()),
        file(mask().convert("LA")),
        file(mask(), "WEBP"),
        file(mask(), "WEBP", lossless=True),
        file(mask().quantize(4)),
        file(LIGHT),
        file(LIGHT.convert("1")),
        file(LIGHT.convert("RGB")),
        file(LIGHT.convert("P")),
        file(opaque(LIGHT)),
        file(LIGHT, "WEBP", lossless=True),
        file(LIGHT, "JPEG"),
        file(LIGHT.convert("RGB"), "JPEG", quality=100, subsampling=0),
        turned(LIGHT, 3),
        turned(mask(), 6),
    ],
)
def test_one_mask_is_the_same_in_every_form(data: bytes) -> None:
    expected = np.zeros(SIZE[::-1], bool)
    left, upper, right, lower = MIDDLE
    expected[upper:lower, left:right] = True
    found = drawn(data)
    if data[:2] == b"\xff\xd8":  # its edges are as sharp as a jpeg's
        assert (found != expected).mean() < 0.01
    else:
        assert (found == expected).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_soft_light_counts_from_the_middle(form: str) -> None:
    found = drawn(file(SOFT, form, quality=95))
    assert (found != (np.asarray(SOFT) >= HALF)).mean() < 0.01


def test_of_an_alpha_channel_only_what_is_fully_transparent_counts() -> None:
    steps = Image.new("L", (4, 1))
    steps.putdata([0, 1, 254, 255])
    assert list(holes(steps).tobytes()) == [255, 0, 0, 0]
    soft = mask()
    soft.putalpha(Image.eval(SOFT, lambda light: 255 - light))
    assert (drawn(file(soft)) == (np.asarray(SOFT) == 255)).all()


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (Image.new("L", SIZE, 0), "without anything white"),
        (mask(shown=None), "without anything white"),
        (Image.new("RGBA", SIZE, (0, 0, 0, 10)), "least alpha is 10"),
        (picture(), "in colours"),
        (Image.new("RGB", SIZE, "yellow"), "in colours"),
    ],
)
def test_a_mask_that_says_nothing_is_refused_with_what_it_is(
    image: Image.Image, found: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"mask: .*{found}.* fully transparent"):
        drawn(file(image))


def test_an_image_is_its_own_mask_if_any_of_it_is_fully_transparent() -> None:
    own = mask_of(read_image("image", file(mask())))
    assert own is not None
    assert (np.asarray(own) == np.asarray(LIGHT)).all()
    half = picture(mode="RGBA")
    half.putalpha(1)
    for image in (half, picture(), LIGHT):
        assert mask_of(read_image("image", file(image))) is None
