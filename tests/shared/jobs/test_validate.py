"""A request is either completed from the model's defaults or refused by the name of its field."""

from typing import Any

import msgspec
import pytest

from shared.errors import InvalidRequest
from shared.jobs.travel import MAX_IMAGE_BYTES
from shared.jobs.validate import MAX_SEED, validate
from shared.messages import ControlSpec
from tests.helpers.factories import card, catalogue, control, request


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


@pytest.mark.parametrize("shown", ["DPM++ 2M", "dpmpp-2m", "DPMSolverMultistepScheduler"])
def test_a_sampler_goes_by_all_the_names_that_it_is_known_by(shown: str) -> None:
    one = catalogue(card(samplers=("euler", "dpmpp_2m")))
    assert validate(request(sampler=shown), one).sampler == "dpmpp_2m"


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
        ({"seed": -2}, "seed"),
        ({"seed": MAX_SEED}, "seed"),
        ({"previews": 4}, "previews"),
        ({"user": "x" * 257}, "user"),
        ({"output_compression": 101}, "output_compression"),
        ({"controls": (control(),) * 5}, "controls"),
        ({"controls": (control(model="nobody"),)}, "controls"),
        ({"controls": (control(image=b""),)}, "controls"),
        ({"controls": (control(), control(scale=10.5))}, "controls"),
        ({"controls": (control(scale=float("nan")),)}, "controls"),
        ({"controls": (control(scale=float("-inf")),)}, "controls"),
        ({"controls": (control(start=0.5, end=0.5),)}, "controls"),
        ({"controls": (control(start=-0.1),)}, "controls"),
        ({"controls": (control(end=1.1),)}, "controls"),
        ({"controls": (control(start=float("nan")),)}, "controls"),
        ({"controls": (control(end=float("nan")),)}, "controls"),
        ({"control_lag": 2}, "control_lag"),
        ({"control_lag": -1}, "control_lag"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(request(**changes), catalogue())
    assert refused.value.fields["field"] == field
    assert refused.value.fields["allowed"]


def test_the_first_model_is_the_default_and_others_can_be_named() -> None:
    models = catalogue(card(), card(name="other", default_steps=7))
    assert validate(request(), models).model == "pocket-sdxl"
    assert validate(request(model="other"), models).steps == 7


def test_guidance_that_is_embedded_needs_no_second_forward_and_knows_no_negative_prompt() -> None:
    models = catalogue(card(embedded_guidance=True))
    spec = validate(request(guidance=3.5), models)
    assert (spec.guidance, spec.guided) == (3.5, False)
    with pytest.raises(InvalidRequest, match=r"negative_prompt.*allowed: nothing, for the model"):
        validate(request(negative_prompt="blurry"), models)


def test_the_pictures_of_a_request_stay_behind_and_all_else_goes_into_the_job() -> None:
    twice = (control(scale=0.0), control(start=0.25, end=0.75, guess_mode=True))
    spec = validate(request(controls=twice, control_lag=1), catalogue())
    assert spec.controls == (
        ControlSpec(model="edges", scale=0.0, start=0.0, end=1.0, guess_mode=False),
        ControlSpec(model="edges", scale=1.0, start=0.25, end=0.75, guess_mode=True),
    )
    assert spec.control_lag == 1


def test_a_controlnet_that_does_not_fit_is_told_from_one_that_is_not_there() -> None:
    with pytest.raises(InvalidRequest, match="one of edges, for other does not fit the model"):
        validate(request(controls=(control(model="other"),)), catalogue())
    with pytest.raises(InvalidRequest, match=r"one of edges$"):
        validate(request(controls=(control(model="nobody"),)), catalogue())
    bare = msgspec.structs.replace(catalogue(), controls={})
    with pytest.raises(InvalidRequest, match="allowed: nothing, for no ControlNet"):
        validate(request(controls=(control(),)), bare)


def test_an_architecture_without_controlnets_says_so() -> None:
    models = catalogue(card(pipeline="FluxPipeline", interface=None))
    with pytest.raises(
        InvalidRequest, match="allowed: nothing, for there are no ControlNets for a"
    ):
        validate(request(controls=(control(),)), models)


def test_pictures_that_no_message_could_hold_are_refused_by_their_size() -> None:
    half = control(image=bytes(MAX_IMAGE_BYTES // 2))
    assert len(validate(request(controls=(half, half)), catalogue()).controls) == 2
    with pytest.raises(InvalidRequest, match=f"at most {MAX_IMAGE_BYTES} bytes together"):
        validate(request(controls=(half, half, control())), catalogue())
