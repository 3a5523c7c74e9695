"""Pixels decide whether a file is a picture: what is said about them may be damaged."""

import gc
import struct
import subprocess
import sys
import weakref
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.errors import InvalidRequest
from shared.media import reader
from shared.media.masks import read_mask
from shared.media.reader import read_image
from tests.helpers.pictures import (
    chunk,
    file,
    mask,
    picture,
    png,
    profile,
    turned,
    with_chunks,
    with_segments,
)

PICTURE = picture((60, 44))
PNG, WEBP = file(PICTURE), file(PICTURE, "WEBP", lossless=True)
JPEG = file(PICTURE, "JPEG", quality=90)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8))


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    count = len(content) + 2 if length is None else length
    return bytes([0xFF, marker]) + struct.pack(">H", count) + content


def exif(entries: int, *fields: tuple[int, int, int, int]) -> bytes:
    """A directory that says it has so many entries."""
    body = b"".join(struct.pack(">HHIHH", tag, kind, n, value, 0) for tag, kind, n, value in fields)
    return b"MM\0*" + struct.pack(">IH", 8, entries) + body


DAMAGED_EXIF = [
    b"",
    b"MM\0*",
    b"MM\0*\xff\xff\xff\xff",
    exif(60000),
    exif(1, (0x0112, 2, 1, 3)),
    exif(1, (0x0112, 3, 500, 3)),
    exif(1, (0x0112, 3, 1, 77)),
    exif(1)[:9],
    b"\0" * 40,
]


@pytest.mark.parametrize("said", DAMAGED_EXIF)
def test_damaged_exif_means_upright(said: bytes) -> None:
    for data in (
        with_chunks(PNG, chunk(b"eXIf", said)),
        with_segments(JPEG, segment(0xE1, b"Exif\0\0" + said)),
        file(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0" + said),
    ):
        assert read_image("image", data).orientation == 1


def test_an_orientation_counts_whatever_else_is_damaged() -> None:
    said = exif(9, (0x0100, 4, 1, 1), (0x0112, 3, 1, 6))
    for data in (
        with_chunks(PNG, chunk(b"eXIf", said)),
        with_segments(JPEG, segment(0xE1, b"Exif\0\0" + said)),
    ):
        assert read_image("image", data).orientation == 6


LARGE = zlib.compress(bytes(20_000_000))
TEXT = b"Comment\0"


@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"zTXt", TEXT + b"\0" + LARGE),
        chunk(b"iTXt", TEXT + b"\1\0\0\0" + LARGE),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
        chunk(b"tEXt", bytes(2_000_000)),
        chunk(b"zTXt", b""),
        chunk(b"iTXt", b"x"),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzz"),
        chunk(b"iCCP", b"icc\0\0" + LARGE),
        chunk(b"iCCP", b"icc\0\0no zlib"),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"no profile")),
        chunk(b"tRNS", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"cHRM", b"\0\1"),
        chunk(b"tEXt", TEXT)[:-4] + b"\0\0\0\0",
        b"\0\0\0\5" + chunk(b"tEXt", TEXT)[4:],
        b"\0\1\0\0" + chunk(b"tEXt", TEXT)[4:],
        b"\x7f\xff\xff\xff" + chunk(b"tEXt", TEXT)[4:],
        b"\xff" * 30,
    ],
)
def test_damaged_chunks_of_a_png_count_as_none(damaged: bytes) -> None:
    found = read_image("image", with_chunks(PNG, damaged)).shown()
    assert (np.asarray(found) == np.asarray(PICTURE)).all()


def test_chunks_about_colours_count_as_none_behind_the_pixels() -> None:
    late = chunk(b"tRNS", bytes(6)) + chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile("swapped")))
    found = read_image("image", PNG[:-12] + late + PNG[-12:])
    assert (np.asarray(found.shown()) == np.asarray(PICTURE)).all()
    assert found.alpha() is None


THUMBNAIL = file(picture((16, 16)), "JPEG")


@pytest.mark.parametrize(
    "damaged",
    [
        segment(0xFE, b"a comment", length=3),
        segment(0xFE, b"a comment", length=60),
        segment(0xFE, b"a comment", length=0),
        segment(0xFE, b"a comment", length=65535),
        segment(0xE1, b"Exif\0\0" + exif(0) + THUMBNAIL, length=24),
        segment(0xE1, b"Exif\0\0" + exif(0) + THUMBNAIL, length=len(THUMBNAIL) + 80),
        segment(0xE2, b"MPF\0" + bytes(20)),
        segment(0xE2, b"ICC_PROFILE\0\1\2part"),
        segment(0xE2, b"ICC_PROFILE\0\1\1no profile"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
        segment(0xEE, b"Adobe"),
        segment(0xE0, b"JFIF"),
        b"\xff" * 9,
    ],
)
def test_damaged_segments_of_a_jpeg_count_as_none(damaged: bytes) -> None:
    found = read_image("image", with_segments(JPEG, damaged)).shown()
    expected = read_image("image", JPEG).shown()
    assert (np.asarray(found) == np.asarray(expected)).all()


def test_a_picture_that_lacks_rows_is_refused() -> None:
    noisy = [
        file(NOISE),
        file(NOISE, "WEBP"),
        file(NOISE, "WEBP", lossless=True),
        file(NOISE, "JPEG"),
        file(NOISE, "JPEG", progressive=True),
        file(NOISE, "JPEG", restart_marker_rows=1),
        file(NOISE, "JPEG", restart_marker_blocks=1),
        file(NOISE.convert("L"), "JPEG"),
        file(NOISE.convert("CMYK"), "JPEG"),
    ]
    for data in noisy:
        read_image("image", data)
        for share in (0.2, 0.5, 0.8):
            _refuse(data[: int(len(data) * share)])
    for data in (noisy[3], *noisy[5:]):
        _refuse(data[: len(data) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("image", [NOISE, PICTURE, NOISE.convert("L"), PICTURE.convert("CMYK")])
@pytest.mark.parametrize(
    "options", [{}, {"restart_marker_rows": 1}, {"subsampling": 0}, {"progressive": True}]
)
def test_a_jpeg_that_was_cut_anywhere_and_closed_again_is_refused(
    image: Image.Image, options: dict[str, Any]
) -> None:
    data = file(image, "JPEG", quality=90, **options)
    whole = np.asarray(read_image("image", data).shown())
    for missing in (1, 2, 3, 5, 9, 17, 40, 90):
        try:
            found = read_image("image", data[: -2 - missing] + b"\xff\xd9").shown()
        except InvalidRequest:
            continue
        assert missing < 3  # bits that fill the last byte, and zeros
        assert (np.asarray(found) == whole).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33), (200, 3)])
def test_a_whole_jpeg_of_any_kind_is_read(size: tuple[int, int]) -> None:
    several: list[dict[str, Any]] = [
        {},
        {"restart_marker_blocks": 1},
        {"restart_marker_blocks": 3, "progressive": True},
        {"subsampling": 1, "optimize": True},
    ]
    for mode in ("L", "RGB", "CMYK"):
        for options in several:
            for quality in (5, 50, 100):
                read_image("image", file(picture(size, mode), "JPEG", quality=quality, **options))


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_png_whose_data_ends_well_but_early_is_refused(interlace: int) -> None:
    header = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, interlace)
    sizes = {0: 16 * 17, 1: 6 + 6 + 10 + 20 + 36 + 72 + 136}
    for missing, refused in ((0, False), (1, True), (120, True)):
        data = zlib.compress((b"\0" * 17 * 17)[: sizes[interlace] - missing])
        whole = b"\x89PNG\r\n\x1a\n" + b"".join(
            chunk(*one) for one in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
        )
        if refused:
            _refuse(whole)
        else:
            read_image("image", whole)


def _refuse(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="a whole png, jpeg or webp") as refused:
        read_image("image", data)
    assert refused.value.fields["field"] == "image"


@pytest.mark.parametrize("shade", [0, 127, 128, 129])
def test_a_plain_picture_is_no_missing_one(shade: int) -> None:
    plain = Image.new("RGB", (64, 48), (shade,) * 3)
    several: list[dict[str, Any]] = [{}, {"restart_marker_rows": 1}, {"progressive": True}]
    for mode in ("L", "RGB", "CMYK"):
        for options in several:
            read_image("image", file(plain.convert(mode), "JPEG", **options))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        read_image("image", file(plain.convert(mode)))
    read_image("image", png(np.zeros((4, 4), int), 16, 0))


def test_a_file_that_lacks_nothing_but_its_end_is_whole() -> None:
    for data in (PNG[:-12], JPEG[:-2]):
        read_image("image", data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes"),
        (b"no picture", "10 bytes"),
        (file(PICTURE, "GIF"), "a gif file"),
        (file(PICTURE, "TIFF"), "a tiff file"),
        (file(PICTURE, "BMP"), "a bmp file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a svg file"),
        (b"\0\0\0\x1cftypavif", "a avif file"),
        (b"\0\0\0\x1cftypheix", "a heic file"),
        (b"\0\0\0\x1cftypisom", "a video file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a jpeg xl file"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, found: str) -> None:
    with pytest.raises(InvalidRequest, match=found):
        read_image("mask", data)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "MAX_PIXELS", 1000)
    with pytest.raises(InvalidRequest, match=r"60x44 pixels.*at most 1000"):
        read_image("controls", PNG)
    monkeypatch.setattr(reader, "MAX_PIXELS", 10**9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidRequest, match=r"controls.*2640 pixels"):
        read_image("controls", PNG)


def test_a_file_of_millions_of_parts_is_refused_soon() -> None:
    for data in (
        PNG[:33] + chunk(b"tEXt", b"") * 70_000,
        JPEG[:2] + segment(0xFE, b"") * 70_000,
        b"RIFF\0\0\0\0WEBP" + b"abcd\0\0\0\0" * 70_000,
    ):
        with pytest.raises(InvalidRequest, match="more than 65536 parts"):
            read_image("image", data)


def test_a_refusal_holds_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[weakref.ref[Image.Image]] = []
    really = Image.open

    def noting(*args: object, **options: object) -> Image.Image:
        image: Image.Image = really(*args, **options)
        opened.append(weakref.ref(image))
        return image

    monkeypatch.setattr("shared.media.reader.Image.open", noting)
    gc.disable()
    try:
        with pytest.raises(InvalidRequest) as refused:
            read_image("image", file(NOISE)[:4000])
        assert refused.value.__context__ is None
        assert [one() for one in opened] == [None]
    finally:
        gc.enable()


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    data = file(PICTURE, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    read_image("image", data)
    with pytest.raises(InvalidRequest, match="more than 64 scans"):
        read_image("image", data[:-2] + last * 64 + data[-2:])


def test_thumbnails_without_an_end_are_looked_at_once() -> None:
    with pytest.raises(InvalidRequest, match="a jpeg file"):
        read_image("image", JPEG[:2] + b"\xff\xd8" * 60_000 + bytes(7_000_000))


WHOLE = [
    PNG,
    JPEG,
    WEBP,
    file(PICTURE, "JPEG", progressive=True, icc_profile=profile("swapped")),
    file(PICTURE.quantize(8), transparency=b"\0\x80"),
    file(mask((60, 44), (0, 0, 9, 9)), "WEBP", lossless=True),
    turned(PICTURE, 5),
    turned(PICTURE, 7, "WEBP"),
    file(PICTURE, save_all=True, append_images=[NOISE]),
    png(np.arange(64).reshape(8, 8) * 1000, 16, 0, chunk(b"tRNS", b"\3\xe8")),
]
CHANGE = st.tuples(st.integers(0), st.integers(0, 24), st.binary(max_size=24))


@settings(max_examples=30, phases=[Phase.generate], deadline=None)
@given(st.sampled_from(WHOLE), st.lists(CHANGE, min_size=1, max_size=8))
def test_whatever_is_changed_in_a_file_it_is_a_picture_or_refused(
    data: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    for place, gone, instead in changes:
        at = place % max(1, len(data))
        data = data[:at] + instead + data[at + gone :]
    with suppress(InvalidRequest):
        found = read_image("mask", data)
        assert (found.shown().mode, found.shown().size) == ("RGB", found.size)
        assert found.kept()[0].size == found.size
        read_mask(found)


LIMITED = """
import asyncio, gc, io, sys
from PIL import Image
from shared.errors import InvalidRequest
from shared.host.heap import give_back_large_pieces
from shared.media.masks import read_mask
from shared.media.reader import read_image

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 // 2**20

def picture(width, height):
    into = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(into, "JPEG")
    return into.getvalue()

def read(data):
    try:
        read_image("image", data)
    except InvalidRequest as error:
        return error

async def main():
    small, large = picture(300, 300), picture(3000, 2000)
    for data in (small, small[:-900]):
        await asyncio.to_thread(read, data)
    before = resident()
    for data in (large[:-5000], large, large[:-5000]):
        await asyncio.gather(*(asyncio.to_thread(read, data) for _ in range(3)))
    print(resident() - before)

give_back_large_pieces()
gc.disable()
asyncio.run(main())
"""


@pytest.mark.linux  # for glibc's malloc
def test_what_a_picture_costs_in_memory_is_given_back() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 16  # MiB, of 23 that one of them takes
