"""Pictures that users send become what ControlNets are given, or an error that names them."""

from io import BytesIO

import numpy as np
import pytest
import torch
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import (
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

from services.controlnet.hints import read_hint
from shared.errors import InvalidRequest
from tests.helpers import pictures
from tests.helpers.controls import make_control
from tests.services.denoiser.models import make_unet


def picture(mode: str = "RGB", size: tuple[int, int] = (50, 30)) -> Image.Image:
    drawn = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(drawn).convert(mode)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_picture_is_brought_to_size_as_diffusers_does_it(mode: str) -> None:
    pipeline = StableDiffusionXLControlNetPipeline(
        None, None, None, None, None, make_unet(), make_control("edges"), None
    )
    shown = picture(mode).convert("RGB")
    expected = pipeline.prepare_image(shown, 64, 96, 1, 1, "cpu", torch.float32)
    assert torch.equal(read_hint(encoded(picture(mode)), 64, 96), expected)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_other_files_are_read_too(form: str) -> None:
    assert read_hint(encoded(picture(), form), 32, 32).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        encoded(picture())[:200],
        encoded(picture(), "BMP"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_picture_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"controls.*png, jpeg or webp"):
        read_hint(data, 32, 32)


@pytest.mark.parametrize("orientation", [2, 6])
def test_a_picture_that_lies_otherwise_than_it_is_shown_is_the_same(orientation: int) -> None:
    upright = pictures.picture((50, 30))
    expected = read_hint(encoded(upright), 64, 96)
    assert torch.equal(read_hint(pictures.turned(upright, orientation), 64, 96), expected)


def test_line_art_on_nothing_is_line_art_on_white() -> None:
    art = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    art.paste((0, 0, 0, 255), (8, 8, 24, 12))
    on_white = Image.alpha_composite(Image.new("RGBA", art.size, "white"), art)
    assert torch.equal(read_hint(encoded(art), 32, 32), read_hint(encoded(on_white), 32, 32))
