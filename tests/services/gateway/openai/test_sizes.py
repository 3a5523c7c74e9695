"""In how many ways a size is said. The model of these tests draws 128x128, and at most 256x256, in
multiples of 8."""

import json
from typing import Any

import pytest

from services.gateway.openai.notes import notes
from services.gateway.openai.parsing import parse
from services.gateway.openai.to_job import to_job
from services.gateway.replies.errors import problem_of
from shared.errors import InvalidRequest
from tests.helpers import factories


def drawn(**fields: Any) -> tuple[str, list[str]]:
    """The size, and what the answer warns of."""
    wanted = parse(json.dumps({"prompt": "a red circle"} | fields).encode())
    spec = to_job(wanted, "job-1", factories.catalogue())[1]
    return f"{spec.width}x{spec.height}", notes(wanted, spec)


@pytest.mark.parametrize(
    ("sent", "size"),
    [
        ({"image_size": "64x96"}, "64x96"),
        ({"image_size": {"width": 64, "height": 96}}, "64x96"),
        ({"image_size": {"width": "64", "height": 96.0}}, "64x96"),
        ({"image_size": '{"width": 64, "height": 96}'}, "64x96"),
        ({"image_size": "auto"}, "128x128"),
        ({"image_size": "64x96", "size": "64*96"}, "64x96"),
        ({"resolution": "64x96", "width": 64}, "64x96"),
        ({"aspect_ratio": "1:1"}, "128x128"),
        ({"aspect_ratio": "auto"}, "128x128"),
        ({"aspect_ratio": "2:1"}, "184x88"),
        ({"aspect_ratio": "ASPECT_1_2"}, "88x184"),
        ({"aspect_ratio": "custom", "width": 64, "height": 96}, "64x96"),
        ({"aspect_ratio": "2:1", "width": 128}, "128x64"),
        ({"aspect_ratio": "2:1", "height": 128}, "256x128"),
        ({"aspect_ratio": "2:3", "size": "64x96"}, "64x96"),
        ({"aspect_ratio": "16:9", "size": "128x72"}, "128x72"),
        ({"aspect_ratio": "16:9", "size": "256x144"}, "256x144"),
        ({"aspect_ratio": "9:1"}, "256x32"),
        ({"megapixels": "0.0156"}, "128x128"),
        ({"megapixels": 0.0625}, "256x256"),
        ({"megapixels": "0.03125", "aspect_ratio": "2:1"}, "256x128"),
        ({"megapixels": "match_input"}, "128x128"),
        ({"resolution": "0.0625 MP"}, "256x256"),
        ({"resolution": "0.25k", "megapixels": "0.0625"}, "256x256"),
        ({"megapixels": "0.0625", "size": "256x256"}, "256x256"),
    ],
)
def test_a_size_is_drawn_however_it_is_said(sent: dict[str, Any], size: str) -> None:
    assert drawn(**sent)[0] == size


@pytest.mark.parametrize(
    ("sent", "param", "told"),
    [
        ({"image_size": "landscape_4_3"}, "image_size", "width being a multiple of 8 from 8 to"),
        ({"image_size": "landscape"}, "image_size", "'landscape' is not allowed; allowed: as size"),
        ({"image_size": {"width": 64}}, "image_size", "as size, or an object"),
        ({"image_size": {"width": 65, "height": 64}}, "image_size", "a multiple of 8"),
        ({"image_size": "2K"}, "image_size", "an area that this model can draw"),
        ({"image_size": "64x96", "size": "64x64"}, "image_size", "64x64, as size says"),
        ({"image_size": "64x96", "width": 72}, "width", "64, as image_size says"),
        ({"aspect_ratio": "wide"}, "aspect_ratio", 'such as "16:9"'),
        ({"aspect_ratio": "0:1"}, "aspect_ratio", 'such as "16:9"'),
        ({"aspect_ratio": "16:9", "size": "64x64"}, "aspect_ratio", "the shape of 64x64"),
        ({"aspect_ratio": "2:1", "width": 8000}, "width", "a multiple of 8 from 8 to 256"),
        ({"megapixels": "1"}, "megapixels", "at most 256 and 256 pixels; this one is 1024x1024"),
        ({"megapixels": "0"}, "megapixels", "a number above 0"),
        ({"megapixels": True}, "megapixels", "a number above 0"),
        ({"megapixels": "0.0625", "size": "64x64"}, "megapixels", "the area of 64x64"),
        ({"megapixels": "0.0625", "width": 64}, "megapixels", "nothing beside one side alone"),
        ({"resolution": "720p"}, "resolution", 'an area such as "0.5 MP"'),
        ({"resolution": "1k", "megapixels": 2}, "resolution", "what megapixels says"),
    ],
)
def test_a_size_that_cannot_be_drawn_is_refused_by_its_name(
    sent: dict[str, Any], param: str, told: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        drawn(**sent)
    detail = problem_of(raised.value).detail
    assert detail.param == param
    assert told in detail.message


def test_a_shape_that_is_not_met_is_told() -> None:
    assert drawn(aspect_ratio="16:9")[1] == [
        'aspect_ratio: "16:9" is not met: the nearest that the model can draw is 168x96'
    ]
    assert drawn(aspect_ratio="1:1")[1] == []


def test_what_a_prompt_says_to_other_programs_is_told() -> None:
    [warning] = drawn(prompt="a circle <lora:neon:0.8>")[1]
    assert warning.startswith('prompt: "<lora:neon:0.8>" has no effect here: loras says which')
    [warning] = drawn(output_quality=80)[1]
    assert warning == "output_quality: 80 has no effect here: a png is lossless"


@pytest.mark.parametrize(
    ("sent", "sampler"),
    [
        ({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}, "dpmpp_2m"),
        ({"sampler_name": "K_EULER"}, "euler"),
        ({"scheduler": "DPMSolverMultistep"}, "dpmpp_2m"),
        ({"scheduler": "EulerDiscreteScheduler"}, "euler"),
        ({"sampler_index": "DDIM"}, "ddim"),
    ],
)
def test_schedulers_go_by_the_names_that_clients_give_them(
    sent: dict[str, Any], sampler: str
) -> None:
    wanted = parse(json.dumps({"prompt": "a"} | sent).encode())
    assert to_job(wanted, "job-1", factories.catalogue())[0].sampler == sampler


def test_the_spacing_of_noise_levels_may_be_said_apart_from_the_sampler() -> None:
    for sampler in ("DPM++ 2M", "DPM++ 2M Karras"):
        sent = {"prompt": "a", "sampler_name": sampler, "scheduler": "karras"}
        assert parse(json.dumps(sent).encode()).sampler == "dpmpp_2m_karras"
