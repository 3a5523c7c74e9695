"""The official `openai` client, unmodified, against the whole fleet and the model that ships."""

import asyncio
import base64
import functools
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image, ImageChops

from shared.client import Darkroom
from shared.jobs.record import JobRecord
from tests.conftest import eventually, run
from tests.e2e.helpers.running import RunningFleet

PROMPT = "a large red circle left on white"
QUICK = {"num_inference_steps": 6, "seed": 5}


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json is not None
    picture = Image.open(io.BytesIO(base64.b64decode(b64_json)))
    picture.load()
    return picture


def assert_same_picture(one: str | None, other: str | None) -> None:
    """Within 1/255 per pixel: they were not drawn in the same batch."""
    difference = ImageChops.difference(opened(one), opened(other))
    assert max(most for _, most in difference.getextrema()) <= 1


@asynccontextmanager
async def client_of(fleet: RunningFleet) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{fleet.http}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_images_are_generated_and_the_same_seed_gives_the_same_image(fleet: RunningFleet) -> None:
    with OpenAI(base_url=f"{fleet.http}/v1", api_key="none", max_retries=0) as client:
        model, _ = [model.id for model in client.models.list()]
        first = client.images.generate(prompt=PROMPT, model=model, n=2, extra_body=QUICK)
        second = client.images.generate(prompt=PROMPT, extra_body={**QUICK, "seed": 6})
    assert first.data is not None
    assert second.data is not None
    assert [opened(one.b64_json).size for one in first.data] == [(128, 128)] * 2
    assert first.data[0].b64_json != first.data[1].b64_json
    assert_same_picture(first.data[1].b64_json, second.data[0].b64_json)


def test_a_prompt_beyond_what_the_encoders_read_is_answered_with_what_was_cut(
    fleet: RunningFleet,
) -> None:
    async def scenario() -> None:
        async with client_of(fleet) as client:
            fields = {"num_inference_steps": 1, "negative_prompt": f"{PROMPT} " * 20}
            ask: Callable[..., Any] = functools.partial(
                client.images.generate, prompt=f"{PROMPT} " * 20
            )
            answer = await ask(extra_body=fields)
            [last] = [event async for event in await ask(stream=True, extra_body=fields)]
        for told in (answer, last):
            negative, prompt = told.to_dict()["warnings"]
            assert prompt.startswith("prompt: text_encoder and text_encoder_2 read 40 of its ")
            assert prompt.endswith(f' {PROMPT}"')
            assert negative.startswith("negative_prompt: text_encoder and text_encoder_2 read 40")

    run(scenario())


def test_a_model_is_called_as_the_server_says_that_it_is_called(fleet: RunningFleet) -> None:
    with OpenAI(base_url=f"{fleet.http}/v1", api_key="none", max_retries=0) as client:
        model, _ = client.models.list()
        path = client.get("model_info", cast_to=dict[str, str])["model_path"]
        assert path in model.to_dict()["aliases"]  # type: ignore[operator]
        assert client.models.retrieve(path) == model
        answer = client.images.generate(
            prompt=PROMPT, model=path, extra_body={"num_inference_steps": 1}
        )
        assert answer.to_dict()["darkroom"]["model"] == model.id  # type: ignore[index]


def test_a_stream_shows_the_running_latents_then_the_image(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with client_of(fleet) as client:
            events = []
            with fleet.hold("step-5@denoiser") as held:  # else the image may overtake all previews
                async for event in await client.images.generate(
                    prompt=PROMPT, stream=True, partial_images=2, extra_body=QUICK
                ):
                    events.append(event)
                    held.release()
        assert events[-1].type == "image_generation.completed"
        previews = [e for e in events if e.type == "image_generation.partial_image"]
        assert 1 <= len(previews) <= 2  # they are lossy
        assert len({event.b64_json for event in events}) == len(events)
        assert {opened(event.b64_json).size for event in events} == {(128, 128)}

    run(scenario())


def test_a_client_that_hangs_up_cancels_its_job(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with client_of(fleet) as client, Darkroom.connect(fleet.nats_url) as darkroom:

            async def cancelled() -> bool:
                record: JobRecord = await darkroom.job(job_id)
                return record.status == "cancelled"

            with fleet.hold("step-1@denoiser") as held:
                stream = await client.images.with_raw_response.generate(
                    prompt=PROMPT, stream=True, extra_body=QUICK
                )
                job_id = stream.headers["X-Job-Id"]
                await held.reached()
                await stream.http_response.aclose()
                await eventually(cancelled)

    run(scenario())


def test_a_bad_request_is_refused_by_name(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with client_of(fleet) as client:
            with pytest.raises(openai.BadRequestError) as raised:
                await client.images.generate(prompt=PROMPT, size="1024x1024")
            assert raised.value.param == "size"

    run(scenario())


def test_the_gateway_is_ready_and_shows_the_metrics_of_every_service(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        services = ("planner", "prompt_encoder", "denoiser", "vae", "gateway")
        async with aiohttp.ClientSession(fleet.http) as http:

            async def ready() -> bool:
                async with http.get("/readyz") as reply:
                    return (reply.status, (await reply.json())["missing"]) == (200, [])

            async def all_shown() -> bool:
                async with http.get("/metrics") as reply:
                    text = await reply.text()
                return all(f'service="{service}"' in text for service in services)

            await eventually(ready)
            await eventually(all_shown)  # a busy one may miss a scrape

    run(scenario())


def test_a_finished_image_can_be_fetched_by_its_address(fleet: RunningFleet) -> None:
    async def scenario() -> None:
        async with client_of(fleet) as client, aiohttp.ClientSession() as http:
            answer = await client.images.generate(
                prompt=PROMPT, response_format="url", output_format="webp", extra_body=QUICK
            )
            assert answer.data is not None
            assert answer.data[0].url is not None
            async with http.get(answer.data[0].url) as reply:
                data, kind = await reply.read(), reply.content_type
        assert kind == "image/webp"
        assert (await asyncio.to_thread(Image.open, io.BytesIO(data))).format == "WEBP"

    run(scenario())
