"""Requests as other servers' clients send them: other names, and fields that do nothing here."""

import json
from typing import Any

import pytest

from services.gateway.openai.fields import ALIASES
from services.gateway.openai.ignored import IGNORED
from services.gateway.openai.notes import notes
from services.gateway.openai.parsing import parse, parse_edit
from services.gateway.openai.refusals import MOST_SHOWN
from services.gateway.openai.to_job import to_job
from services.gateway.openai.undone import UNDONE
from services.gateway.replies.errors import problem_of
from shared.errors import InvalidRequest
from shared.messages import GenerationRequest
from shared.models.samplers.samplers import sampler_named
from tests.helpers import factories


def read(**fields: Any) -> tuple[GenerationRequest, list[str]]:
    """The job, and what its answer warns of."""
    wanted = parse(json.dumps({"prompt": "a red circle"} | fields).encode())
    job, spec = to_job(wanted, "job-1", factories.catalogue())
    return job, notes(wanted, spec)


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as raised:
        read(**fields)
    detail = problem_of(raised.value).detail
    return detail.param, detail.message


@pytest.mark.parametrize(
    ("sent", "field", "value"),
    [
        ({"steps": 7}, "steps", 7),
        ({"cfg_scale": 3}, "guidance", 3.0),
        ({"guidance": 3.5}, "guidance", 3.5),
        ({"sampler_name": "ddim"}, "sampler", "ddim"),
        ({"scheduler": "ddim"}, "sampler", "ddim"),
        ({"sampler_name": "DDIM"}, "sampler", "ddim"),
        ({"sampler": "DPM++ 2M"}, "sampler", "dpmpp_2m"),
        ({"sampler_name": "Euler", "sampler": "euler"}, "sampler", "euler"),
        ({"size": "64*96"}, "height", 96),
        ({"size": "64 × 96"}, "width", 64),
        ({"size": "64X96"}, "width", 64),
        ({"batch_size": 2}, "n", 2),
        ({"num_images": 2}, "n", 2),
        ({"num_outputs": 2}, "n", 2),
        ({"num_outputs_per_prompt": 2}, "n", 2),
        ({"num_images_per_prompt": 2}, "n", 2),
        ({"width": 64}, "width", 64),
        ({"height": 96, "size": "auto"}, "height", 96),
        ({"seed": 7.0}, "seed", 7),
    ],
)
def test_fields_go_by_the_names_that_image_clients_give_them(
    sent: dict[str, Any], field: str, value: object
) -> None:
    job, warnings = read(**sent)
    assert getattr(job, field) == value
    assert not warnings


def test_two_names_of_a_field_must_say_the_same() -> None:
    assert read(steps=7, num_inference_steps=7)[0].steps == 7
    assert read(width=64, height=96, size="64x96")[0].width == 64
    param, message = refused(steps=7, num_inference_steps=8)
    assert param == "steps"
    assert message == (
        "steps: 7 is not allowed; allowed: 8, as num_inference_steps says, or one of the two"
    )
    assert refused(cfg_scale=7, guidance=8)[0] == "guidance"
    param, message = refused(width=64, size="72x64")
    assert (param, "72, as size says" in message) == ("width", True)


@pytest.mark.parametrize(
    ("sent", "param", "allowed"),
    [
        ({"steps": 0}, "steps", "a whole number from 1 to 1000"),
        ({"steps": "many"}, "steps", "a whole number from 1 to 1000"),
        ({"steps": 2.5}, "steps", "a whole number from 1 to 1000"),
        ({"cfg_scale": 101}, "cfg_scale", "a number from 0 to 100"),
        ({"width": 100}, "width", "a multiple of 8 from 8 to 256"),
        ({"width": 64, "height": 1000}, "height", "a multiple of 8 from 8 to 256"),
        ({"width": 0}, "width", "a whole number from 1 to"),
        ({"sampler_name": "magic"}, "sampler_name", "one of euler, ddim, dpmpp_2m"),
        ({"sampler_name": "DPM fast"}, "sampler_name", "one of euler, ddim, dpmpp_2m"),
        ({"strength": 0.5}, "strength", "only prompt, model, n,"),
        ({"scheduler": "karras"}, "scheduler", "'karras' beside sampler_name"),
        ({"scheduler": "sgm_uniform"}, "scheduler", "one of euler, ddim, dpmpp_2m"),
        ({"image": "https://example.org/a.png"}, "image", "POST /v1/images/edits begins from a"),
        ({"image_url": "data:image/png;base64,AA"}, "image_url", "POST /v1/images/edits"),
        ({"clip_skip": 2}, "clip_skip", "what asks for nothing (false, 0, or empty), for all lay"),
        ({"restore_faces": True}, "restore_faces", "for faces are not restored here"),
        ({"frame_count": 4}, "frame_count", "(false, 0, 1, or empty)"),
        ({"styles": ["anime"]}, "styles", "there are no named styles"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 2}},
            "override_settings",
            "no settings",
        ),
    ],
)
def test_what_is_wrong_is_told_by_the_name_that_was_sent(
    sent: dict[str, Any], param: str, allowed: str
) -> None:
    named, message = refused(**sent)
    assert named == param
    assert message.startswith(f"{param}: ")
    assert allowed in message


def test_a_seed_of_minus_one_is_a_random_one() -> None:
    wanted = parse(b'{"prompt": "a", "seed": -1}')
    first = to_job(wanted, "job-1", factories.catalogue())[1].seed
    assert first >= 0
    assert first != to_job(wanted, "job-2", factories.catalogue())[1].seed


@pytest.mark.parametrize("name", IGNORED)
def test_a_field_without_effect_is_taken_and_the_answer_says_so(name: str) -> None:
    job, warnings = read(**{name: {"a": 1}})
    assert job == GenerationRequest(job_id="job-1", prompt="a red circle")
    assert warnings == [f'{name}: {{"a":1}} has no effect here: {IGNORED[name]}']


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_a_field_without_effect_that_asks_for_nothing_is_not_worth_a_warning(value: object) -> None:
    assert read(style=value, enable_safety_checker=value)[1] == []


@pytest.mark.parametrize("name", UNDONE)
def test_a_field_for_what_is_not_done_is_taken_if_it_asks_for_nothing(name: str) -> None:
    nothing: tuple[Any, ...] = (None, False, 0, "", [], {})
    for value in nothing:
        job, warnings = read(**{name: value})
        assert job == GenerationRequest(job_id="job-1", prompt="a red circle")
        assert not warnings
    for text in ("false", "False", " 0 ", "{}"):
        parse_edit({"prompt": "a", name: text})
    with pytest.raises(InvalidRequest, match=f'{name}: "yes" is not allowed; allowed: what asks'):
        parse_edit({"prompt": "a", name: "yes"})


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 990, 1100, 5000])
@pytest.mark.parametrize("name", ["style", "svg"])
def test_values_that_are_nested_deeply_are_taken_or_refused(name: str, depth: int) -> None:
    body = b'{"prompt": "a", "%s": %s}' % (name.encode(), b"[" * depth + b"]" * depth)
    told = said_of(body)
    assert told.startswith((f"{name}: ", "body: "))
    assert len(told) < 300


def said_of(body: bytes) -> str:
    try:
        wanted = parse(body)
        [warning] = notes(wanted, to_job(wanted, "job-1", factories.catalogue())[1])
    except InvalidRequest as error:
        return str(error)
    return warning


def test_what_an_image_client_sends_with_all_its_defaults_is_taken() -> None:
    defaults = {
        "negative_prompt": "",
        "seed": -1,
        "subseed": -1,
        "subseed_strength": 0,
        "sampler_name": "Euler",
        "batch_size": 1,
        "n_iter": 1,
        "steps": 20,
        "cfg_scale": 7,
        "width": 64,
        "height": 64,
        "restore_faces": False,
        "tiling": False,
        "styles": [],
        "override_settings": {},
        "enable_hr": False,
        "alwayson_scripts": {},
        "send_images": True,
        "save_images": False,
    }
    job, [warning] = read(**defaults)
    assert (job.steps, job.guidance, job.sampler, job.seed) == (20, 7.0, "euler", -1)
    assert warning.startswith("send_images: true has no effect here")


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("Euler a", "euler_ancestral"),
        ("euler_ancestral", "euler_ancestral"),
        ("Euler", "euler"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_exponential"),
        ("dpmpp-2m", "dpmpp_2m"),
        ("LCM", "lcm"),
        ("K_EULER", "euler"),
        ("KarrasDPM", "dpmpp_2m_karras"),
        ("DPMSolverMultistep", "dpmpp_2m"),
        ("EulerDiscreteScheduler", "euler"),
        ("FlowMatchEulerDiscreteScheduler", "flow_euler"),
    ],
)
def test_samplers_go_by_the_names_that_image_clients_show(shown: str, name: str) -> None:
    assert sampler_named(shown) == name


def test_a_warning_shows_only_so_much_of_a_value() -> None:
    [warning] = read(metadata={"a": "x" * 5000})[1]
    assert len(warning) < MOST_SHOWN + 100


@pytest.mark.parametrize(
    ("sent", "begins"),
    [
        ({"quality": "high", "steps": 5}, 'quality: "high" has no effect'),
        ({"moderation": "low"}, 'moderation: "low" has no effect'),
    ],
)
def test_what_does_nothing_beside_other_fields_is_told(sent: dict[str, Any], begins: str) -> None:
    [warning] = read(**sent)[1]
    assert warning.startswith(begins)


def test_what_has_an_effect_is_not_warned_of() -> None:
    plain = {"quality": "high", "moderation": "auto", "negative_prompt": "blue", "user": "me"}
    assert read(**plain)[1] == []
    assert read(quality="auto", steps=5)[1] == []


def test_the_texts_of_a_form_are_numbers_where_numbers_belong() -> None:
    wanted = parse_edit(
        {
            "prompt": " a ",
            "n": "2",
            "steps": " 7 ",
            "cfg_scale": "3.5",
            "seed": "-1",
            "width": "64.0",
            "stream": "True",
            "denoising_strength": "0.5",
            "output_compression": "",
            "model": "",
            "style": "vivid",
        }
    )
    assert (wanted.prompt, wanted.n, wanted.num_inference_steps) == (" a ", 2, 7)
    assert (wanted.guidance_scale, wanted.seed, wanted.width) == (3.5, -1, 64)
    assert (wanted.stream, wanted.strength, wanted.style) == (True, 0.5, "vivid")
    assert (wanted.output_compression, wanted.model) == (None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [("n", "two"), ("n", "2.5"), ("steps", "nan"), ("cfg_scale", "inf"), ("stream", "on")],
)
def test_a_text_of_a_form_that_is_no_number_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}: '{text}' is not allowed"):
        parse_edit({"prompt": "a", name: text})


def test_every_alias_stands_for_a_field_of_ours() -> None:
    assert set(ALIASES.values()) == {
        "negative_prompt",
        "num_inference_steps",
        "guidance_scale",
        "sampler",
        "n",
        "strength",
    }
