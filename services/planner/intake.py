"""What a planner makes of a submission: the record of a job, or a refusal that ends it."""

import logging
import time
from dataclasses import dataclass, replace

import msgspec

from services.planner.demand import waiting_job
from services.planner.images import images_of
from services.planner.queues import QueueDepths
from services.planner.serving import Serving
from shared import subjects
from shared.bus.base import Bus
from shared.errors import (
    DarkroomError,
    DeadlineExceeded,
    DeadlineUnreachable,
    InvalidRequest,
    ModelRemoved,
    Poisoned,
    QueueFull,
)
from shared.host.one_thread import OneThread
from shared.jobs.advance import new_record
from shared.jobs.dead import DeadLetter
from shared.jobs.graph import Graph, workflow
from shared.jobs.record import JobRecord
from shared.jobs.validate import validate
from shared.messages import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobSpec,
    decode,
    encode,
    failure_of,
)
from shared.policy.release.jobs import WaitingJob
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that was checked, and what admission sees of it."""

    request: GenerationRequest
    spec: JobSpec
    graph: Graph
    job: WaitingJob

    def promised(self, at: float | None) -> "Submission":
        """With the time by which it shall be finished, where that is not its deadline."""
        if self.spec.deadline is not None or at is None:
            return self
        return replace(self, spec=msgspec.structs.replace(self.spec, wanted_by=at))


class Intake:
    def __init__(self, bus: Bus, serving: Serving, depths: QueueDepths, metrics: Metrics) -> None:
        self._bus = bus
        self._serving = serving
        self._depths = depths
        self._metrics = metrics
        self._validating = OneThread()

    async def check(self, job_id: str, data: bytes, now: float) -> Submission:
        """Raises the refusal, if it is one."""
        request = decode(data, GenerationRequest)
        if request.job_id != job_id:
            raise InvalidRequest("job_id", request.job_id, f"the job id of its subject, {job_id}")
        spec = await self._validated(request)
        if spec.deadline is not None and spec.deadline <= now:
            raise DeadlineExceeded(job_id, spec.deadline)
        graph = workflow(spec)
        await self._serving.refuse_unserved(graph)
        await self._depths.admit(graph)
        scales = self._scales(graph)
        return Submission(
            request, spec, graph, waiting_job(job_id, spec, graph, scales, now, len(data))
        )

    def _scales(self, graph: Graph) -> dict[str, int]:
        """Pixels to a position of the latents, of each model that denoises. Raises
        `ModelRemoved`."""
        scales: dict[str, int] = {}
        for node in graph.values():
            if node.kind == "denoise":
                card = self._serving.catalogue.cards.get(node.model)
                if card is None:
                    raise ModelRemoved(node.model)
                scales[node.model] = card.scale
        return scales

    async def accept(self, submission: Submission, now: float) -> JobRecord:
        """The record of a released job, whose images are stored then: whoever reads a record
        finds them."""
        for subject, image in images_of(submission.request):  # those of an earlier try stay
            await self._bus.store(subject, image)
        return new_record(submission.request.job_id, submission.spec, submission.graph, now)

    async def cancel(self, job_id: str) -> None:
        """End a job that was cancelled before it was released."""
        cancelled = JobCancelled(job_id=job_id)
        if await self._bus.store(subjects.result(job_id), encode(cancelled)) == "stored":
            self._metrics.job_ended("", "cancelled")

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

    async def refuse(self, job_id: str, refusal: DarkroomError) -> None:
        """End the job by the refusal, if it has not ended yet."""
        log.info("refused: %s", refusal)
        failed = JobFailed(job_id=job_id, failure=failure_of(refusal), stages=[])
        if await self._bus.store(subjects.result(job_id), encode(failed)) != "stored":
            return
        if isinstance(refusal, QueueFull | DeadlineUnreachable):
            self._metrics.refused(refusal.code)
        self._metrics.job_ended("", "failed")

    async def dead_letter(self, job_id: str, data: bytes, planners: int) -> None:
        """Give up a submission that so many planners did not survive."""
        poisoned = Poisoned(job_id, "plan", 0, planners)
        letter = DeadLetter(
            job_id=job_id, buried_at=time.time(), failure=failure_of(poisoned), submission=data
        )
        await self._bus.store(subjects.dead(job_id), encode(letter))
        await self.refuse(job_id, poisoned)
