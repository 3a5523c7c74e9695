"""What an image, its mask and a strength make of a request."""

from typing import Any

import pytest
from PIL import Image

from shared.errors import InvalidRequest
from shared.jobs.edits import IMAGE_STRENGTH, MASKED_STRENGTH, taken
from shared.jobs.travel import MAX_IMAGE_BYTES
from shared.jobs.validate import validate
from shared.messages import EditSpec
from shared.models.catalogue import Catalogue
from tests.helpers.factories import card, catalogue, control, request
from tests.helpers.pictures import SIZE, file, mask, picture, turned

IMAGE, MASK = file(picture()), file(mask())
CARDS = catalogue()


def edit_of(**changes: Any) -> EditSpec:
    edit = validate(request(**{"image": IMAGE} | changes), catalogue()).edit
    assert edit is not None
    return edit


def test_what_an_edit_leaves_open_depends_on_its_mask() -> None:
    expected = EditSpec(strength=MASKED_STRENGTH, mask="file", mask_mode="exact")
    assert edit_of(mask=MASK) == expected
    expected = EditSpec(strength=IMAGE_STRENGTH, mask="none", mask_mode="exact")
    assert edit_of() == expected
    assert validate(request(), catalogue()).edit is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (mask(), "alpha"),
        (mask(shown=None), "none"),
        (mask().convert("LA"), "alpha"),
        (picture(mode="L"), "none"),
    ],
)
def test_an_images_alpha_channel_is_its_mask_if_any_of_it_is_transparent(
    image: Image.Image, expected: str
) -> None:
    assert edit_of(image=file(image)).mask == expected


FLUX = catalogue(card(name="pocket-flux", pipeline="FluxPipeline", masks=True))


def test_masks_may_be_cached_if_the_model_can_leave_tokens_out() -> None:
    edit = validate(request(image=IMAGE, mask=MASK, mask_mode="cached"), FLUX).edit
    assert edit == EditSpec(strength=MASKED_STRENGTH, mask="file", mask_mode="cached")


@pytest.mark.parametrize(
    ("changes", "cards", "allowed"),
    [
        ({"mask": MASK, "mask_mode": "greedy"}, FLUX, "one of exact, cached"),
        ({"mask_mode": "cached"}, FLUX, "exact, for there is no mask"),
        ({"mask": MASK, "mask_mode": "cached"}, catalogue(), "pocket-sdxl (StableDiffusionXL"),
    ],
)
def test_where_masks_cannot_be_cached_it_is_said(
    changes: dict[str, Any], cards: Catalogue, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(request(image=IMAGE, **changes), cards)
    assert refused.value.fields["field"] == "mask_mode"
    assert allowed in str(refused.value.fields["allowed"])


def test_an_image_and_its_mask_are_compared_as_they_are_shown() -> None:
    image, sideways = picture((64, 32)), mask((64, 32), (0, 0, 8, 8))
    assert _size(image=turned(image, 6), mask=file(sideways)) == (64, 32)
    assert _size(image=file(image), mask=turned(sideways, 8)) == (64, 32)
    with pytest.raises(InvalidRequest, match="32x64 pixels, as the image"):
        validate(request(image=file(image.rotate(90, expand=True)), mask=file(sideways)), CARDS)


@pytest.mark.parametrize(
    ("steps", "strength", "down", "up"),
    [(25, 1.0, 25, 25), (25, 0.5, 12, 13), (10, 0.3, 3, 3), (4, 0.25, 1, 1), (6, 0.01, 0, 1)],
)
def test_strength_is_the_share_of_the_steps_that_are_taken(
    steps: int, strength: float, down: int, up: int
) -> None:
    assert taken(steps, strength, rounds_up=False) == down
    assert taken(steps, strength, rounds_up=True) == up


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": b""}, "image"),
        ({"image": IMAGE[:-30]}, "image"),
        ({"image": file(Image.new("1", (9000, 9000)))}, "image"),
        ({"image": bytes(MAX_IMAGE_BYTES + 1)}, "image"),
        ({"image": None, "mask": MASK}, "mask"),
        ({"image": None, "strength": 0.5}, "strength"),
        ({"image": None, "mask_mode": "cached"}, "mask_mode"),
        ({"mask": file(mask((64, 64)))}, "mask"),
        ({"mask": file(mask(shown=None))}, "mask"),
        ({"mask": file(picture())}, "mask"),
        ({"mask": file(Image.new("L", SIZE, 127))}, "mask"),
        ({"mask": file(mask(), "GIF")}, "mask"),
        ({"mask": MASK[:60]}, "mask"),
        ({"mask": bytes(MAX_IMAGE_BYTES)}, "mask"),
        ({"controls": (control(image=bytes(MAX_IMAGE_BYTES)),)}, "controls"),
        ({"mask_mode": "cached"}, "mask_mode"),
        ({"strength": 0.0}, "strength"),
        ({"strength": -0.5}, "strength"),
        ({"strength": 1.01}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": 0.1, "steps": 9}, "strength"),
    ],
)
def test_what_is_wrong_with_an_edit_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(request(**{"image": IMAGE} | changes), catalogue())
    assert refused.value.fields["field"] == field


def test_the_result_is_as_large_as_the_image_unless_it_is_told() -> None:
    assert _size(image=IMAGE) == SIZE
    assert _size(image=IMAGE, width=64) == (64, SIZE[1])
    assert _size(image=file(picture((999, 333)))) == (256, 88)
    assert _size(image=file(picture((3, 3)))) == (8, 8)


def _size(**changes: Any) -> tuple[int, int]:
    spec = validate(request(**changes), catalogue())
    return spec.width, spec.height
