"""The official `openai` client, unmodified, against the gateway."""

import asyncio
import base64
import io
import urllib.request

import openai
import pytest
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image

from shared.errors import QueueFull
from tests.conftest import eventually, run
from tests.services.gateway.server import server

PROMPT = "a large red circle left on white"


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json is not None
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def test_generate_gives_images_of_the_wanted_size_and_format() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            answer = await client.images.generate(
                prompt=PROMPT,
                model="pocket-sdxl",
                n=2,
                size="64x96",
                output_format="webp",
                output_compression=80,
                quality="low",
                background="auto",
                moderation="auto",
                user="somebody",
            )
            assert answer.data is not None
            pictures = [opened(one.b64_json) for one in answer.data]
            assert [(p.size, p.format) for p in pictures] == [((64, 96), "WEBP")] * 2
            assert answer.output_format == "webp"
            assert answer.size == "64x96"
            assert answer.background == "opaque"
            [spec] = here.line.specs.values()
            assert (spec.steps, spec.output_compression, spec.user) == (12, 80, "somebody")

    run(scenario())


def test_own_fields_are_sent_as_extra_body() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            await client.images.generate(
                prompt=PROMPT,
                extra_body={
                    "negative_prompt": "blue",
                    "num_inference_steps": 9,
                    "guidance_scale": 2.5,
                    "sampler": "dpmpp_2m",
                    "seed": 11,
                    "service_class": "interactive",
                },
            )
            [spec] = here.line.specs.values()
            assert spec.negative_prompt == "blue"
            assert (spec.steps, spec.guidance, spec.sampler, spec.seed) == (9, 2.5, "dpmpp_2m", 11)
            assert spec.service_class == "interactive"

    run(scenario())


def test_the_synchronous_client_works_too() -> None:
    def draw(url: str) -> str | None:
        with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            answer = client.images.generate(prompt=PROMPT)
            assert answer.data is not None
            return answer.data[0].b64_json

    async def scenario() -> None:
        async with server() as here:
            picture = opened(await asyncio.to_thread(draw, f"{here.url}/v1"))
            assert (picture.size, picture.format) == ((128, 128), "PNG")

    run(scenario())


def test_a_stream_gives_previews_then_the_image() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            stream = await client.images.generate(prompt=PROMPT, stream=True, partial_images=2)
            events = [event async for event in stream]
            assert [type(event) for event in events] == [
                ImageGenPartialImageEvent,
                ImageGenPartialImageEvent,
                ImageGenCompletedEvent,
            ]
            partials, last = events[:-1], events[-1]
            assert [
                e.partial_image_index for e in partials if isinstance(e, ImageGenPartialImageEvent)
            ] == [0, 1]
            assert isinstance(last, ImageGenCompletedEvent)
            assert (last.size, last.quality, last.output_format) == ("128x128", "auto", "png")
            assert last.usage.output_tokens == 16 * 16  # positions of 8 pixels
            assert len({e.b64_json for e in events}) == 3
            assert {opened(e.b64_json).size for e in events} == {(128, 128)}

    run(scenario())


def test_the_synchronous_client_streams_too() -> None:
    def draw(url: str) -> list[str]:
        with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=1)
            return [event.type for event in stream]

    async def scenario() -> None:
        async with server() as here:
            assert await asyncio.to_thread(draw, f"{here.url}/v1") == [
                "image_generation.partial_image",
                "image_generation.completed",
            ]

    run(scenario())


def test_a_stream_of_several_images_says_which_image_each_event_is_about() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            stream = await client.images.generate(prompt=PROMPT, n=2, stream=True, partial_images=1)
            events = [(e.type.rpartition(".")[2], e.to_dict()["index"]) async for e in stream]
            assert sorted(events) == [
                ("completed", 0),
                ("completed", 1),
                ("partial_image", 0),
                ("partial_image", 1),
            ]

    run(scenario())


def test_an_image_can_be_fetched_from_the_url_that_was_given() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            answer = await client.images.generate(
                prompt=PROMPT, response_format="url", output_format="jpeg"
            )
            assert answer.data is not None
            url = answer.data[0].url
            assert url is not None
            data = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
            assert Image.open(io.BytesIO(data)).format == "JPEG"
            assert answer.data[0].b64_json is None

    run(scenario())


def test_a_bad_field_is_a_bad_request_that_names_it() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            with pytest.raises(openai.BadRequestError) as raised:
                await client.images.generate(prompt=PROMPT, n=11)
            assert raised.value.param == "n"
            assert "1 to 10" in raised.value.message
            assert not here.line.specs

    run(scenario())


def test_a_full_queue_is_a_rate_limit_error_that_says_when_to_come_back() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            here.line.refusal = QueueFull("the queue of denoise", 7, retry_after=2.5)
            for stream in (False, True):
                with pytest.raises(openai.RateLimitError, match="bound is 7") as raised:
                    await client.images.generate(prompt=PROMPT, stream=stream)
                assert raised.value.response.headers["Retry-After"] == "3"
                assert raised.value.code == "queue_full"

    run(scenario())


def test_a_failure_in_the_middle_of_a_stream_is_raised_to_its_reader() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            here.line.failure = QueueFull("the arena", 1)
            here.line.hold.clear()
            stream = await client.images.generate(prompt=PROMPT, stream=True)
            here.line.hold.set()
            with pytest.raises(openai.APIError, match="the arena is full"):
                _ = [event async for event in stream]

    run(scenario())


def test_models_are_listed_and_shown() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            models = [model async for model in await client.models.list()]
            assert [(m.id, m.object) for m in models] == [("pocket-sdxl", "model")]
            assert (await client.models.retrieve("pocket-sdxl")).id == "pocket-sdxl"
            with pytest.raises(openai.NotFoundError, match="pocket-sdxl"):
                await client.models.retrieve("dall-e-3")

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_times_out_has_its_job_cancelled(stream: bool) -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            here.line.hold.clear()
            drawing = asyncio.create_task(_draw_all(client, stream))
            await here.line.started.wait()
            drawing.cancel()
            await eventually(lambda: _true(bool(here.line.cancelled)))
            await eventually(lambda: _true(here.gateway.waiting == 0))
            [job_id] = here.line.cancelled
            assert (await here.gateway.darkroom.job(job_id)).status == "cancelled"

    run(scenario())


async def _draw_all(client: openai.AsyncOpenAI, stream: bool) -> None:
    answer = await client.images.generate(prompt=PROMPT, stream=stream)
    if isinstance(answer, openai.AsyncStream):
        _ = [event async for event in answer]


async def _true(value: bool) -> bool:
    return value
