"""What the benchmark clients of SGLang and vLLM-Omni send, field for field."""

from typing import Any

import aiohttp
import pytest

from tests.conftest import run
from tests.helpers.pictures import file, picture
from tests.services.gateway.server import Server, server

PROMPT = "Random prompt 0 for benchmarking diffusion models"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


async def posted(here: Server, path: str, **sent: Any) -> list[str]:
    """The warnings of an answer that has to be what these clients take for a success."""
    answer = await here.ask("POST", path, **sent)
    assert answer.status == 200, answer.body
    [image] = answer.json["data"]
    assert image["b64_json"]
    warnings: list[str] = answer.json["warnings"]
    return warnings


def form(image: str = "image/png", **texts: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, text in texts.items():
        data.add_field(name, text)
    data.add_field("image", file(picture()), filename="image.png", content_type=image)
    return data


def test_sglang_is_told_the_model_and_its_requests_are_served() -> None:
    async def scenario() -> None:
        async with server() as here:
            model = (await here.ask("GET", "/v1/model_info")).json["model_path"]
            base = {"model": model, "prompt": PROMPT, "response_format": "b64_json"}
            sizes = {"size": "64x64"}
            more = {"num_inference_steps": 3, "seed": 1, "negative_prompt": "blue"}
            assert await posted(here, GENERATIONS, json=base | sizes | {"n": 1} | more) == []
            # Values of a form are Python's own texts.
            texts = {name: str(value) for name, value in (base | sizes | more).items()}
            sent = form("application/octet-stream", **texts, stream="False", true_cfg_scale="1.0")
            assert await posted(here, EDITS, data=sent) == []
            assert {spec.steps for spec in here.line.specs.values()} == {3}

    run(scenario())


def test_vllm_omni_is_served_by_its_openai_backend() -> None:
    async def scenario() -> None:
        async with server() as here:
            base = {
                "model": "pocket-sdxl",
                "prompt": PROMPT,
                "size": "64x64",
                "response_format": "b64_json",
            }
            more = {"n": 1, "seed": 42, "num_inference_steps": 3, "negative_prompt": "blue"}
            headers = {"Authorization": "Bearer EMPTY"}
            assert await posted(here, GENERATIONS, json=base | more, headers=headers) == []
            texts = base | {"num_inference_steps": "3", "guidance_scale": "4.0", "seed": "42"}
            [warning] = await posted(here, EDITS, data=form(**texts, bot_task="think"))
            assert warning.startswith('bot_task: "think" has no effect here')

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/videos"])
def test_what_other_backends_ask_for_is_not_there(path: str) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await here.ask("POST", path, json={"model": "pocket-sdxl"})
            assert (answer.status, answer.error["code"]) == (404, "unknown_url")

    run(scenario())
