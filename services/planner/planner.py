"""Turns submissions into records and first nodes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from services.planner.backlog import Backlog, rules_of
from services.planner.cancellations import answer_cancel
from services.planner.deadlines import DeadlineWatch
from services.planner.intake import Intake, Submission
from services.planner.queues import QueueDepths
from services.planner.serving import Serving
from services.planner.wanted_models import WantedModels
from shared import subjects
from shared.bus.base import Bus, Delivery
from shared.bus.readiness import Refusal
from shared.config import Settings
from shared.errors import (
    BusUnavailable,
    DarkroomError,
    HandedOver,
    JobCancelled,
    JobNotFound,
    NoLongerWanted,
    QueueFull,
)
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

LOOKING: Final = 64
"""Submissions looked at side by side."""
CAPACITY_RETRY_SECONDS: Final = 1.0
"""After this, an accepted job whose nodes found WORK full is tried again."""
MAX_DELIVERIES: Final = 25
"""Planners that may have had a submission and vanished, before it is given up."""


class Planner:
    """Stateless but for what it holds unacknowledged, and a short memory of queue depths: any
    number of them may run. `name`: unique among them."""

    def __init__(
        self,
        bus: Bus,
        catalogue: Catalogue,
        settings: Settings,
        metrics: Metrics,
        name: str = "planner",
    ) -> None:
        self._bus = bus
        self._metrics = metrics
        self._settings = settings
        self._records = RecordStore(bus, inject, metrics.job_ended)
        self._loop: PullLoop | None = None
        self._capacity = settings.backlog_jobs
        self._looking = asyncio.Semaphore(LOOKING)
        self._exclusive_lock = ExclusiveLock()
        self._serving = Serving(bus, catalogue)
        self._backlog = Backlog(bus, name, rules_of(settings), self._serving.waited_for)
        self._depths = QueueDepths(bus, metrics, settings.max_queued)
        self._intake = Intake(bus, self._serving, self._depths, metrics)
        self._deadlines = DeadlineWatch(self._records)
        self._wanted = WantedModels(bus, self._serving.waited_for, self._waiting_models)
        self.watch_services = self._serving.watch
        self.watch_wanted = self._wanted.watch
        self.watch_deadlines = self._deadlines.watch

    def serve(self, catalogue: Catalogue) -> None:
        """From now on these models are served; jobs that wait here for another one end."""
        self._serving.take(catalogue)
        self._backlog.keep_models(catalogue.cards)

    async def watch_queues(self) -> None:
        """See `QueueDepths.watch`."""
        await self._depths.watch(lambda: self._serving.catalogue)

    def _waiting_models(self) -> frozenset[str]:
        """Of which anything waits, here or in a queue."""
        return self._backlog.models | self._depths.models

    def statistics(self) -> PullStatistics:
        if self._loop is None:
            return PullStatistics(0, self._capacity, 0, 0)
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
            [Source(consumer, self._capacity)],
            self._settings,
            Puller(handle=self._plan, decline=_decline, drain=self._backlog.leave),
        )
        async with (
            self._bus.subscribe(subjects.ALL_CANCELS, subjects.PLANNERS) as asked,
            self._bus.subscribe(subjects.ALL_CANCELS) as cancelled,
            asyncio.TaskGroup() as group,
        ):

            async def answer() -> None:
                async for message in asked:
                    await answer_cancel(message, self._bus, self._records)

            async def end() -> None:
                async for message in cancelled:
                    self._backlog.cancel(subjects.job_of(message.subject))

            helpers = [group.create_task(each) for each in (answer(), end(), self._backlog.run())]
            ready()
            await self._loop.run(stop)
            for helper in helpers:
                helper.cancel()

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
                await self._plan_and_wait(job_id, work)
            except QueueFull as error:
                log.warning("%s waits for capacity: %s", job_id, error)
                await delivery.retry(CAPACITY_RETRY_SECONDS)
                return
            except HandedOver:
                await delivery.retry(0.0)
                return
            except NoLongerWanted:  # a later delivery of it is
                return
            reached("ack.before")
            await delivery.ack()
            reached("ack.after")

    async def _plan_and_wait(self, job_id: str, work: Work) -> None:
        """Check the submission, wait until the job is to be released, and open its record. Raises
        `QueueFull` if the job was accepted and there is no room for its nodes."""
        delivery = work.delivery
        if delivery.deliveries > MAX_DELIVERIES:
            await self._dead_letter(job_id, delivery)
            return
        async with self._looking, self._guarded(delivery):
            submission = await self._checked(job_id, delivery.data)
        released = None if submission is None else await self._released(submission, work)
        if released is None:
            return
        async with self._guarded(delivery):
            try:
                record = await self._intake.accept(released, time.time())
            except DarkroomError as refusal:  # there is no room for its images
                await self._refuse(job_id, refusal)
                return
            await self._records.open(record)
        await self._publish_accepted(job_id)
        self._deadlines.add(record.spec.deadline, job_id)

    @asynccontextmanager
    async def _guarded(self, delivery: Delivery) -> AsyncIterator[None]:
        """With others, unless it may be what ended the planner that had it before."""
        lock = self._exclusive_lock
        async with lock.together() if delivery.deliveries == 1 else lock.alone():
            yield

    async def _checked(self, job_id: str, data: bytes) -> Submission | None:
        """None: it is settled, by the answer that the same submission had, or by a refusal."""
        if await self._bus.stored(subjects.result(job_id)) is not None:
            return None
        try:
            return await self._intake.check(job_id, data, time.time())
        except DarkroomError as refusal:
            await self._refuse(job_id, refusal)
            return None

    async def _released(self, submission: Submission, work: Work) -> Submission | None:
        """Wait in the backlog. None: the job ended there."""
        job_id = submission.job.job_id
        self._wanted.look_now()
        try:
            promised = await self._backlog.wait(submission.job, work.progressed)
        except JobCancelled:
            if not await self._known(job_id):
                await self._intake.cancel(job_id)
            return None
        except NoLongerWanted:
            raise
        except DarkroomError as refusal:
            await self._refuse(job_id, refusal)
            return None
        work.progressed()
        return submission.promised(promised)

    async def _refuse(self, job_id: str, refusal: DarkroomError) -> None:
        """By a result, unless the job has one, or a record: what was accepted once is not refused.
        Raises what is the bus's trouble, and not the request's."""
        if refusal.retryable:
            raise refusal
        if not await self._planned(job_id):
            await self._intake.refuse(job_id, refusal)

    async def _publish_accepted(self, job_id: str) -> None:
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
        if await self._planned(job_id):
            return True
        return await self._bus.stored(subjects.result(job_id)) is not None

    async def _planned(self, job_id: str) -> bool:
        """Whether the job has a record; then what it still needs is published."""
        try:
            await self._records.publish_outstanding(await self._records.load(job_id))
        except JobNotFound:
            return False
        return True

    async def _dead_letter(self, job_id: str, delivery: Delivery) -> None:
        """No planner survives this one, unless it was planned and only has to be published."""
        if await self._known(job_id):
            return
        await self._intake.dead_letter(job_id, delivery.data, delivery.deliveries - 1)


async def _decline(work: Work) -> None:
    await work.delivery.retry(0.0)
