"""Pictures that a message has no room for are fitted before they travel; what is drawn of them is
what would be drawn of the files themselves."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from services.controlnet.hints import read_hint
from services.vae.source_image import read_source_image
from shared.bus.base import ServiceInfo
from shared.bus.discovery import sizes_metadata
from shared.client import Darkroom
from shared.errors import InvalidRequest
from shared.jobs import travel
from shared.jobs.graph import image_parameters
from shared.jobs.travel import fitted_to_travel, travels
from shared.jobs.validate import validate
from shared.media.reader import read_image
from shared.media.sizes import fitted
from shared.messages import ControlChoice
from tests.conftest import run
from tests.helpers.factories import card, catalogue, control, request
from tests.helpers.pictures import file, mask, picture, profile, turned
from tests.services.gateway.pipeline import pipeline

LARGE = (600, 400)
PHOTO = picture(LARGE)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))
SOFT = mask(LARGE, (100, 60, 300, 200)).getchannel("A").filter(ImageFilter.GaussianBlur(9))
OWN = picture(LARGE, "RGBA")
OWN.paste((0, 0, 0, 0), (50, 50, 250, 200))
HALF = picture(LARGE, "RGBA")
HALF.putalpha(SOFT.point(lambda level: max(level, 1)))
ROOM = 60_000


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the bus took less: photographs of a camera are large, and slow."""
    monkeypatch.setattr(travel, "MAX_IMAGE_BYTES", ROOM)


def padded(data: bytes) -> bytes:
    """The same picture, in a file that has no room."""
    return data + bytes(2 * ROOM)


EDITS: list[dict[str, Any]] = [
    {"image": file(PHOTO, "JPEG", quality=95)},
    {"image": file(PHOTO, "JPEG"), "mask": file(mask(LARGE, (9, 9, 300, 200)))},
    {"image": turned(PHOTO, 6), "mask": turned(SOFT, 5)},
    {"image": turned(PHOTO, 3, "WEBP"), "mask": file(SOFT, "JPEG"), "width": 64, "height": 200},
    {"image": file(PHOTO, icc_profile=profile("swapped")), "mask": file(SOFT)},
    {"image": file(PHOTO, icc_profile=profile("swapped") + bytes(40_000)), "mask": file(SOFT)},
    {"image": file(PHOTO.convert("CMYK"), "JPEG"), "mask": file(SOFT)},
    {"image": file(PHOTO.convert("L"))},
    {"image": file(OWN, icc_profile=profile("swapped"))},
    {"image": file(HALF)},
    {"image": file(picture((30, 20))), "mask": file(mask((30, 20), (2, 2, 20, 18))), "width": 128},
]


@pytest.mark.parametrize("fields", EDITS)
def test_what_is_kept_and_drawn_of_an_image_is_the_same(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = catalogue()
    plain = request(**fields)
    spec = validate(plain, models)
    expected = read_source_image(image_parameters(spec), plain.image or b"", plain.mask)
    monkeypatch.setattr(travel, "MAX_IMAGE_BYTES", len(padded(b"")) - 1)
    large = msgspec.structs.replace(plain, image=padded(plain.image or b""))
    fit = fitted_to_travel(large, models.default)
    assert fit.image is not None
    assert read_image("image", fit.image).size == (spec.width, spec.height)
    again = validate(fit, models)
    assert (again.width, again.height) == (spec.width, spec.height)
    assert spec.edit is not None
    assert again.edit is not None
    assert (again.edit.masked, again.edit.strength) == (spec.edit.masked, spec.edit.strength)
    found = read_source_image(image_parameters(again), fit.image, fit.mask)
    assert torch.equal(found.pixels, expected.pixels)
    assert torch.equal(found.own_colours, expected.own_colours)
    assert found.profile == expected.profile
    if expected.mask is None:
        assert found.mask is None
    else:
        assert found.mask is not None
        assert torch.equal(found.mask, expected.mask)


@pytest.mark.parametrize(
    "data",
    [
        file(PHOTO, "JPEG", quality=95),
        turned(PHOTO, 8),
        file(OWN),
        file(PHOTO.convert("CMYK"), "JPEG", icc_profile=b"none"),
        file(PHOTO, icc_profile=profile("swapped")),
        file(PHOTO.convert("1")),
    ],
)
@pytest.mark.usefixtures("narrow")
def test_a_control_is_steered_by_the_same_picture(data: bytes) -> None:
    fit = fitted_to_travel(request(controls=(control(image=padded(data)),)), card())
    [choice] = fit.controls
    assert torch.equal(read_hint(choice.image, 128, 128), read_hint(data, 128, 128))


def test_what_has_room_travels_as_it_is() -> None:
    small = request(image=file(PHOTO))
    assert fitted_to_travel(small, card()) is small


@pytest.mark.usefixtures("narrow")
def test_an_image_of_noise_decides_on_a_size_that_can_travel() -> None:
    data = padded(file(NOISE, "JPEG"))
    fit = fitted_to_travel(request(image=data), card(max_width=512, max_height=512))
    assert travels(fit)
    width, height = fit.width or 0, fit.height or 0
    assert 3 * width * height > ROOM / 2
    assert width / height == pytest.approx(1.5, rel=0.1)
    told = request(image=data, width=512, height=512)
    with pytest.raises(InvalidRequest, match=r"image: .* bytes at 512x512 pixels.* smaller size"):
        fitted_to_travel(told, card(max_width=512, max_height=512))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"image": padded(b"no image")}, "image: .*none"),
        ({"image": file(NOISE, "JPEG", quality=95)[:90_000]}, "image: .*jpeg"),
        ({"image": file(PHOTO), "mask": padded(file(mask((9, 9))))}, "mask: .*600x400 pixels"),
        ({"image": file(PHOTO), "mask": padded(file(PHOTO))}, "mask: .*in colours"),
        ({"image": padded(file(PHOTO)), "width": 100}, "width: 100.*multiple of 8"),
        ({"image": file(PHOTO), "mask": padded(file(mask(LARGE, (3, 3, 4, 4))))}, "mask: .*next"),
        ({"controls": (control(image=padded(b"a picture")),)}, "controls: .*none"),
        ({"image": bytes(2_000_000)}, "image: '2000000 bytes' .* at most 1000000"),
        ({"image": bytes(900_000), "mask": bytes(200_000)}, "mask: 1100000 .* together"),
        ({"controls": (control(image=bytes(600_000)),) * 2}, "controls: 1200000 .* together"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_its_field(
    fields: dict[str, Any], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(travel, "MAX_UPLOAD_BYTES", 1_000_000)
    with pytest.raises(InvalidRequest, match=refused):
        fitted_to_travel(request(**fields), card())


def test_a_size_that_was_fitted_stays() -> None:
    for size in ((4032, 3024), (8064, 6048), (999, 3333)):
        for form in (None, "png", "jpeg"):
            for limits in (card(max_width=2048, max_height=2048), card(size_multiple=16)):
                once = fitted(size, limits, form)
                assert fitted(once, limits, form) == once


PLANNER = ServiceInfo(
    name="darkroom-planner",
    version="0.1.0",
    description="",
    metadata={
        "service": "planner",
        "pid": "1",
        "models": "pocket-sdxl",
        **sizes_metadata(catalogue().sizes()),
    },
)


@pytest.mark.usefixtures("narrow")
def test_the_client_fits_pictures_to_what_a_planner_says_the_model_draws() -> None:
    async def scenario() -> None:
        photo = padded(file(PHOTO, "JPEG"))
        async with pipeline() as (line, bus), bus.service(PLANNER, dict), Darkroom(bus) as client:
            for job_id, model in (("a", None), ("b", "pocket-sdxl")):
                job = await client.submit(request(job_id=job_id, image=photo, model=model))
                assert len(await job.images()) == 1
            assert {(spec.width, spec.height) for spec in line.specs.values()} == {(256, 168)}
            with pytest.raises(InvalidRequest, match=r"model: 'other' .* a planner serves"):
                await client.submit(request(image=photo, model="other"))

    run(scenario())


def test_controls_beside_an_image_are_fitted_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "MAX_IMAGE_BYTES", 2 * ROOM)
    hints = (control(image=file(PHOTO)), ControlChoice(model="edges", image=file(OWN), scale=0.5))
    fit = fitted_to_travel(request(image=padded(file(PHOTO)), controls=hints), card())
    assert [choice.scale for choice in fit.controls] == [1.0, 0.5]
    sizes = {read_image("controls", choice.image).size for choice in fit.controls}
    assert sizes == {(256, 168)}
