"""A request is either completed from the model's defaults or refused by the name of its field."""

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.jobs.validate import MAX_SEED, validate
from tests.factories import card, catalogue, request


def test_what_a_request_leaves_open_comes_from_its_model() -> None:
    spec = validate(request(), catalogue())
    assert (spec.model, spec.steps, spec.guidance, spec.sampler) == (
        "pocket-sdxl",
        25,
        5.0,
        "euler",
    )
    assert (spec.width, spec.height, spec.n) == (128, 128, 1)


def test_the_seed_of_a_request_without_one_depends_on_its_job_id_alone() -> None:
    first, again = validate(request(), catalogue()), validate(request(), catalogue())
    other = validate(request(job_id="job-2"), catalogue())
    assert first.seed == again.seed != other.seed


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0])
def test_a_guidance_of_one_or_less_means_none(guidance: float) -> None:
    assert not validate(request(guidance=guidance), catalogue()).guided


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"negative_prompt": "x" * 32_001}, "negative_prompt"),
        ({"model": "other"}, "model"),
        ({"job_id": "a.b"}, "job_id"),
        ({"job_id": ""}, "job_id"),
        ({"job_id": "newline\n"}, "job_id"),
        ({"job_id": "x" * 65}, "job_id"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"width": 100}, "width"),
        ({"width": 0}, "width"),
        ({"height": 264}, "height"),
        ({"height": -8}, "height"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"sampler": "heun"}, "sampler"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED}, "seed"),
        ({"previews": 4}, "previews"),
        ({"user": "x" * 257}, "user"),
        ({"output_compression": 101}, "output_compression"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(request(**changes), catalogue())
    assert refused.value.fields["field"] == field
    assert refused.value.fields["allowed"]


def test_a_png_that_may_exceed_the_bus_s_limit_is_refused_and_a_jpeg_is_not() -> None:
    models = catalogue(card(max_width=2048, max_height=2048))
    large = request(width=2048, height=2048)
    with pytest.raises(InvalidRequest, match="jpeg or webp"):
        validate(large, models)
    assert validate(request(width=2048, height=2048, output_format="jpeg"), models).width == 2048


def test_the_first_model_is_the_default_and_others_can_be_named() -> None:
    models = catalogue(card(), card(name="other", default_steps=7))
    assert validate(request(), models).model == "pocket-sdxl"
    assert validate(request(model="other"), models).steps == 7
