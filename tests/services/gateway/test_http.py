"""The gateway's HTTP behaviour beyond what the `openai` client exercises."""

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest

from services.gateway.app import HttpOptions, serving
from services.gateway.http import body, core
from services.gateway.http.body import MAX_BODY_BYTES, SMALL_BODY_BYTES
from services.gateway.routes import jobs
from shared import subjects
from shared.bus.memory import MemoryBroker
from shared.bus.topology import TOPOLOGY
from shared.errors import (
    BusUnavailable,
    ControlUnavailable,
    DarkroomError,
    DeadlineExceeded,
    DeadlineUnreachable,
    JobFailed,
    Misconfigured,
    NotServed,
    QueueFull,
)
from shared.jobs.travel import MAX_IMAGE_BYTES
from shared.messages import CancelReply, encode
from shared.services import NEEDED
from shared.telemetry.exposition import serve_metrics
from shared.telemetry.metrics import Metrics
from tests.conftest import eventually, run
from tests.helpers import factories
from tests.services.gateway.pipeline import info, pipeline
from tests.services.gateway.server import Server, served, server

GENERATIONS = "/v1/images/generations"


def test_a_bad_field_of_a_stream_is_refused_before_the_stream_begins() -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await here.draw(stream=True, size="100x128")
            assert answer.status == 400
            assert answer.headers["Content-Type"].startswith("application/json")
            assert answer.error["param"] == "size"

    run(scenario())


def test_null_means_the_default_for_every_field_but_the_prompt() -> None:
    async def scenario() -> None:
        async with server() as here:
            document = (await here.ask("GET", "/openapi.json")).json
            fields = document["components"]["schemas"]["ImagesRequest"]["properties"]
            answer = await here.draw(**{name: None for name in fields if name != "prompt"})
            assert answer.status == 200
            assert "b64_json" in answer.json["data"][0]

    run(scenario())


def test_what_http_itself_refuses_has_the_same_shape() -> None:
    async def scenario() -> None:
        async with server() as here:
            form = await here.ask("POST", GENERATIONS, data={"prompt": "a"})
            assert (form.status, form.error["code"]) == (415, "unsupported_media_type")
            assert "application/json" in form.error["message"]
            large = await here.ask(
                "POST",
                GENERATIONS,
                data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1)),
                headers={"Content-Type": "application/json"},
            )
            assert (large.status, large.error["code"]) == (413, "request_too_large")
            assert str(MAX_BODY_BYTES) in large.error["message"]
            wrong = await here.ask("GET", GENERATIONS)
            assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
            assert "POST" in wrong.error["message"]
            nowhere = await here.ask("POST", "/v1/images/variations")
            assert (nowhere.status, nowhere.error["code"]) == (404, "unknown_url")
            packed = await here.ask(
                "POST",
                GENERATIONS,
                data=b"gzip or not",
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            )
            assert packed.status == 415
            assert "Content-Encoding: 'gzip' is not allowed" in packed.error["message"]

    run(scenario())


def test_a_job_with_the_largest_pictures_fits_into_a_body_and_into_a_message() -> None:
    async def scenario() -> None:
        async with server() as here:
            image = base64.b64encode(bytes(MAX_IMAGE_BYTES // 4)).decode()
            controls = [{"model": "edges", "image": image}] * 4
            answer = await here.draw(prompt="ä" * 32_000, controls=controls)
            assert answer.status == 200, answer.error
            [spec] = here.line.specs.values()
            assert [control.model for control in spec.controls] == ["edges"] * 4

    run(scenario())


def test_only_so_many_requests_with_pictures_are_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "MAX_LARGE_BYTES", 3 * SMALL_BODY_BYTES)

    async def scenario() -> None:
        image = base64.b64encode(bytes(2 * SMALL_BODY_BYTES)).decode()
        controls = [{"model": "edges", "image": image}]
        body = json.dumps({"prompt": "a", "controls": controls}).encode()
        sent, rest = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:-1]
            sent.set()
            await rest.wait()
            yield body[-1:]

        async with server() as here:
            here.line.hold.clear()
            json_type = {"Content-Type": "application/json"}
            slow = asyncio.create_task(
                here.ask("POST", GENERATIONS, data=slowly(), headers=json_type)
            )
            await sent.wait()
            await eventually(lambda: _is_full(here))
            refused = await here.draw(controls=controls)
            assert (refused.status, refused.error["code"]) == (429, "queue_full")
            assert "images" in refused.error["message"]
            rest.set()
            await here.line.started.wait()
            second = asyncio.create_task(here.draw(controls=controls))  # while the first runs
            await eventually(lambda: _has_jobs(here, 2))
            here.line.hold.set()
            assert [(await slow).status, (await second).status] == [200, 200]

    run(scenario())


async def _is_full(here: Server) -> bool:
    try:
        with here.gateway.large.taken(2 * SMALL_BODY_BYTES):
            return False
    except QueueFull:
        return True


async def _has_jobs(here: Server, count: int) -> bool:
    return len(here.line.specs) == count


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.05)

    async def scenario() -> None:
        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        async with server() as here:
            json_type = {"Content-Type": "application/json"}
            answer = await here.ask("POST", GENERATIONS, data=never(), headers=json_type)
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")

    run(scenario())


def test_a_model_is_shown_by_any_of_its_names() -> None:
    async def scenario() -> None:
        names = ("gpt-image-1", "a/b", "/abs/path")
        async with server(aliases=dict.fromkeys(names, "pocket-sdxl")) as here:
            [model] = (await here.ask("GET", "/v1/models")).json["data"]
            assert model["aliases"] == [*names, "nowhere"]
            for path in ("pocket-sdxl", "gpt-image-1", "a/b", "a%2Fb", "nowhere"):
                assert (await here.ask("GET", f"/v1/models/{path}")).json == model
                answer = await here.draw(model=path.replace("%2F", "/"), quality="low")
                assert answer.json["darkroom"]["model"] == "pocket-sdxl"
            for path in ("/abs/path", "abs/path", "%2Fabs%2Fpath"):
                assert (await here.ask("GET", f"/v1/models/{path}")).json == model
            missing = await here.ask("GET", "/v1/models/dall-e-3")
            assert (missing.status, missing.error["code"]) == (404, "model_not_found")
            assert "one of pocket-sdxl, gpt-image-1, a/b" in missing.error["message"]

    run(scenario())


def test_benchmark_clients_find_the_model_and_draw_with_it() -> None:
    async def scenario() -> None:
        async with server() as here, AsyncExitStack() as stack:
            assert (await here.ask("GET", "/health")).status == 503
            for name in NEEDED:
                await stack.enter_async_context(here.bus.service(info(name), dict))
            assert (await here.ask("GET", "/health")).status == 200
            found = (await here.ask("GET", "/v1/model_info")).json
            assert found["model_path"] == "nowhere"
            answer = await here.draw(model=found["model_path"], n=1, response_format="b64_json")
            assert answer.status == 200

    run(scenario())


def test_a_model_names_the_controlnets_that_fit_it() -> None:
    async def scenario() -> None:
        async with server() as here:
            [model] = (await here.ask("GET", "/v1/models")).json["data"]
            assert model["controls"] == ["edges"]
            assert (await here.ask("GET", "/v1/models/pocket-sdxl")).json == model

    run(scenario())


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (DeadlineExceeded("job", 1.0), 504, "deadline_exceeded"),
        (QueueFull("the queue", 3), 429, "queue_full"),
        (DeadlineUnreachable("job", 4.0, 2.5), 429, "deadline_unreachable"),
        (ControlUnavailable("edges", "nobody answers"), 503, "control_unavailable"),
        (NotServed("vae", "pocket-sdxl", "no memory"), 503, "not_served"),
        (Misconfigured("no weights"), 500, "misconfigured"),
        (JobFailed("job", "oops", "out of luck"), 500, "job_failed"),
    ],
)
def test_a_job_that_fails_later_answers_with_its_own_status(
    failure: DarkroomError, status: int, code: str
) -> None:
    async def scenario() -> None:
        async with server() as here:
            here.line.failure = failure
            answer = await here.draw()
            assert (answer.status, answer.error["code"]) == (status, code)
            assert answer.error["message"] == failure.message
            assert answer.headers["X-Job-Id"]

    run(scenario())


def test_a_refusal_for_the_deadline_says_how_long_it_would_have_taken_and_when_to_try_again() -> (
    None
):
    async def scenario() -> None:
        async with server() as here:
            here.line.failure = DeadlineUnreachable("job", 4.0, 2.5)
            answer = await here.draw()
            assert answer.error["predicted_seconds"] == 4.0
            assert answer.headers["Retry-After"] == "3"

    run(scenario())


def test_a_failure_after_the_first_event_is_an_error_event_that_ends_the_stream() -> None:
    async def scenario() -> None:
        async with server() as here:
            here.line.failure = Misconfigured("no weights")
            answer = await here.draw(stream=True)
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            begun, name, data = answer.body.decode().replace("\n\n", "\n").strip().split("\n")
            assert begun.startswith(":")
            assert name == "event: error"
            assert json.loads(data.removeprefix("data: "))["error"]["message"] == "no weights"

    run(scenario())


def test_more_requests_than_the_bound_are_refused_by_name() -> None:
    async def scenario() -> None:
        async with server(max_requests=1) as here:
            here.line.hold.clear()
            first = asyncio.create_task(here.draw())
            await here.line.started.wait()
            second = await here.draw()
            assert (second.status, second.error["code"]) == (429, "queue_full")
            assert "the gateway is full: its bound is 1" in second.error["message"]
            assert second.headers["Retry-After"] == "1"
            here.line.hold.set()
            assert (await first).status == 200
            assert (await here.draw()).status == 200

    run(scenario())


def test_a_job_can_be_followed_and_cancelled_by_its_id() -> None:
    async def scenario() -> None:
        async with server() as here:
            here.line.hold.clear()
            drawing = asyncio.create_task(here.draw())
            await here.line.started.wait()
            [job_id] = here.line.specs
            running = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert (running["status"], running["model"]) == ("running", "pocket-sdxl")
            assert [n["name"] for n in running["nodes"]] == ["encode", "denoise-0", "decode-0"]
            cancelled = await here.ask("DELETE", f"/v1/jobs/{job_id}")
            assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
            answer = await drawing
            assert (answer.status, answer.error["code"]) == (409, "job_cancelled")
            assert answer.headers["x-should-retry"] == "false"
            again = await here.ask("DELETE", f"/v1/jobs/{job_id}")
            assert (again.status, again.json["status"]) == (200, "cancelled")

    run(scenario())


def test_a_full_queue_of_submissions_is_said_with_when_to_try_again_and_passes() -> None:
    jobs_stream = replace(TOPOLOGY.streams[0], max_messages=1)

    async def scenario() -> None:
        bus = MemoryBroker().connect("gateway")
        await bus.ensure(replace(TOPOLOGY, streams=(jobs_stream, *TOPOLOGY.streams[1:])))
        await bus.store(subjects.submit("somebody-elses"), b"")
        async with (
            serving(
                bus, factories.catalogue(), Metrics("gateway"), HttpOptions(grace=0.1)
            ) as gateway,
            aiohttp.ClientSession(f"http://{gateway.address}") as http,
            asyncio.TaskGroup() as tasks,
        ):
            body = {"prompt": "a red circle"}
            async with http.post("/v1/images/generations", json=body) as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
                error = (await reply.json())["error"]
                assert error["code"] == "queue_full"
                assert "JOBS is full: its bound is 1" in error["message"]
            await bus.remove(subjects.JOBS, subjects.submit("somebody-elses"))
            waiting = tasks.create_task(http.post("/v1/images/generations", json=body).__aenter__())

            async def taken() -> bool:
                return await bus.depth(subjects.JOBS, subjects.ALL_SUBMITS) == 1

            await eventually(taken)
            waiting.cancel()

    run(scenario())


def test_cancelling_a_job_that_no_planner_takes_is_unavailable_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "CANCEL_SECONDS", 0.1)

    async def scenario() -> None:
        broker = MemoryBroker()
        bus, busy = broker.connect("gateway"), broker.connect("busy planner")
        await bus.ensure(TOPOLOGY)
        await bus.store(subjects.submit("job-1"), b"")
        async with (
            busy.subscribe(subjects.ALL_CANCELS) as requests,
            serving(bus, factories.catalogue(), Metrics("gateway")) as gateway,
            aiohttp.ClientSession(f"http://{gateway.address}") as http,
            asyncio.TaskGroup() as tasks,
        ):

            async def know_nothing() -> None:
                async for request in requests:
                    unknown = CancelReply(job_id="job-1", status="unknown")
                    await busy.publish(request.reply, encode(unknown))

            planner = tasks.create_task(know_nothing())
            async with http.delete("/v1/jobs/job-1") as reply:
                assert reply.status == 503
                assert reply.headers["Retry-After"] == "1"
                error = (await reply.json())["error"]
                assert error["code"] == "bus_unavailable"
                assert "no planner took the job" in error["message"]
            planner.cancel()

    run(scenario())


def test_a_finished_job_shows_where_its_images_are() -> None:
    async def scenario() -> None:
        async with server() as here:
            job_id = (await here.draw(n=2)).headers["X-Job-Id"]
            job = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert job["status"] == "done"
            for url in job["images"]:
                picture = await here.ask("GET", url.removeprefix(here.url))
                assert picture.headers["Content-Type"] == "image/png"
                assert picture.body.startswith(b"\x89PNG")

    run(scenario())


def test_a_refused_job_shows_why() -> None:
    async def scenario() -> None:
        async with server() as here:
            here.line.refusal = QueueFull("the queue", 3)
            job_id = (await here.draw()).headers["X-Job-Id"]
            job = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert (job["status"], job["error"]["code"]) == ("failed", "queue_full")

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/nobody", 404),
        ("DELETE", "/v1/jobs/nobody", 404),
        ("GET", "/v1/jobs/a.b", 400),
        ("GET", "/v1/jobs/%3E", 400),
        ("GET", "/v1/jobs/%00", 400),
        ("GET", "/v1/jobs/%FF", 400),
        ("DELETE", "/v1/jobs/a%20b", 400),
        ("GET", "/v1/images/nobody/0", 404),
        ("GET", "/v1/images/nobody/x", 400),
        ("GET", "/v1/images/no.body/0", 400),
        ("GET", "/v1/images/nobody/" + "9" * 5000, 400),
    ],
)
def test_what_is_not_there_is_not_found_and_what_cannot_be_is_refused(
    method: str, path: str, status: int
) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await here.ask(method, path)
            assert answer.status == status
            assert answer.error["message"]

    run(scenario())


@pytest.mark.parametrize("host", ["a b:xx", "a:99999999"])
def test_a_host_that_cannot_be_part_of_an_address_is_refused(host: str) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await here.ask("GET", "/v1/models", headers={"Host": host})
            assert (answer.status, answer.error["param"]) == (400, "Host")

    run(scenario())


def test_a_bus_that_is_gone_is_unavailable_not_an_internal_error() -> None:
    async def scenario() -> None:
        async with server() as here:
            await here.bus.close()
            for answer in (await here.draw(), await here.ask("GET", "/v1/jobs/a")):
                assert (answer.status, answer.error["code"]) == (503, BusUnavailable.code)
                assert answer.headers["Retry-After"] == "1"
            assert (await here.ask("GET", "/healthz")).status == 200
            ready = await here.ask("GET", "/readyz")
            assert ready.status == 503
            assert "closed" in ready.json["missing"][0]

    run(scenario())


def test_it_is_ready_once_every_service_answers() -> None:
    async def scenario() -> None:
        async with server() as here, AsyncExitStack() as stack:
            missing = list(NEEDED)
            while missing:
                answer = await here.ask("GET", "/readyz")
                assert answer.status == 503
                assert answer.json["missing"] == [f"{name} for pocket-sdxl" for name in missing]
                await stack.enter_async_context(here.bus.service(info(missing.pop(0)), dict))
            answer = await here.ask("GET", "/readyz")
            assert (answer.status, answer.json["ready"]) == (200, True)

    run(scenario())


def test_it_is_not_ready_while_all_of_a_service_refuse_work_and_says_why() -> None:
    async def scenario() -> None:
        async with server() as here, AsyncExitStack() as stack:
            told = {"refusal": {"reason": "no memory", "lasting": True}}
            for name in NEEDED:
                stats = (lambda: told) if name == "denoiser" else dict
                await stack.enter_async_context(here.bus.service(info(name), stats))
            answer = await here.ask("GET", "/readyz")
            assert answer.status == 503
            assert answer.json["missing"] == ["denoiser for pocket-sdxl: no memory"]
            await stack.enter_async_context(here.bus.service(info("denoiser"), dict))
            assert (await here.ask("GET", "/readyz")).status == 200

    run(scenario())


def test_metrics_count_requests_by_route_and_status() -> None:
    async def scenario() -> None:
        async with server() as here:
            serving = asyncio.create_task(
                serve_metrics(here.bus, here.gateway.metrics, "gateway-1")
            )
            await here.ask("GET", "/v1/jobs/nobody")
            await eventually(lambda: _has_metrics(here))
            serving.cancel()

    run(scenario())


async def _has_metrics(here: Server) -> bool:
    answer = await here.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    wanted = 'method="GET",route="/v1/jobs/{job_id}"'
    return any(
        wanted in line and 'status="404"' in line for line in answer.body.decode().split("\n")
    )


def test_the_openapi_document_describes_every_route_and_field() -> None:
    async def scenario() -> None:
        async with server() as here:
            document = (await here.ask("GET", "/openapi.json")).json
            assert document["openapi"] == "3.1.0"
            operations = document["paths"]
            assert set(operations["/v1/jobs/{job_id}"]) == {"get", "delete"}
            post = operations["/v1/images/generations"]["post"]
            assert set(post["responses"]["200"]["content"]) == {
                "application/json",
                "text/event-stream",
            }
            schemas = document["components"]["schemas"]
            request = schemas["ImagesRequest"]
            assert request["additionalProperties"] is False
            assert request["required"] == ["prompt"]
            for field in request["properties"].values():
                assert "Allowed: " in field.get("anyOf", [field])[0]["description"]
            references = set(_references(document))
            assert references == {f"#/components/schemas/{name}" for name in schemas}

    run(scenario())


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [r for value in node.values() for r in _references(value)]
    if isinstance(node, list):
        return [r for value in node for r in _references(value)]
    return []


def test_leaving_lets_a_quick_request_finish() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), aiohttp.ClientSession() as http:
            async with served(line, bus, http, grace=10.0) as here:
                line.hold.clear()
                drawing = asyncio.create_task(here.draw())
                await line.started.wait()
                asyncio.get_running_loop().call_later(0.1, line.hold.set)
            assert (await drawing).status == 200
            assert not line.cancelled

    run(scenario())


def test_leaving_cancels_what_takes_too_long_together_with_its_job() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), aiohttp.ClientSession() as http:
            async with served(line, bus, http, grace=0.05) as here:
                line.hold.clear()
                drawing = asyncio.create_task(here.draw())
                await line.started.wait()
            assert line.cancelled == list(line.specs)
            with pytest.raises(aiohttp.ClientError):
                await drawing

    run(scenario())


def test_each_request_is_logged_with_its_job(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> str:
        async with server() as here:
            return (await here.draw()).headers["X-Job-Id"]

    with caplog.at_level("INFO", logger="darkroom.access"):
        job_id = run(scenario())
    [record] = [r for r in caplog.records if r.name == "darkroom.access"]
    assert record.__dict__["job_id"] == job_id
    assert record.__dict__["status"] == 200
    assert record.__dict__["route"] == GENERATIONS


def test_neither_the_gateway_nor_the_client_imports_torch() -> None:
    program = (
        "import sys, services.gateway.__main__, shared.client;"
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
