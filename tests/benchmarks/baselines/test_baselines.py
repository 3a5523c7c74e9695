"""The servers we compare with: they draw what we draw, and speak as the gateway does."""

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from aiohttp import web

from benchmarks.baselines.__main__ import POLICIES, parse
from benchmarks.baselines.app import make_app
from benchmarks.baselines.batching import Policy
from benchmarks.baselines.drawing import MAX_WAITING, Draw, Queue, drawing
from benchmarks.baselines.pipeline import Pipeline, Setup, compatible
from benchmarks.serving.pictures import max_abs_diff
from benchmarks.serving.systems import System
from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.targets.base import Answer
from loadgen.targets.http import HttpTarget
from services.gateway.replies.errors import problem_of
from shared.errors import DeadlineExceeded, Misconfigured, QueueFull
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue
from shared.shipped import DEFAULT_MODEL
from tests.conftest import eventually, run

CATALOGUE = Catalogue.load([DEFAULT_MODEL])
ONE_AT_A_TIME = Policy(max_batch=1, window=0.0)
STEPS = 3


def spec(
    prompt: str = "a large red circle left on white",
    seed: int = 0,
    guidance: float = 2.0,
    sampler: str = "euler",
    steps: int = STEPS,
    negative_prompt: str | None = None,
    n: int = 1,
    deadline: float | None = None,
) -> JobSpec:
    request = GenerationRequest(
        job_id="test",
        prompt=prompt,
        seed=seed,
        guidance=guidance,
        sampler=sampler,
        steps=steps,
        negative_prompt=negative_prompt,
        n=n,
        deadline=deadline,
    )
    return validate(request, CATALOGUE)


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    before = torch.get_num_threads()
    yield Pipeline(DEFAULT_MODEL, Setup(threads=1))
    torch.set_num_threads(before)


def worst(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "ddim", "dpmpp_2m_karras"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_that_share_a_batch_are_those_they_would_be_alone(
    pipeline: Pipeline, sampler: str, guidance: float
) -> None:
    prompts = ("a large red circle left on white", "a small blue star top on black")
    specs = [
        spec(prompt, seed=number, guidance=guidance, sampler=sampler)
        for number, prompt in enumerate(prompts)
    ]
    together = pipeline.draw(specs)
    alone = [pipeline.draw([one])[0] for one in specs]
    assert all(worst(one, other) <= 1 for one, other in zip(together, alone, strict=True))
    assert worst(together[0], together[1]) > 50


def test_the_layout_of_the_weights_does_not_change_the_image(pipeline: Pipeline) -> None:
    [contiguous] = pipeline.draw([spec()])
    pipeline.set_up(Setup(1, "channels_last"))
    [channels_last] = pipeline.draw([spec()])
    pipeline.set_up(Setup(1, "contiguous"))
    assert worst(contiguous, channels_last) <= 1


def test_a_pipeline_with_a_graph_draws_the_same(pipeline: Pipeline) -> None:
    graph = Pipeline(DEFAULT_MODEL, Setup(threads=1), graph=True)
    graph.set_up(Setup(1, "channels_last"))  # a layout of its own, a graph of its own
    graph.set_up(Setup(1, "contiguous"))
    for wanted in ([spec()], [spec(seed=n, guidance=2.0) for n in range(3)]):
        for one, other in zip(pipeline.draw(wanted), graph.draw(wanted), strict=True):
            assert torch.equal(one, other)


def test_a_model_without_a_graph_here_is_refused_by_name() -> None:
    flux = str(Path(DEFAULT_MODEL).with_name("pocket-flux"))
    with pytest.raises(Misconfigured, match=r"pocket-flux.*eager"):
        Pipeline(flux, Setup(threads=1), graph=True)


def test_baselines_run_our_graph_unless_they_are_to_be_eager() -> None:
    assert parse(["serial"]).eager is False
    assert parse(["serial", "--eager"]).eager is True


def test_the_fastest_way_to_use_the_machine_is_kept(pipeline: Pipeline) -> None:
    setups = [Setup(1, "contiguous"), Setup(1, "channels_last")]
    seconds = pipeline.choose(setups, [[spec(steps=1)]], trials=1)
    assert set(seconds) == set(setups)
    assert pipeline.setup == min(seconds, key=lambda setup: seconds[setup])
    pipeline.set_up(Setup(1, "contiguous"))


def test_what_a_pipeline_takes_once_per_call_decides_who_is_compatible() -> None:
    base = compatible(spec())
    assert compatible(spec("something else", seed=9)) == base
    for other in (
        spec(steps=4),
        spec(guidance=4.0),
        spec(sampler="ddim"),
        spec(negative_prompt=""),
    ):
        assert compatible(other) != base


class Painter:
    """Draws grey images, as grey as the seed says, when it is let."""

    def __init__(self, lighter: int = 0) -> None:
        self.lighter = lighter
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def draw(self, specs: Sequence[JobSpec]) -> list[torch.Tensor]:
        self.batches.append([one.seed for one in specs])
        assert self.gate.wait(30.0)
        if any(one.prompt == "trouble" for one in specs):
            raise RuntimeError("trouble")
        return [torch.full((8, 8, 3), one.seed + self.lighter, dtype=torch.uint8) for one in specs]


@asynccontextmanager
async def queue_of(painter: Painter, policy: Policy) -> AsyncIterator[Queue[torch.Tensor]]:
    draw: Draw[torch.Tensor] = painter.draw
    with ThreadPoolExecutor(1) as thread:
        try:
            async with drawing(draw, [thread], policy) as queue:
                yield queue
        finally:
            painter.gate.set()


def test_a_serial_server_draws_in_order_of_arrival_one_image_at_a_time() -> None:
    async def check() -> None:
        painter = Painter()
        painter.gate.set()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            await asyncio.gather(*(queue.images("test", spec(seed=seed)) for seed in (5, 3, 4)))
        assert painter.batches == [[5], [3], [4]]

    run(check())


def test_what_waits_while_a_batch_runs_forms_the_next_one() -> None:
    async def check() -> None:
        painter = Painter()
        async with (
            queue_of(painter, Policy(max_batch=4, window=0.0)) as queue,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(queue.images("test", spec(seed=1)))
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            for one in (spec(seed=2), spec(seed=3, steps=4), spec(seed=4)):
                group.create_task(queue.images("test", one))
            await asyncio.sleep(0)
            painter.gate.set()
        assert painter.batches == [[1], [2, 4], [3]]

    run(check())


def test_image_i_of_a_job_is_drawn_from_its_seed_plus_i() -> None:
    async def check() -> None:
        painter = Painter()
        painter.gate.set()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            images = await queue.images("test", spec(seed=7, n=3))
        assert [int(image[0, 0, 0]) for image in images] == [7, 8, 9]

    run(check())


def test_a_caller_who_leaves_gives_up_its_place() -> None:
    async def check() -> None:
        painter = Painter()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            first = asyncio.create_task(queue.images("test", spec(seed=1)))
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            gone = asyncio.create_task(queue.images("test", spec(seed=2)))
            last = asyncio.create_task(queue.images("test", spec(seed=3)))
            await asyncio.sleep(0)
            gone.cancel()
            painter.gate.set()
            await asyncio.gather(first, last)
        assert painter.batches == [[1], [3]]

    run(check())


def test_a_batch_that_fails_fails_its_own_callers_only() -> None:
    async def check() -> None:
        painter = Painter()
        painter.gate.set()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            with pytest.raises(RuntimeError, match="trouble"):
                await queue.images("test", spec("trouble"))
            assert len(await queue.images("test", spec(seed=1))) == 1

    run(check())


def test_a_full_queue_is_refused_by_name() -> None:
    async def check() -> None:
        painter = Painter()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            waiting = [
                asyncio.create_task(queue.images("test", spec(seed=seed, n=10)))
                for seed in range(MAX_WAITING // 10)
            ]
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            with pytest.raises(QueueFull, match=f"bound is {MAX_WAITING}"):
                await queue.images("test", spec(n=10))
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(check())


PASSED = 1.0
"""A deadline: one second after the Unix epoch."""


def test_who_would_be_drawn_too_late_is_not_drawn_and_frees_its_place() -> None:
    async def check() -> None:
        painter = Painter()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            first = asyncio.create_task(queue.images("first", spec(seed=1)))
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            late = asyncio.create_task(queue.images("late", spec(seed=2, n=3, deadline=PASSED)))
            last = asyncio.create_task(queue.images("last", spec(seed=9)))
            await asyncio.sleep(0)
            assert "4/" in repr(queue)
            painter.gate.set()
            with pytest.raises(DeadlineExceeded, match="job late was not finished by its deadline"):
                await late
            await asyncio.gather(first, last)
            assert "0/" in repr(queue)
        assert painter.batches == [[1], [9]]

    run(check())


def test_a_batch_is_filled_with_those_who_can_still_be_in_time() -> None:
    async def check() -> None:
        painter = Painter()
        in_time = time.time() + 3600.0
        async with queue_of(painter, Policy(max_batch=3, window=0.0)) as queue:
            tasks = [asyncio.create_task(queue.images("first", spec(seed=1)))]
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            for seed, deadline in ((2, PASSED), (3, None), (4, PASSED), (5, in_time), (6, None)):
                one = spec(seed=seed, deadline=deadline)
                tasks.append(asyncio.create_task(queue.images(f"job {seed}", one)))
            await asyncio.sleep(0)
            painter.gate.set()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert painter.batches == [[1], [3, 5, 6]]
        failed = [number for number, end in enumerate(ends) if isinstance(end, DeadlineExceeded)]
        assert failed == [1, 3]

    run(check())


def test_a_deadline_that_passes_while_the_queue_is_busy_is_noticed() -> None:
    async def check() -> None:
        painter = Painter()
        async with queue_of(painter, ONE_AT_A_TIME) as queue:
            first = asyncio.create_task(queue.images("first", spec(seed=1)))
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            soon = time.time() + 0.05
            late = asyncio.create_task(queue.images("late", spec(seed=2, deadline=soon)))
            await eventually(lambda: asyncio.sleep(0, time.time() > soon))
            assert not late.done()  # its turn has not come
            painter.gate.set()
            with pytest.raises(DeadlineExceeded):
                await late
            await first
        assert painter.batches == [[1]]

    run(check())


@asynccontextmanager
async def listening(queue: Queue[torch.Tensor]) -> AsyncIterator[str]:
    """At the address yielded."""
    runner = web.AppRunner(make_app(queue, CATALOGUE), access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def test_it_answers_with_the_gateways_fields_and_png_files() -> None:
    async def check() -> None:
        painter = Painter()
        painter.gate.set()
        async with (
            queue_of(painter, ONE_AT_A_TIME) as queue,
            listening(queue) as url,
            aiohttp.ClientSession(url) as http,
        ):
            wanted = {"prompt": "x", "n": 2, "seed": 4, "num_inference_steps": 2}
            async with http.post("/v1/images/generations", json=wanted) as reply:
                answer = await reply.json()
            assert reply.status == 200
            assert [image["seed"] for image in answer["data"]] == [4, 5]
            assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")
            assert answer["darkroom"]["steps"] == 2
            async with http.get("/v1/models") as reply:
                models = await reply.json()
            assert [model["id"] for model in models["data"]] == list(CATALOGUE.cards)
            async with http.get("/healthz") as reply:
                assert await reply.json() == {"status": "ok"}

    run(check())


def test_a_deadline_that_passed_is_answered_as_the_gateway_answers_it() -> None:
    async def check() -> None:
        painter = Painter()
        async with (
            queue_of(painter, ONE_AT_A_TIME) as queue,
            listening(queue) as url,
            aiohttp.ClientSession(url) as http,
            HttpTarget.connect(url) as target,
        ):
            first = asyncio.create_task(queue.images("first", spec(seed=1)))
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            wanted = {"prompt": "x", "seed": 2, "deadline": 0.001}
            late = asyncio.create_task(_post(http, wanted))
            shot = Shot(0, 0.0, "", "", RequestTemplate(seed=3, deadline=0.001))
            shot_down = asyncio.create_task(target.send(shot))
            await eventually(lambda: asyncio.sleep(0, "2/" in repr(queue)))
            over = time.time() + 0.01
            await eventually(lambda: asyncio.sleep(0, time.time() > over))
            painter.gate.set()
            status, headers, answer = await late
            job_id = headers["X-Job-Id"]
            same = problem_of(DeadlineExceeded(job_id, over))
            assert (status, answer) == (504, json.loads(same.body))
            assert answer["error"]["code"] == "deadline_exceeded"
            assert headers["x-should-retry"] == same.headers["x-should-retry"]
            assert await shot_down == Answer("failed", "deadline_exceeded")
            await first
        assert painter.batches == [[1]]

    run(check())


def test_a_full_queue_is_refused_over_http_as_the_gateway_does() -> None:
    async def check() -> None:
        painter = Painter()
        async with (
            queue_of(painter, ONE_AT_A_TIME) as queue,
            listening(queue) as url,
            aiohttp.ClientSession(url) as http,
        ):
            waiting = [
                asyncio.create_task(queue.images("test", spec(n=8)))
                for _ in range(MAX_WAITING // 8)
            ]
            await eventually(lambda: asyncio.sleep(0, bool(painter.batches)))
            status, _, answer = await _post(http, {"prompt": "x", "n": 10})
            assert (status, answer["error"]["code"]) == (429, "queue_full")
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(check())


async def _post(
    http: aiohttp.ClientSession, wanted: dict[str, object]
) -> tuple[int, Mapping[str, str], Any]:
    async with http.post("/v1/images/generations", json=wanted) as reply:
        return reply.status, reply.headers, await reply.json()


def test_pictures_of_several_servers_are_compared_over_http() -> None:
    async def check() -> None:
        async with AsyncExitStack() as stack:
            systems = []
            for lighter in (0, 0, 3):
                painter = Painter(lighter)
                painter.gate.set()
                queue = await stack.enter_async_context(queue_of(painter, ONE_AT_A_TIME))
                url = await stack.enter_async_context(listening(queue))
                systems.append(System("", url, "", lambda: []))
            shot = Shot(0, 0.0, "", "", RequestTemplate(seed=5))
            assert await max_abs_diff(systems[:2], [shot]) == 0
            assert await max_abs_diff(systems, [shot]) == 3

    run(check())


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_inference_steps", 0), ("stream", True), ("response_format", "url"), ("stepz", 3)],
)
def test_what_it_does_not_serve_is_refused_by_name(field: str, value: object) -> None:
    async def check() -> None:
        async with (
            queue_of(Painter(), ONE_AT_A_TIME) as queue,
            listening(queue) as url,
            aiohttp.ClientSession(url) as http,
        ):
            wanted = {"prompt": "x", field: value}
            async with http.post("/v1/images/generations", json=wanted) as reply:
                answer = await reply.json()
            assert reply.status == 400
            assert answer["error"]["param"] == field

    run(check())


def test_each_kind_of_server_has_its_policy_and_takes_another() -> None:
    assert parse(["serial"]).policy == POLICIES["serial"]
    tuned = parse(["request_batching", "--window", "0.5", "--max-batch", "2"])
    assert tuned.policy == Policy(max_batch=2, window=0.5)


def test_how_the_machine_is_used_is_tried_unless_it_is_said() -> None:
    assert len(parse(["serial"]).setups) == 2 * len(os.sched_getaffinity(0))
    said = parse(["serial", "--threads", "3", "--layout", "contiguous"])
    assert said.setups == (Setup(3, "contiguous"),)


@pytest.mark.parametrize(
    "arguments", [["serial", "--window", "1"], ["request_batching", "--max-batch", "0"], ["other"]]
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "error" in capsys.readouterr().err
