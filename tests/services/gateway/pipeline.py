"""A pipeline small enough for one test: it speaks the real messages, and draws one-coloured images.

It takes submissions as a planner does, keeps records, answers cancellations, and can be told to be
full, to fail, to warn, or to hold a job until it is released.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from PIL import Image

from shared import subjects
from shared.bus.base import Bus, Delivery, Headers, Message, ServiceInfo
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import DarkroomError, JobNotFound
from shared.jobs.advance import new_record
from shared.jobs.events import CancelRequested, NodeFailed, NodeFinished
from shared.jobs.graph import workflow
from shared.jobs.record_store import RecordStore, Revisioned
from shared.jobs.validate import validate
from shared.messages import (
    CancelReply,
    GenerationRequest,
    ImageResult,
    JobFailed,
    JobSpec,
    NodeProgress,
    Preview,
    StepProgress,
    decode,
    encode,
    failure_of,
)
from shared.models.catalogue import Catalogue
from tests.helpers import factories

TEXT_TOKENS = 9
"""That every prompt has."""


def picture(spec: JobSpec, shade: int = 128) -> bytes:
    """A real image of the wanted size and format."""
    file = io.BytesIO()
    Image.new("RGB", (spec.width, spec.height), (shade, 0, 0)).save(file, spec.output_format)
    return file.getvalue()


class AnnouncingBus(MemoryBus):
    """What is stored reaches those who listen on its subject too, as on the real bus."""

    async def store(
        self, subject: str, data: bytes, headers: Headers | None = None
    ) -> Literal["stored", "duplicate"]:
        answer = await super().store(subject, data, headers)
        await self.publish(subject, data, headers)
        return answer


class Pipeline:
    """Knobs are set before a job is submitted. `hold`: jobs that started wait for it."""

    def __init__(self, bus: Bus, catalogue: Catalogue) -> None:
        self.bus = bus
        self.catalogue = catalogue
        self.refusal: DarkroomError | None = None
        self.failure: DarkroomError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.started = asyncio.Event()
        self.listening = asyncio.Event()
        self.asked_to_cancel = 0
        self.warnings: tuple[str, ...] = ()
        self.cancelled: list[str] = []
        self.specs: dict[str, JobSpec] = {}
        self._records = RecordStore(bus)

    @staticmethod
    def on(broker: MemoryBroker, announce: bool = True) -> "Pipeline":
        """With `announce` off, who waits for a result is as if away when it was stored."""
        kind = AnnouncingBus if announce else MemoryBus
        return Pipeline(kind(broker, "pipeline"), factories.catalogue())

    async def take_submissions(self) -> None:
        """Until cancelled."""
        consumer = await self.bus.consumer(
            subjects.JOBS, subjects.PLANNERS, subjects.ALL_SUBMITS, 30.0
        )
        async with asyncio.TaskGroup() as group:
            while True:
                for delivery in await consumer.fetch(16, 1.0):
                    group.create_task(self._take(delivery))

    async def answer_cancels(self) -> None:
        """Until cancelled."""
        async with self.bus.subscribe(subjects.ALL_CANCELS, subjects.PLANNERS) as cancels:
            self.listening.set()
            async for message in cancels:
                self.asked_to_cancel += 1
                await self._cancel(message)

    async def _take(self, delivery: Delivery) -> None:
        request = decode(delivery.data, GenerationRequest)
        try:
            if self.refusal is not None:
                raise self.refusal
            spec = validate(request, self.catalogue)
        except DarkroomError as error:
            failed = JobFailed(job_id=request.job_id, failure=failure_of(error), stages=[])
            await self.bus.store(subjects.result(request.job_id), encode(failed))
            await delivery.ack()
            return
        self.specs[request.job_id] = spec
        record = new_record(request.job_id, spec, workflow(spec), time.time())
        revisioned = await self._records.open(record)
        await delivery.ack()
        await self._run(revisioned)

    async def _run(self, revisioned: Revisioned) -> None:
        job_id, spec = revisioned.record.job_id, revisioned.record.spec
        await self._finish(revisioned, "encode")
        if spec.edit is not None:
            await self._finish(revisioned, "encode_image")
        for number in range(len(spec.controls)):
            await self._finish(revisioned, f"hint-{number}")
        self.started.set()
        await self.hold.wait()
        if self.failure is not None:
            failed = NodeFailed("denoise-0", 1, failure_of(self.failure), time.time())
            await self._records.advance(revisioned, failed)
            return
        for index in range(spec.n):
            await self._denoise(job_id, spec, index)
            await self._finish(revisioned, f"denoise-{index}")
            result = ImageResult(
                job_id=job_id,
                index=index,
                seed=spec.seed + index,
                width=spec.width,
                height=spec.height,
                output_format=spec.output_format,
                data=picture(spec),
            )
            await self.bus.store(subjects.image_result(job_id, index), encode(result))
            await self._finish(revisioned, f"decode-{index}")

    async def _denoise(self, job_id: str, spec: JobSpec, index: int) -> None:
        for step in range(1, spec.steps + 1):
            progress = StepProgress(
                job_id=job_id,
                node=f"denoise-{index}",
                index=index,
                step=step,
                steps=spec.steps,
                rows=1,
                at=time.time(),
            )
            await self._tell(job_id, progress)
        for partial in range(spec.previews):
            preview = Preview(
                job_id=job_id,
                index=index,
                partial_index=partial,
                step=partial,
                data=picture(spec, 10 * partial),
                output_format=spec.output_format,
            )
            await self._tell(job_id, preview)

    async def _finish(self, revisioned: Revisioned, node: str) -> None:
        now = time.time()
        job_id, kind = revisioned.record.job_id, revisioned.record.nodes[node].node.kind
        progress = NodeProgress(
            job_id=job_id, node=node, kind=kind, state="finished", at=now, worker="test"
        )
        await self._tell(job_id, progress)
        await self._records.advance(revisioned, self._finished(node, now))

    def _finished(self, node: str, now: float) -> NodeFinished:
        if node != "encode":
            return NodeFinished(node, 1, {}, "test", now, now)
        return NodeFinished(
            node, 1, {}, "test", now, now, warnings=self.warnings, text_tokens=TEXT_TOKENS
        )

    async def _tell(self, job_id: str, event: object) -> None:
        await self.bus.publish(subjects.event(job_id), encode(event))

    async def _cancel(self, message: Message) -> None:
        job_id = subjects.job_of(message.subject)
        try:
            revisioned = await self._records.load(job_id)
            await self._records.advance(revisioned, CancelRequested(time.time()))
            reply = CancelReply(job_id=job_id, status=revisioned.record.status)
            self.cancelled.append(job_id)
        except JobNotFound:
            reply = CancelReply(job_id=job_id, status="unknown")
        await self.bus.publish(message.reply, encode(reply))


@asynccontextmanager
async def pipeline(announce: bool = True) -> AsyncIterator[tuple[Pipeline, MemoryBus]]:
    """A running pipeline, and a client's handle on its bus."""
    broker = MemoryBroker()
    line, client = Pipeline.on(broker, announce), broker.connect("client")
    await client.ensure(TOPOLOGY)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(line.take_submissions()),
            group.create_task(line.answer_cancels()),
        ]
        await line.listening.wait()
        try:
            yield line, client
        finally:
            for task in tasks:
                task.cancel()


def info(service: str) -> ServiceInfo:
    """How `service` shows itself, for the model of the test catalogue."""
    return ServiceInfo(
        name=f"darkroom-{service.replace('_', '-')}",
        version="0.1.0",
        description="a test's stand-in",
        metadata={"service": service, "pid": "1", "models": "pocket-sdxl"},
    )
