"""Turns submissions into records and first nodes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from services.planner.cancellations import answer_cancel
from services.planner.deadlines import DeadlineWatch
from services.planner.intake import Intake
from services.planner.queues import QueueDepths
from services.planner.serving import Serving
from shared import subjects
from shared.bus.base import Bus, Delivery
from shared.bus.readiness import Refusal
from shared.config import Settings
from shared.errors import BusUnavailable, DarkroomError, JobNotFound, QueueFull
from shared.host.crash_points import reached
from shared.jobs.record_store import RecordStore
from shared.messages import NodeProgress, encode
from shared.models.catalogue import Catalogue
from shared.telemetry.metrics import Metrics
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import NodeAttempt, inject
from shared.worker.exclusive import ExclusiveLock
from shared.worker.pull import Puller, PullLoop, PullStatistics, Source, Work

log = logging.getLogger(__name__)

CAPACITY: Final = 64
"""Submissions looked at side by side."""
CAPACITY_RETRY_SECONDS: Final = 1.0
"""After this, an accepted job whose nodes found WORK full is tried again."""
MAX_DELIVERIES: Final = 25
"""Planners that may have had a submission and vanished, before it is given up."""


class Planner:
    """Stateless but for a short memory of queue depths: any number of them may run."""

    def __init__(
        self, bus: Bus, catalogue: Catalogue, settings: Settings, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._metrics = metrics
        self._settings = settings
        self._records = RecordStore(bus, inject, metrics.job_ended)
        self._loop: PullLoop | None = None
        self._exclusive_lock = ExclusiveLock()
        self._serving = Serving(bus, catalogue)
        self._depths = QueueDepths(bus, metrics, settings.max_queued)
        self._intake = Intake(bus, self._serving, self._depths, metrics)
        self._deadlines = DeadlineWatch(self._records)
        self.watch_services = self._serving.watch
        self.watch_deadlines = self._deadlines.watch

    async def watch_queues(self) -> None:
        """See `QueueDepths.watch`."""
        await self._depths.watch(lambda: self._serving.catalogue)

    def statistics(self) -> PullStatistics:
        if self._loop is None:
            return PullStatistics(0, CAPACITY, 0, 0)
        return self._loop.statistics()

    def refusal(self) -> Refusal | None:
        """See `PullLoop.refusal`."""
        return None if self._loop is None else self._loop.refusal()

    def __repr__(self) -> str:
        return f"<Planner {list(self._serving.catalogue.cards)} {self._loop!r}>"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. `ready` is called once submissions can arrive."""
        consumer = await self._bus.consumer(
            subjects.JOBS, subjects.PLANNERS, subjects.ALL_SUBMITS, self._settings.ack_wait
        )
        self._loop = PullLoop(
            [Source(consumer, CAPACITY)],
            self._settings,
            Puller(handle=self._plan, decline=_decline),
        )
        async with (
            self._bus.subscribe(subjects.ALL_CANCELS, subjects.PLANNERS) as cancels,
            asyncio.TaskGroup() as group,
        ):

            async def listen() -> None:
                async for message in cancels:
                    await answer_cancel(message, self._bus, self._records)

            listener = group.create_task(listen())
            ready()
            await self._loop.run(stop)
            listener.cancel()

    async def _plan(self, work: Work) -> None:
        """Validate, decide admission, write the record, publish what is ready, acknowledge."""
        delivery = work.delivery
        job_id = subjects.job_of(delivery.subject)
        attempt = NodeAttempt(
            job_id=job_id,
            node="plan",
            kind="plan",
            model="",
            attempt=delivery.deliveries,
            headers=delivery.headers,
        )
        with observed(self._metrics, attempt):
            try:
                await self._plan_among_others(job_id, delivery)
            except QueueFull as error:
                log.warning("%s waits for capacity: %s", job_id, error)
                await delivery.retry(CAPACITY_RETRY_SECONDS)
                return
            reached("ack.before")
            await delivery.ack()
            reached("ack.after")

    async def _plan_among_others(self, job_id: str, delivery: Delivery) -> None:
        """With others, unless it may be what ended the planner that had it before. Raises
        `QueueFull` if the job was accepted and there is no room for its nodes."""
        if delivery.deliveries > MAX_DELIVERIES:
            await self._dead_letter(job_id, delivery)
        elif delivery.deliveries > 1:
            async with self._exclusive_lock.alone():
                await self._decide(job_id, delivery.data)
        else:
            async with self._exclusive_lock.together():
                await self._decide(job_id, delivery.data)

    async def _decide(self, job_id: str, data: bytes) -> None:
        """Open the job's record, or refuse the job by a result, if it has neither yet."""
        if await self._bus.stored(subjects.result(job_id)) is not None:
            return  # the same submission gets the same answer
        try:
            record = await self._intake.accept(job_id, data, time.time())
        except DarkroomError as refusal:
            if refusal.retryable:  # the bus is in trouble, not the request
                raise
            if not await self._known(job_id):  # what was accepted once is not refused
                await self._intake.refuse(job_id, refusal)
            return
        await self._records.open(record)
        await self._tell_accepted(job_id)
        self._deadlines.add(record.spec.deadline, job_id)

    async def _tell_accepted(self, job_id: str) -> None:
        """Whoever watches the job need not wait for a worker to know that it was not refused."""
        accepted = NodeProgress(
            job_id=job_id,
            node="plan",
            kind="plan",
            state="finished",
            at=time.time(),
            worker="planner",
        )
        with contextlib.suppress(BusUnavailable):  # events are lossy
            await self._bus.publish(subjects.event(job_id), encode(accepted))

    async def _known(self, job_id: str) -> bool:
        """Whether the job has a record, or ended; then what it still needs is published."""
        try:
            await self._records.publish_outstanding(await self._records.load(job_id))
        except JobNotFound:
            return await self._bus.stored(subjects.result(job_id)) is not None
        return True

    async def _dead_letter(self, job_id: str, delivery: Delivery) -> None:
        """No planner survives this one, unless it was planned and only has to be published."""
        if await self._known(job_id):
            return
        await self._intake.dead_letter(job_id, delivery.data, delivery.deliveries - 1)


async def _decline(work: Work) -> None:
    await work.delivery.retry(0.0)
