"""Bodies to jobs, and errors to OpenAI's shape: pure functions."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.gateway.openai.parsing import parse
from services.gateway.openai.schemas import ErrorDetail
from services.gateway.openai.to_job import quality_of, to_job
from services.gateway.replies.errors import problem_of
from shared.errors import AdapterUnusable, InvalidRequest
from shared.jobs.travel import MAX_UPLOAD_BYTES
from shared.messages import ControlChoice, GenerationRequest, LoraChoice
from shared.models.catalogue import Catalogue
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.hosts import Hosts
from shared.shipped import DEFAULT_LORAS, DEFAULT_MODEL
from tests.helpers import factories

CONTROL: dict[str, Any] = {"model": "edges", "image": "QUJD"}
BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 0}, "n", "a whole number from 1 to 10"),
    ({"n": "two"}, "n", "a whole number from 1 to 10"),
    ({"n": 10**30}, "n", "a whole number from 1 to 10"),
    ({"prompt": ""}, "prompt", "text of 1 to 32000 characters"),
    ({"prompt": "  "}, "prompt", "text that is not empty"),
    ({"prompt": None}, "prompt", "text of 1 to 32000 characters"),
    ({"prompt": ["a"]}, "prompt", "text of 1 to 32000 characters"),
    ({"prompt": "x" * 32_001}, "prompt", "text of 1 to 32000 characters"),
    ({"negative_prompt": "x" * 32_001}, "negative_prompt", "text of 0 to 32000 characters"),
    ({"model": "dall-e-3"}, "model", "one of pocket-sdxl"),
    ({"model": "dall-e-3", "quality": "low"}, "model", "one of pocket-sdxl"),
    ({"size": "1024x1024"}, "size", "a multiple of 8 from 8 to 256"),
    ({"size": "100x128"}, "size", "a multiple of 8 from 8 to 256"),
    ({"size": "128x0"}, "size", "a multiple of 8 from 8 to 256"),
    ({"size": "128"}, "size", '"auto" or "WIDTHxHEIGHT"'),
    ({"size": "-8x8"}, "size", '"auto" or "WIDTHxHEIGHT"'),
    ({"size": "١٢٨x١٢٨"}, "size", '"auto" or "WIDTHxHEIGHT"'),
    ({"size": "9" * 5000 + "x8"}, "size", '"auto" or "WIDTHxHEIGHT"'),
    ({"quality": "ultra"}, "quality", '"auto", "low", "medium", "high"'),
    ({"response_format": "png"}, "response_format", '"b64_json" or "url"'),
    ({"response_format": "url", "stream": True}, "response_format", "when stream is true"),
    ({"output_format": "gif"}, "output_format", '"png", "jpeg" or "webp"'),
    ({"output_compression": 101}, "output_compression", "a whole number from 0 to 100"),
    ({"output_compression": 50}, "output_compression", '100 when output_format is "png"'),
    ({"background": "transparent"}, "background", '"auto" or "opaque"'),
    ({"moderation": "high"}, "moderation", '"auto" or "low"'),
    ({"user": "x" * 257}, "user", "text of 0 to 256 characters"),
    ({"stream": 2}, "stream", "true or false"),
    ({"partial_images": 4, "stream": True}, "partial_images", "a whole number from 0 to 3"),
    ({"partial_images": 1}, "partial_images", "stream set to true"),
    ({"num_inference_steps": 1001}, "num_inference_steps", "a whole number from 1 to 1000"),
    ({"guidance_scale": -0.1}, "guidance_scale", "a number from 0 to 100"),
    ({"guidance_scale": "high"}, "guidance_scale", "a number from 0 to 100"),
    ({"sampler": "magic"}, "sampler", "one of euler, ddim, dpmpp_2m"),
    ({"seed": -2}, "seed", "a whole number from -1 to"),
    ({"seed": 2**63}, "seed", "a whole number from -1 to"),
    ({"loras": "neon"}, "loras", "a list of up to 8 objects"),
    ({"loras": ["neon"]}, "loras", "a list of up to 8 objects"),
    ({"loras": [{"scale": 1}]}, "loras", "exactly one of name, path, hub, url"),
    ({"loras": [{"path": "../x.safetensors"}]}, "loras", "below the server's LoRA directories"),
    ({"loras": [{"url": "http://127.0.0.1:8222/"}]}, "loras", "it fetches none"),
    ({"loras": [{"name": "neon", "weight": 1}]}, "loras", "a list of up to 8 objects"),
    ({"loras": [{"name": "neon"}]}, "loras", "nothing, for this server has no LoRAs"),
    ({"loras": [{"name": "neon", "scale": 11}]}, "loras", "a scale from -10 to 10"),
    ({"loras": [{"name": "neon"}] * 9}, "loras", "at most 8 of them"),
    ({"lora_late_steps": 3}, "lora_late_steps", "0 without loras"),
    ({"lora_late_steps": -1}, "lora_late_steps", "a whole number from 0 to 1000"),
    ({"controls": "edges"}, "controls", "a list of up to 4 objects"),
    ({"controls": [{"model": "edges"}]}, "controls", "a list of up to 4 objects"),
    ({"controls": [{"image": "QUJD"}]}, "controls", "a list of up to 4 objects"),
    ({"controls": [CONTROL | {"name": "x"}]}, "controls", "a list of up to 4 objects"),
    ({"controls": [CONTROL | {"image": "QUJ"}]}, "controls", "in base64, bare or as a data URL"),
    ({"controls": [CONTROL | {"image": "Ä"}]}, "controls", "in base64, bare or as a data URL"),
    ({"controls": [CONTROL | {"image": "data:image/gif;base64,QUJD"}]}, "controls", "png, jpeg"),
    ({"controls": [CONTROL | {"image": "data:image/png,QUJD"}]}, "controls", "as a data URL"),
    ({"controls": [CONTROL | {"image": "https://x/a.png"}]}, "controls", "as a data URL"),
    ({"controls": [CONTROL | {"image": ""}]}, "controls", "as the image"),
    ({"controls": [CONTROL | {"model": "other"}]}, "controls", "other does not fit the model"),
    ({"controls": [CONTROL | {"model": "depth"}]}, "controls", "one of edges"),
    ({"controls": [CONTROL | {"scale": 11}]}, "controls", "a scale from -10 to 10"),
    ({"controls": [CONTROL | {"start": 1}]}, "controls", "a start and a later end"),
    ({"controls": [CONTROL] * 5}, "controls", "at most 4 of them"),
    ({"control_lag": 1}, "control_lag", "0 without controls"),
    ({"control_lag": 2, "controls": [CONTROL]}, "control_lag", "a whole number from 0 to 1"),
    ({"service_class": "vip"}, "service_class", '"interactive", "standard" or "batch"'),
    ({"deadline": 0}, "deadline", "a number above 0, up to 86400"),
    ({"deadline": -1.5}, "deadline", "a number above 0, up to 86400"),
    ({"deadline": 86401}, "deadline", "a number above 0, up to 86400"),
    ({"deadline": "soon"}, "deadline", "a number above 0, up to 86400"),
    ({"cinematic": "vivid"}, "cinematic", "only prompt, model, n,"),
    ({"PROMPT": "x"}, "PROMPT", "only prompt, model, n,"),
]


def converted(body: bytes) -> GenerationRequest:
    return to_job(parse(body), "job-1", factories.catalogue())[0]


def job(**fields: Any) -> GenerationRequest:
    return converted(json.dumps({"prompt": "a red circle"} | fields).encode())


def refusal(body: bytes) -> ErrorDetail:
    with pytest.raises(InvalidRequest) as raised:
        converted(body)
    problem = problem_of(raised.value)
    assert problem.status == 400
    assert problem.detail.type == "invalid_request_error"
    assert len(problem.detail.message) < 1000
    return problem.detail


@pytest.mark.parametrize(("fields", "param", "allowed"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_name_with_what_is_allowed(
    fields: dict[str, Any], param: str, allowed: str
) -> None:
    detail = refusal(json.dumps({"prompt": "a red circle"} | fields).encode())
    assert detail.param == param
    assert detail.message.startswith(f"{param}: ")
    assert allowed in detail.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "one JSON object"),
        (b"{", "one JSON object"),
        (b"[]", "one JSON object"),
        (b'"prompt"', "one JSON object"),
        (b'{"prompt": "a\xff"}', "one JSON object in UTF-8"),
        (b'{"prompt": "a"} trailing', "one JSON object"),
        (b'{"prompt": "\\ud800"}', "one JSON object"),
        (b'{"n": 1}', "prompt: a missing value"),
        (b'{"prompt": "a", "guidance_scale": 1e999}', "guidance_scale"),
        (b'{"prompt": "a", "guidance_scale": NaN}', "one JSON object"),
        (b'{"prompt":' + b"[" * 100_000, "prompt"),
        (b'{"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "n: the value"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "x: this field"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, said: str) -> None:
    assert said in refusal(body).message


def test_a_refusal_shows_the_value_as_it_was_sent() -> None:
    detail = refusal(b'{"prompt": "a", "stream": "yes"}')
    assert detail.message == 'stream: "yes" is not allowed; allowed: true or false'
    assert refusal(b'{"prompt": "a", "n": 11}').message.startswith("n: 11 is not allowed")


def test_an_unknown_model_and_an_unknown_field_have_codes_of_their_own() -> None:
    assert refusal(b'{"prompt": "a", "model": "b"}').code == "model_not_found"
    assert refusal(b'{"prompt": "a", "cinema": "b"}').code == "unknown_parameter"
    assert refusal(b'{"prompt": "a", "n": 0}').code == "invalid_value"


@pytest.mark.parametrize("name", ["job_id", "mask_mode", "previews"])
def test_an_unknown_field_that_a_job_has_is_named_as_it_was_sent(name: str) -> None:
    detail = refusal(b'{"prompt": "a", "%s": 4}' % name.encode())
    assert (detail.code, detail.param) == ("unknown_parameter", name)
    assert detail.message.startswith(f"{name}: this field is not allowed")


def test_loras_have_a_name_and_a_scale(tmp_path: Path) -> None:
    (tmp_path / "neon.safetensors").touch()
    lora_directory = LoraDirectory((str(tmp_path),))
    catalogue = msgspec.structs.replace(factories.catalogue(), lora_directory=lora_directory)
    loras = [{"name": "neon"}, {"name": "neon", "scale": -0.5}]
    body = {"prompt": "a", "loras": loras, "lora_late_steps": 3}
    wanted, _ = to_job(parse(json.dumps(body).encode()), "job-1", catalogue)
    assert wanted.loras == (LoraChoice(name="neon"), LoraChoice(name="neon", scale=-0.5))
    assert wanted.lora_late_steps == 3


def test_a_lora_that_does_not_fit_is_refused_before_there_is_a_job(tmp_path: Path) -> None:
    [good, *_] = sorted(Path(DEFAULT_LORAS).glob("*.safetensors"))
    odd = {**load_file(good), "lora_unet_odd.hada_w1_a": torch.ones(2)}
    save_file(odd, tmp_path / "odd [x].safetensors")
    served = Catalogue.load([DEFAULT_MODEL], [str(tmp_path)])

    def ask(**lora: object) -> tuple[LoraChoice, ...]:
        body = {"prompt": "a", "loras": [{"name": "odd [x]", **lora}]}
        wanted, _ = to_job(parse(json.dumps(body).encode()), "job-1", served)
        return wanted.loras

    with pytest.raises(AdapterUnusable) as caught:
        ask()
    problem = problem_of(caught.value)
    assert (problem.status, problem.detail.param) == (400, "loras")
    assert "lora_unet_odd.hada_w1_a: LoHa is not supported" in problem.detail.message
    assert ask(partial=True) == (LoraChoice(name="odd [x]", partial=True),)
    with pytest.raises(InvalidRequest) as wrong:
        ask(partial="yes")
    assert wrong.value.fields["field"] == "loras"


def test_loras_may_be_files_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "ink.safetensors").touch()
    served = msgspec.structs.replace(
        factories.catalogue(),
        lora_directory=LoraDirectory((str(tmp_path),)),
        lora_hosts=Hosts.parse(["files.example.org", "hub.example.org"], "https://hub.example.org"),
    )
    loras = [
        {"path": "styles/ink.safetensors", "scale": 0.5},
        {"hub": "owner/repo:ink.safetensors"},
        {"url": "https://files.example.org/ink.safetensors", "sha256": "0" * 64, "name": None},
    ]
    wanted, spec = to_job(
        parse(json.dumps({"prompt": "a", "loras": loras}).encode()), "job-1", served
    )
    assert spec.loras == wanted.loras
    assert wanted.loras == (
        LoraChoice(path="styles/ink.safetensors", scale=0.5),
        LoraChoice(hub="owner/repo:ink.safetensors"),
        LoraChoice(url="https://files.example.org/ink.safetensors", sha256="0" * 64),
    )


def test_controls_bring_their_picture_in_base64_or_as_a_data_url() -> None:
    url = CONTROL | {"image": "data:image/png;base64,QUJD"}
    part = CONTROL | {"scale": 0.5, "start": 0.25, "end": 0.75, "guess_mode": True}
    wanted = job(controls=[url, part], control_lag=1)
    assert wanted.controls == (
        ControlChoice(model="edges", image=b"ABC"),
        ControlChoice(
            model="edges", image=b"ABC", scale=0.5, start=0.25, end=0.75, guess_mode=True
        ),
    )
    assert wanted.control_lag == 1


FILE = bytes(range(256))
DIGITS = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "image",
    [
        DIGITS,
        DIGITS.replace("+", "-").replace("/", "_"),
        "\r\n".join(DIGITS[k : k + 76] for k in range(0, len(DIGITS), 76)) + "\n",
        "data:image/png;base64," + DIGITS,
        "DATA:IMAGE/JPEG;BASE64," + DIGITS,
        "data:image/jpg;base64," + DIGITS,
        "data:image/png;charset=utf-8;base64," + DIGITS,
        "data:image/png;name=a b.png; base64," + DIGITS,
        "data:application/octet-stream;base64,\n" + DIGITS,
        "data:;base64," + DIGITS,
        "data:image/png;base64," + DIGITS.replace("+", "%2B").replace("=", "%3D"),
    ],
)
def test_a_picture_comes_in_every_form_of_base64_and_data_urls(image: str) -> None:
    assert job(controls=[CONTROL | {"image": image}]).controls[0].image == FILE


@pytest.mark.parametrize(
    "image",
    [
        "https://here/a.png",
        "data:image/png;base64",
        "data:" + "x" * 2000 + ";base64,QUJD",
        "data:image/png;base64,Q*==",
        "A",
        "ä",
        "QUJD,",
    ],
)
def test_a_picture_that_is_no_base64_is_refused_by_name(image: str) -> None:
    detail = refusal(json.dumps({"prompt": "a", "controls": [CONTROL | {"image": image}]}).encode())
    assert detail.param == "controls"
    assert "in base64, bare or as a data URL" in detail.message


def test_pictures_over_the_limit_are_refused_by_its_number() -> None:
    large = base64.b64encode(bytes(MAX_UPLOAD_BYTES + 1)).decode()
    detail = refusal(json.dumps({"prompt": "a", "controls": [CONTROL | {"image": large}]}).encode())
    assert detail.param == "controls"
    assert f"at most {MAX_UPLOAD_BYTES} bytes together" in detail.message


def test_a_lora_that_does_not_fit_is_the_requests_fault() -> None:
    problem = problem_of(AdapterUnusable("neon", "it is torn"))
    assert (problem.status, problem.detail.param) == (400, "loras")
    assert "neon" in problem.detail.message


def test_the_least_request_leaves_all_else_to_the_model() -> None:
    assert job() == GenerationRequest(job_id="job-1", prompt="a red circle")


def test_every_field_finds_its_place_in_the_job() -> None:
    assert job(
        model="pocket-sdxl",
        n=2,
        size="64x96",
        output_format="jpeg",
        output_compression=0,
        user="me",
        stream=True,
        partial_images=3,
        negative_prompt="",
        num_inference_steps=7,
        guidance_scale=0,
        sampler="ddim",
        seed=0,
        service_class="batch",
    ) == GenerationRequest(
        job_id="job-1",
        prompt="a red circle",
        model="pocket-sdxl",
        negative_prompt="",
        n=2,
        width=64,
        height=96,
        steps=7,
        guidance=0.0,
        sampler="ddim",
        seed=0,
        service_class="batch",
        previews=3,
        output_format="jpeg",
        output_compression=0,
        user="me",
    )


@pytest.mark.parametrize(
    ("quality", "steps", "told"),
    [
        ("low", 12, "low"),
        ("medium", 25, "medium"),
        ("standard", 25, "medium"),
        ("high", 38, "high"),
        ("hd", 38, "high"),
        ("auto", None, "auto"),
    ],
)
def test_quality_is_a_number_of_steps(quality: str, steps: int | None, told: str) -> None:
    assert job(quality=quality).steps == steps
    body = json.dumps({"prompt": "a", "quality": quality}).encode()
    assert quality_of(parse(body)) == told


@pytest.mark.parametrize("quality", ["auto", "low", "hd"])
def test_a_number_of_steps_goes_before_a_quality(quality: str) -> None:
    assert job(quality=quality, num_inference_steps=5).steps == 5
    body = json.dumps({"prompt": "a", "quality": quality, "steps": 5}).encode()
    assert quality_of(parse(body)) == "auto"


def test_a_deadline_counts_from_now() -> None:
    body = json.dumps({"prompt": "a red circle", "deadline": 2.5}).encode()
    request, spec = to_job(parse(body), "job-1", factories.catalogue(), clock=lambda: 1000.0)
    assert (request.deadline, spec.deadline) == (1002.5, 1002.5)
    assert job().deadline is None


def test_size_auto_is_the_models_own() -> None:
    assert (job(size="auto").width, job(size="auto").height) == (None, None)
