"""What a request leaves open about the result's size and format never leads to a refusal."""

from pathlib import Path

import pytest
from PIL import Image

from shared.errors import InvalidRequest
from shared.jobs.validate import validate
from shared.media.sizes import MAX_PNG_PIXELS, Size, fitted, nearest
from shared.messages import ImageFormat, JobSpec
from shared.models.cards import read_card
from tests.helpers.factories import card, catalogue, request
from tests.helpers.models import copied
from tests.helpers.pictures import file

LARGE = card(max_width=2048, max_height=2048, default_width=1024, default_height=1024)
CODED = card(max_width=2048, max_height=2048, size_multiple=16)
VAST = card(max_width=4096, max_height=4096, default_width=4096, default_height=4096)


def validated(model: object = LARGE, **changes: object) -> JobSpec:
    return validate(request(**changes), catalogue(model))  # type: ignore[arg-type]


@pytest.mark.parametrize("photograph", [(4032, 3024), (8064, 6048), (3024, 4032), (8000, 640)])
def test_a_large_photograph_is_fitted(photograph: Size) -> None:
    image = file(Image.new("1", photograph))
    spec = validated(image=image)
    assert spec.output_format == "png"
    assert spec.width * spec.height <= MAX_PNG_PIXELS
    assert spec.width / spec.height == pytest.approx(photograph[0] / photograph[1], rel=0.05)
    webp = validated(image=image, output_format="webp")
    assert max(webp.width, webp.height) == 2048


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [
        ((4032, 3024), None, (1920, 1440)),
        ((4032, 3024), "png", (1920, 1440)),
        ((4032, 3024), "jpeg", (2048, 1536)),
        ((1920, 1080), None, (1920, 1080)),
        ((2048, 2048), None, (1664, 1664)),
        ((101, 50), None, (104, 48)),
        ((3, 3), None, (8, 8)),
    ],
)
def test_a_size_is_fitted_to_the_model_and_the_format(
    size: Size, wanted: ImageFormat | None, expected: Size
) -> None:
    assert fitted(size, LARGE, wanted) == expected


def test_the_largest_size_can_be_drawn_in_the_default_format() -> None:
    assert validated(width=2048, height=2048).output_format == "jpeg"
    assert validated(width=1664, height=1664).output_format == "png"
    assert validated(VAST).output_format == "jpeg"
    assert validated(VAST, output_format="png").width == 1664
    assert validated(width=2048, height=2048, output_format="webp").output_format == "webp"


def test_a_png_that_may_be_too_large_is_refused_with_a_size_that_is_not() -> None:
    with pytest.raises(InvalidRequest, match=r"jpeg or webp for 2048x2048.*as 1664x1664") as error:
        validated(width=2048, height=2048, output_format="png")
    assert error.value.fields["field"] == "output_format"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), [(1920, 1072), (1920, 1088)]),
        ((1921, 1088), [(1920, 1088), (1936, 1088)]),
        ((3840, 2160), [(2048, 1152)]),
        ((0, 0), [(16, 16)]),
        ((99999, 1), [(2048, 16)]),
    ],
)
def test_the_nearest_sizes_are_told(size: Size, expected: list[Size]) -> None:
    assert nearest(size, CODED) == expected
    told = "nearest: " + " and ".join(f"{width}x{height}" for width, height in expected)
    with pytest.raises(InvalidRequest, match=told):
        validated(CODED, width=size[0], height=size[1])


def test_the_largest_size_that_is_told_of_a_model_can_be_drawn(tmp_path: Path) -> None:
    settings = {"width": 96, "max_width": 100, "max_height": 135}
    told = read_card(copied(tmp_path / "odd", {"darkroom.json": settings}))
    assert (told.max_width, told.max_height) == (96, 128)
    spec = validated(told, width=told.max_width, height=told.max_height)
    assert (spec.width, spec.height, spec.output_format) == (96, 128, "png")
