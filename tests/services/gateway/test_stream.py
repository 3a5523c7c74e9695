"""What a stream says, and when."""

import json
from typing import Any

import aiohttp
import pytest

from services.gateway.routes import events as stream
from shared.errors import QueueFull
from tests.conftest import eventually, run
from tests.services.gateway.pipeline import TEXT_TOKENS
from tests.services.gateway.server import Server, server


def asked(here: Server, **fields: Any) -> Any:
    body = {"prompt": "a red circle", "stream": True} | fields
    return here.http.post(f"{here.url}/v1/images/generations", json=body)


async def cancelled(here: Server) -> bool:
    return bool(here.line.cancelled)


async def events(reply: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    text = (await reply.read()).decode()
    return [
        json.loads(line.removeprefix("data: "))
        for line in text.split("\n")
        if line.startswith("data: ")
    ]


def test_a_stream_says_something_before_its_job_gets_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.02)

    async def scenario() -> None:
        async with server() as here:
            here.line.hold.clear()
            async with asked(here) as reply:
                assert reply.status == 200
                lines = [await reply.content.readline() for _ in range(8)]
                assert lines == [b": waiting\n", b"\n"] * 4
                [job_id] = here.line.specs
                assert reply.headers["X-Job-Id"] == job_id
                here.line.hold.set()
                [completed] = await events(reply)
                assert completed["type"] == "image_generation.completed"

    run(scenario())


def test_a_stream_begins_while_no_planner_has_decided_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that comes later is an event."""
    monkeypatch.setattr(stream, "DECISION_SECONDS", 0.0)

    async def scenario() -> None:
        async with server() as here:
            here.line.refusal = QueueFull("the queue", 3)
            async with asked(here) as reply:
                assert reply.status == 200
                assert reply.headers["X-Job-Id"]
                [error] = await events(reply)
                assert error["error"]["code"] == "queue_full"

    run(scenario())


def test_progress_that_is_not_shown_breaks_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.0)

    async def scenario() -> None:
        async with server() as here:
            async with asked(here, steps=50) as reply:
                text = await reply.read()
            assert text.count(b": waiting") >= 1
            assert text.count(b"event: ") == 1

    run(scenario())


def test_each_image_of_a_stream_comes_with_usage_and_warnings() -> None:
    async def scenario() -> None:
        async with server() as here, asked(here, n=2, style="vivid") as reply:
            found = await events(reply)
            assert len(found) == 2
            for event in found:
                assert event["usage"] == {
                    "input_tokens": TEXT_TOKENS,
                    "input_tokens_details": {"image_tokens": 0, "text_tokens": TEXT_TOKENS},
                    "output_tokens": 256,
                    "output_tokens_details": {"image_tokens": 256, "text_tokens": 0},
                    "total_tokens": TEXT_TOKENS + 256,
                }
                [warning] = event["warnings"]
                assert warning.startswith('style: "vivid" has no effect')

    run(scenario())


@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_encoder_cut_is_told_beside_what_the_gateway_knows(streamed: bool) -> None:
    async def scenario() -> None:
        async with server() as here:
            here.line.warnings = ('prompt: what was cut is "b"',)
            if streamed:
                async with asked(here, n=2, style="vivid") as reply:
                    answers = await events(reply)
            else:
                answers = [(await here.draw(style="vivid")).json]
            for answer in answers:
                assert [one.partition(":")[0] for one in answer["warnings"]] == ["style", "prompt"]
            [job_id] = here.line.specs
            shown = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert shown["warnings"] == ['prompt: what was cut is "b"']

    run(scenario())


def test_an_answer_has_usage_and_warnings_and_names_its_job() -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await here.draw(style="vivid", seed=-1)
            assert answer.json["usage"]["total_tokens"] == TEXT_TOKENS + 256
            [warning] = answer.json["warnings"]
            assert warning.startswith('style: "vivid" has no effect')
            job_id = answer.headers["X-Job-Id"]
            assert answer.json["darkroom"]["job_id"] == job_id
            picture = await here.ask("GET", f"/v1/images/{job_id}/0")
            assert picture.headers["X-Job-Id"] == job_id
            missing = await here.ask("GET", f"/v1/images/{job_id}/1")
            assert (missing.status, missing.headers["X-Job-Id"]) == (404, job_id)
            assert (await here.draw()).json["warnings"] == []

    run(scenario())


def test_a_reader_that_leaves_in_a_silence_has_its_job_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.02)

    async def scenario() -> None:
        async with server() as here:
            here.line.hold.clear()
            async with asked(here) as reply:
                await reply.content.readline()
            await here.gateway.idle()
            await eventually(lambda: cancelled(here))

    run(scenario())
