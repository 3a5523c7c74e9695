"""How a request is refused, and how a job can end."""

from typing import Any

from shared.errors.base import DarkroomError


class InvalidRequest(DarkroomError):
    """Field `field` had `value`; `allowed` says what is."""

    code = "invalid_request"

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value) if len(repr(value)) <= 120 else repr(value)[:117] + "..."
        super().__init__(
            f"{field}: {shown} is not allowed; allowed: {allowed}",
            field=field,
            value=shown,
            allowed=allowed,
        )


class QueueFull(DarkroomError):
    """Queue `queue` holds its bound of `bound`; worth another try after `retry_after` seconds."""

    code = "queue_full"

    def __init__(self, queue: str, bound: int, retry_after: float = 1.0) -> None:
        super().__init__(
            f"{queue} is full: its bound is {bound}; try again in {retry_after:.0f} s",
            queue=queue,
            bound=bound,
            retry_after=retry_after,
        )


class DeadlineExceeded(DarkroomError):
    """The job's deadline passed before it was finished."""

    code = "deadline_exceeded"

    def __init__(self, job_id: str, deadline: float) -> None:
        super().__init__(
            f"job {job_id} was not finished by its deadline", job_id=job_id, deadline=deadline
        )


class DeadlineUnreachable(DarkroomError):
    """The job would take `seconds` more, by what is predicted, and its deadline is earlier. One
    like it may be in time after `retry_after` seconds."""

    code = "deadline_unreachable"

    def __init__(self, job_id: str, seconds: float, retry_after: float) -> None:
        super().__init__(
            f"job {job_id} cannot be finished by its deadline: it would take {seconds:.1f} s; "
            f"allow it more time, or try again in {retry_after:.1f} s",
            job_id=job_id,
            seconds=seconds,
            retry_after=retry_after,
        )


class Poisoned(DarkroomError):
    """Node `node` took `kills` processes with it while it ran alone, `losses` in all."""

    code = "poisoned"

    def __init__(self, job_id: str, node: str, kills: int, losses: int) -> None:
        super().__init__(
            f"{node} of job {job_id} was given up: {kills} processes ended while they ran it "
            f"alone, and {losses} holders of it since it last made progress",
            job_id=job_id,
            node=node,
            kills=kills,
            losses=losses,
        )


class JobNotFound(DarkroomError):
    """No record of this job: it never existed, or is older than the records are kept."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} is known", job_id=job_id)


class JobFailed(DarkroomError):
    """The awaited job ended with a failure of code `failure_code`."""

    code = "job_failed"

    def __init__(self, job_id: str, failure_code: str, message: str, **fields: Any) -> None:
        super().__init__(message, job_id=job_id, failure_code=failure_code, **fields)


class JobCancelled(DarkroomError):
    """The awaited job was cancelled."""

    code = "job_cancelled"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled", job_id=job_id)


class Outdated(DarkroomError):
    """The job was begun by a version whose records this one cannot go on with."""

    code = "outdated"

    def __init__(self, job_id: str, node: str) -> None:
        super().__init__(
            f"job {job_id} was begun by another version of Darkroom, and {node} cannot go on: "
            "submit it again",
            job_id=job_id,
            node=node,
        )


class HandedOver(DarkroomError):
    """The process leaves before the node is done; it goes on elsewhere from its last checkpoint."""

    code = "handed_over"
    retryable = True

    def __init__(self, job_id: str, node: str) -> None:
        super().__init__(f"{node} of job {job_id} is handed over", job_id=job_id, node=node)


class NoLongerWanted(DarkroomError):
    """The job ended, or another process has the node; what this one would give is not wanted."""

    code = "no_longer_wanted"

    def __init__(self, job_id: str, node: str) -> None:
        super().__init__(f"{node} of job {job_id} is no longer wanted", job_id=job_id, node=node)
