"""Files become pixels as a viewer shows them: the table of docs/images.md."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from shared.media.profiles import from_srgb
from shared.media.reader import read_image
from tests.helpers.pictures import SIZE, TURNED, chunk, file, picture, png, profile, turned

Pixels = np.ndarray[Any, Any]
PICTURE = picture((40, 24))
RAMP = np.tile(np.linspace(0, 65535, 64).round().astype(np.int64), (8, 1))


def shown(data: bytes) -> Pixels:
    image = read_image("image", data).shown()
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def of(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_a_picture_is_upright_in_every_orientation(
    orientation: int, form: str, options: dict[str, Any]
) -> None:
    data = turned(PICTURE, orientation, form, **options)
    assert (shown(data) == of(PICTURE)).all()
    assert read_image("image", data).size == PICTURE.size


@pytest.mark.parametrize("orientation", [*TURNED, 0, 1, 9, 65535])
def test_a_photograph_is_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(PICTURE, "JPEG", quality=95, exif=exif)
    with Image.open(BytesIO(data)) as image:
        assert (shown(data) == of(ImageOps.exif_transpose(image))).all()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def test_xmp_says_the_orientation_where_exif_does_not() -> None:
    sideways = PICTURE.transpose(TURNED[6])
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6
    in_png = file(sideways)
    in_png = in_png[:33] + chunk(b"iTXt", text) + in_png[33:]
    assert (shown(in_png) == of(PICTURE)).all()
    in_webp = file(sideways, "WEBP", lossless=True, xmp=XMP % 6)
    assert (shown(in_webp) == of(PICTURE)).all()
    in_jpeg = file(sideways, "JPEG", xmp=XMP % 6)
    assert read_image("image", in_jpeg).orientation == 6
    exif = Image.Exif()
    exif[0x0112] = 1
    assert read_image("image", file(sideways, "WEBP", xmp=XMP % 6, exif=exif)).orientation == 1


GREY = ((RAMP + 128) // 257).astype(int)
GREYS = np.repeat(GREY[..., None], 3, axis=2)
COLOURS = np.stack([RAMP, RAMP[:, ::-1], 65535 - RAMP // 2], axis=2)
OPAQUE = np.full_like(RAMP, 65535)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(RAMP, 16, 0), GREYS),
        (png(RAMP // 16, 16, 0), np.repeat(((RAMP // 16 + 128) // 257)[..., None], 3, axis=2)),
        (png(COLOURS, 16, 2), COLOURS >> 8),
        (png(np.stack([RAMP, OPAQUE], axis=2), 16, 4), np.repeat((RAMP >> 8)[..., None], 3, 2)),
        (png(np.dstack([COLOURS, OPAQUE]), 16, 6), COLOURS >> 8),
        (png(GREY, 8, 0), GREYS),
        (png(GREY >> 4, 4, 0), GREYS // 16 * 17),
        (png(GREY >> 6, 2, 0), GREYS // 64 * 85),
        (png(GREY >> 7, 1, 0), GREYS // 128 * 255),
    ],
)
def test_depths_are_brought_to_eight_bits(data: bytes, expected: Pixels) -> None:
    assert (shown(data) == expected).all()


@pytest.mark.parametrize(
    ("samples", "depth", "colour", "hole"),
    [
        (RAMP, 16, 0, [RAMP[0, 9]]),
        (GREY, 8, 0, [GREY[0, 9]]),
        (GREY >> 4, 4, 0, [GREY[0, 9] >> 4]),
        (GREY >> 6, 2, 0, [GREY[0, 9] >> 6]),
        (GREY >> 7, 1, 0, [1]),
        (COLOURS >> 8, 8, 2, (COLOURS >> 8)[0, 9]),
        (COLOURS, 16, 2, COLOURS[0, 9]),
    ],
)
def test_a_colour_that_is_declared_transparent_is(
    samples: Pixels, depth: int, colour: int, hole: Any
) -> None:
    values = np.array(hole).astype(">u2").tobytes()
    alpha = read_image("image", png(samples, depth, colour, chunk(b"tRNS", values))).alpha()
    assert alpha is not None
    at = samples.reshape(*samples.shape[:2], -1)
    assert ((np.asarray(alpha) == 0) == (at == np.array(hole)).all(axis=2)).all()


QUANTIZED = PICTURE.quantize(8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (file(QUANTIZED), QUANTIZED),
        (file(PICTURE.convert("1")), PICTURE.convert("1")),
        (file(PICTURE.convert("L")), PICTURE.convert("L")),
        (file(PICTURE, save_all=True, append_images=[Image.new("RGB", PICTURE.size)]), PICTURE),
        (
            file(
                PICTURE,
                "WEBP",
                save_all=True,
                append_images=[Image.new("RGB", PICTURE.size)],
                lossless=True,
            ),
            PICTURE,
        ),
    ],
)
def test_palettes_greys_and_first_frames_are_shown(data: bytes, expected: Image.Image) -> None:
    assert (shown(data) == of(expected)).all()


def test_of_several_photographs_in_a_file_the_first_is_shown() -> None:
    first = file(PICTURE, "JPEG", quality=95)
    both = file(PICTURE, "MPO", save_all=True, append_images=[picture(seed=1)], quality=95)
    assert (shown(both) == shown(first)).all()
    assert (shown(first + b"a video") == shown(first)).all()


def test_inks_and_greys_of_a_jpeg_look_as_their_colours() -> None:
    smooth = picture(SIZE)
    for mode in ("L", "CMYK"):
        data = file(smooth.convert(mode), "JPEG", quality=100)
        assert np.abs(shown(data) - of(smooth.convert(mode))).max() <= 4


@pytest.mark.parametrize("alpha", [0, 1, 128])
def test_what_is_transparent_lets_white_through_whatever_lies_under_it(alpha: int) -> None:
    fields = []
    for colour in ((255, 0, 0), (0, 0, 0)):
        image = Image.new("RGBA", (8, 8), (*colour, alpha))
        image.paste((0, 0, 0, 255), (2, 2, 4, 4))
        on_white = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), image)
        for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
            found = shown(file(image, form, **options))
            assert np.abs(found - of(on_white)).max() <= 1
            fields.append(found)
    if alpha == 0:
        assert (fields[0] == fields[2]).all()


def test_a_palette_with_transparent_entries_lets_white_through() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 0, 0])
    image.putdata([0, 1, 2, 0])
    for entries in (0, b"\0\xff\x80"):
        found = shown(file(image, transparency=entries))
        assert found[0, 0].tolist() == found[0, 3].tolist() == [255, 255, 255]
        assert found[0, 1].tolist() == [0, 0, 255]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_colours_of_another_profile_are_converted_to_srgb(form: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "PNG": {},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    data = file(PICTURE, form, icc_profile=profile("swapped"), **options[form])
    found, expected = shown(data), of(PICTURE)[..., ::-1]
    assert np.abs(found - expected).max() <= (4 if form == "JPEG" else 2)


def test_a_profile_of_srgb_changes_nothing() -> None:
    assert (shown(file(PICTURE, icc_profile=profile("srgb"))) == of(PICTURE)).all()


def test_a_profile_of_other_pixels_counts_as_none() -> None:
    data = file(PICTURE.convert("L"), icc_profile=profile("swapped"))
    assert (shown(data) == of(PICTURE.convert("L"))).all()


@pytest.mark.parametrize("space", ["srgb", "swapped"])
def test_what_a_result_keeps_is_a_pictures_own(space: str) -> None:
    picked = read_image("image", file(PICTURE, icc_profile=profile(space)))
    own, said = picked.kept()
    assert said == profile(space)
    assert (of(own) == of(PICTURE)).all()
    back = from_srgb(picked.shown(), profile(space))
    assert np.abs(of(back) - of(PICTURE)).max() <= 2


@pytest.mark.parametrize(
    "data",
    [
        file(PICTURE),
        file(PICTURE, icc_profile=b"no profile"),
        file(PICTURE, icc_profile=profile("srgb") + bytes(40_000)),
        file(PICTURE.convert("L"), icc_profile=profile("srgb")),
        file(PICTURE.convert("CMYK"), "JPEG", icc_profile=profile("srgb")),
    ],
)
def test_where_no_profile_can_be_kept_a_result_is_in_srgb(data: bytes) -> None:
    own, said = read_image("image", data).kept()
    assert (own.mode, said) == ("RGB", None)
