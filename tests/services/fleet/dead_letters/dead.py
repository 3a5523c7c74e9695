"""Dead letters, as the record store and the planner write them."""

from shared import subjects
from shared.bus.base import Bus
from shared.errors import Poisoned
from shared.jobs.advance import advance, new_record
from shared.jobs.dead import DeadLetter
from shared.jobs.events import Claimed, Isolated, NodeFailed, NodeFinished
from shared.jobs.graph import workflow
from shared.jobs.record import JobRecord
from shared.messages import Failure, encode, failure_of
from tests.helpers import factories

BROKEN = Failure(code="internal_error", message="it broke", retryable=True, fields={})
FATAL = Failure(code="not_finite", message="no numbers", retryable=False, fields={})


def running(job_id: str = "job-1", **changes: object) -> JobRecord:
    """A job that is encoded, and whose denoise nodes are at work."""
    spec = factories.spec(job_id=job_id, **changes)
    record = new_record(job_id, spec, workflow(spec), at=1.0)
    for name in [name for name, state in record.nodes.items() if not state.node.inputs]:
        record, _ = advance(record, NodeFinished(name, 1, {}, "worker", 1.0, 2.0))
    return record


def poisoned(job_id: str = "job-1", at: float = 100.0, **changes: object) -> DeadLetter:
    """`denoise-0` failed once, then took two processes with it."""
    record = running(job_id, **changes)
    record, _ = advance(record, NodeFailed("denoise-0", 1, BROKEN, 3.0))
    for lease in (1, 2):
        record, _ = advance(record, Isolated("denoise-0", 2, lease, at))
        record, _ = advance(record, Claimed("denoise-0", 2, lease, at))
    return letter_of(record)


def broken(job_id: str = "job-1", at: float = 100.0, **changes: object) -> DeadLetter:
    """The last image's `denoise` failed three times."""
    record = running(job_id, **changes)
    name = f"denoise-{record.spec.n - 1}"
    for attempt in (1, 2, 3):
        record, _ = advance(record, NodeFailed(name, attempt, BROKEN, at))
    return letter_of(record)


def letter_of(record: JobRecord) -> DeadLetter:
    assert record.failure is not None
    return DeadLetter(
        job_id=record.job_id,
        buried_at=record.ended_at or 0.0,
        failure=record.failure,
        record=record,
    )


def unplanned(submission: bytes, job_id: str = "job-1") -> DeadLetter:
    """No planner survived it."""
    failure = failure_of(Poisoned(job_id, "plan", 0, 25))
    return DeadLetter(job_id=job_id, buried_at=100.0, failure=failure, submission=submission)


async def store(bus: Bus, *letters: DeadLetter) -> None:
    for letter in letters:
        assert await bus.store(subjects.dead(letter.job_id), encode(letter)) == "stored"
