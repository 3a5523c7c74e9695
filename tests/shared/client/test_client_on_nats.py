"""The Python client over a real server, also when that server goes away for a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shared.bus.base import Bus
from shared.bus.embedded import nats_server
from shared.bus.nats import connect
from shared.bus.topology import TOPOLOGY
from shared.client import Darkroom
from shared.messages import JobCancelled, JobDone, StepProgress
from tests.conftest import run
from tests.helpers import factories
from tests.services.gateway.pipeline import Pipeline


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Bus]:
    bus = await connect(url, name)
    try:
        await bus.ensure(TOPOLOGY)
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def pipeline(url: str) -> AsyncIterator[Pipeline]:
    async with connected(url, "pipeline") as bus, asyncio.TaskGroup() as group:
        line = Pipeline(bus, factories.catalogue())
        tasks = [
            group.create_task(line.take_submissions()),
            group.create_task(line.answer_cancels()),
        ]
        await line.listening.wait()
        try:
            yield line
        finally:
            for task in tasks:
                task.cancel()


def test_a_job_is_followed_to_its_images_and_another_one_is_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            nats_server(tmp_path) as server,
            pipeline(server.url) as line,
            Darkroom.connect(server.url) as darkroom,
        ):
            job = await darkroom.submit(factories.request(n=2, steps=3))
            items = [item async for item in job.events()]
            assert [i.step for i in items if isinstance(i, StepProgress)] == [1, 2, 3] * 2
            assert isinstance(items[-1], JobDone)
            assert [image.index for image in await job.images()] == [0, 1]

            line.hold.clear()
            other = await darkroom.submit(factories.request(job_id="job-2"))
            assert (await other.cancel()).status == "cancelled"
            assert isinstance(await other.outcome(), JobCancelled)

    run(scenario())


def test_a_job_that_ends_after_the_server_was_away_still_gives_its_images(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as servers, AsyncExitStack() as clients:
            first = await servers.enter_async_context(nats_server(tmp_path))
            line = await clients.enter_async_context(pipeline(first.url))
            darkroom = await clients.enter_async_context(Darkroom.connect(first.url))
            line.hold.clear()
            job = await darkroom.submit(factories.request())
            await line.started.wait()
            await servers.aclose()
            await servers.enter_async_context(nats_server(tmp_path, port=first.port))
            line.hold.set()
            assert len(await job.images()) == 1

    run(scenario())
