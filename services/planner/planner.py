"""Turns submissions into records and first nodes, and answers cancellations."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from services.planner.images import images_of
from services.planner.serving import Serving
from shared import subjects
from shared.bus.base import Bus, Delivery, Message
from shared.bus.readiness import Refusal
from shared.config import Settings
from shared.errors import (
    BusUnavailable,
    DarkroomError,
    DeadlineExceeded,
    InvalidRequest,
    JobNotFound,
    Poisoned,
    QueueFull,
)
from shared.host.crash_points import reached
from shared.host.one_thread import OneThread
from shared.jobs.advance import new_record
from shared.jobs.dead import DeadLetter
from shared.jobs.events import CancelRequested, DeadlinePassed
from shared.jobs.graph import Graph, workflow
from shared.jobs.record import JobRecord
from shared.jobs.record_store import RecordStore
from shared.jobs.validate import validate
from shared.messages import (
    CancelReply,
    GenerationRequest,
    JobFailed,
    JobSpec,
    NodeProgress,
    decode,
    encode,
    failure_of,
)
from shared.models.catalogue import Catalogue
from shared.policy.admission import admit
from shared.policy.expiry import Deadlines
from shared.services import KINDS_OF_MODELS
from shared.telemetry.metrics import Metrics
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import NodeAttempt, inject
from shared.worker.exclusive import ExclusiveLock
from shared.worker.pull import Puller, PullLoop, PullStatistics, Source, Work

log = logging.getLogger(__name__)

CAPACITY: Final = 64
"""Submissions looked at side by side."""
DEPTH_SECONDS: Final = 2.0
"""How long a queue's measured depth is believed, with what was let in since; usually it is measured
again before that, once in `WATCH_SECONDS`."""
REFUSAL_SECONDS: Final = 0.2
"""How old it may be to turn a job away."""
CAPACITY_RETRY_SECONDS: Final = 1.0
"""After this, an accepted job whose nodes found WORK full is tried again."""
DEADLINE_SECONDS: Final = 0.25
"""How long after its deadline a waiting job may be ended."""
MAX_DELIVERIES: Final = 25
"""Planners that may have had a submission and vanished, before it is given up."""
WATCH_SECONDS: Final = 1.0
"""Pause between two measurements of all queues."""


class Planner:
    """Stateless but for a short memory of queue depths: any number of them may run."""

    def __init__(
        self, bus: Bus, catalogue: Catalogue, settings: Settings, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._metrics = metrics
        self._settings = settings
        self._records = RecordStore(bus, inject, metrics.job_ended)
        self._depths: dict[tuple[str, str], tuple[float, int]] = {}
        self._loop: PullLoop | None = None
        self._exclusive_lock = ExclusiveLock()
        self._deadlines = Deadlines()
        self._validating = OneThread()
        self._serving = Serving(bus, catalogue)
        self.watch_services = self._serving.watch

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
                    await self._answer_cancel(message)

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
            record = await self._accept(job_id, data, time.time())
        except DarkroomError as refusal:
            if refusal.retryable:  # the bus is in trouble, not the request
                raise
            if not await self._known(job_id):  # what was accepted once is not refused
                await self._refuse(job_id, refusal)
            return
        await self._records.open(record)
        await self._tell_accepted(job_id)
        if record.spec.deadline is not None:
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

    async def _accept(self, job_id: str, data: bytes, now: float) -> JobRecord:
        """The record of a new job, whose images are stored then: whoever reads a record finds
        them. Raises the refusal, if it is one."""
        request = decode(data, GenerationRequest)
        if request.job_id != job_id:
            raise InvalidRequest("job_id", request.job_id, f"the job id of its subject, {job_id}")
        spec = await self._validated(request)
        if spec.deadline is not None and spec.deadline <= now:
            raise DeadlineExceeded(job_id, spec.deadline)
        graph = workflow(spec)
        await self._serving.refuse_unserved(graph)
        await self._admit(graph)
        for subject, image in images_of(request):  # those of an earlier try stay
            await self._bus.store(subject, image)
        return new_record(job_id, spec, graph, now)

    async def _validated(self, request: GenerationRequest) -> JobSpec:
        """As `validate`; images are decoded one at a time, and hold up nobody else. What `validate`
        does not foresee would happen to every planner: it is an answer too."""
        try:
            if request.image is None:
                return validate(request, self._serving.catalogue)
            return await self._validating.call(validate, request, self._serving.catalogue)
        except (DarkroomError, MemoryError):
            raise
        except Exception as error:
            log.exception("%s cannot be checked", request.job_id)
            reason = f"{type(error).__name__}: {error}"
            raise DarkroomError(f"the request cannot be checked: {reason}") from error

    async def _refuse(self, job_id: str, refusal: DarkroomError) -> None:
        log.info("refused: %s", refusal)
        if isinstance(refusal, QueueFull):
            self._metrics.refused(refusal.code)
        failed = JobFailed(job_id=job_id, failure=failure_of(refusal), stages=[])
        if await self._bus.store(subjects.result(job_id), encode(failed)) == "stored":
            self._metrics.job_ended("", "failed")

    async def _dead_letter(self, job_id: str, delivery: Delivery) -> None:
        """No planner survives this one, unless it was planned and only has to be published."""
        if await self._known(job_id):
            return
        poisoned = Poisoned(job_id, "plan", 0, delivery.deliveries - 1)
        letter = DeadLetter(
            job_id=job_id,
            buried_at=time.time(),
            failure=failure_of(poisoned),
            submission=delivery.data,
        )
        await self._bus.store(subjects.dead(job_id), encode(letter))
        await self._refuse(job_id, poisoned)

    async def watch_deadlines(self) -> None:
        """End jobs whose deadline passes while they wait, for as long as this runs."""
        while True:
            await asyncio.sleep(DEADLINE_SECONDS)
            now = time.time()
            for job_id in self._deadlines.passed(now):
                try:
                    revisioned = await self._records.load(job_id)
                    await self._records.advance(revisioned, DeadlinePassed(now))
                except JobNotFound:
                    continue
                except DarkroomError as error:
                    log.warning("the deadline of %s is left to its workers: %s", job_id, error)

    async def _admit(self, graph: Graph) -> None:
        """Raises `QueueFull` if there is no room for the graph's nodes; else it is taken up."""
        bound = self._settings.max_queued
        refusal = admit(graph, await self._waiting(graph, DEPTH_SECONDS), bound)
        if refusal is not None:  # perhaps there is room by now
            refusal = admit(graph, await self._waiting(graph, REFUSAL_SECONDS), bound)
        if refusal is not None:
            raise refusal
        for node in graph.values():  # until it is measured again, what was let in counts
            measured_at, depth = self._depths[node.kind, node.model]
            self._depths[node.kind, node.model] = (measured_at, depth + 1)

    async def _waiting(self, graph: Graph, oldest: float) -> dict[tuple[str, str], int]:
        """Queue depths for the graph's nodes, each measured at most `oldest` seconds ago."""
        waiting: dict[tuple[str, str], int] = {}
        for key in {(node.kind, node.model) for node in graph.values()}:
            measured_at, _ = self._depths.get(key, (0.0, 0))
            if time.time() - measured_at > oldest:
                await self._measure(*key)
            waiting[key] = self._depths[key][1]
        return waiting

    async def _measure(self, kind: str, model: str) -> None:
        depth = await self._bus.depth(subjects.WORK, subjects.work_queue(kind, model))
        self._depths[kind, model] = (time.time(), depth)
        self._metrics.queue_depth(kind, model, depth)

    async def watch_queues(self) -> None:
        """Keep the depths of all queues fresh, for admission and for the metrics, for as long as
        this runs."""
        while True:
            served = self._serving.catalogue
            queues = [(kind, model) for model in served.cards for kind in KINDS_OF_MODELS]
            queues += [("hint", control) for control in served.controls]
            for kind, model in queues:
                with contextlib.suppress(BusUnavailable):
                    await self._measure(kind, model)
            await asyncio.sleep(WATCH_SECONDS)

    async def _answer_cancel(self, message: Message) -> None:
        """Cancel the job for good if it still runs, and say how it stands."""
        job_id = subjects.job_of(message.subject)
        try:
            revisioned = await self._records.load(job_id)
            await self._records.advance(revisioned, CancelRequested(time.time()))
            reply = CancelReply(job_id=job_id, status=revisioned.record.status)
        except JobNotFound:
            reply = CancelReply(job_id=job_id, status="unknown")
        except DarkroomError as error:
            log.warning("%s could not be cancelled: %s", job_id, error)
            return  # no answer: the client asks again
        if message.reply:
            await self._bus.publish(message.reply, encode(reply))


async def _decline(work: Work) -> None:
    await work.delivery.retry(0.0)
