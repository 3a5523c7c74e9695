"""The one tree of errors. Each carries its fields: what was wrong, where, and what is allowed.

Errors are translated once, at a boundary: `shared/bus/nats` turns the client library's errors into
these, `Failure` (`shared/messages/`) carries one over the wire, the gateway turns it into HTTP.

    DarkroomError
    ├── InvalidRequest        a field of a request is not allowed; never retried
    ├── QueueFull             a stated bound was reached; try again later
    ├── DeadlineExceeded      the job's own deadline passed
    ├── Poisoned              the job killed its processes, and is kept away from others
    ├── JobNotFound / JobFailed / JobCancelled      how waiting for a job can end
    ├── HandedOver / NoLongerWanted     why a process leaves a node undone; never told to users
    ├── HandleLost            a tensor's bytes are gone; its producer runs again
    ├── AdapterUnusable       a LoRA cannot be read, or does not fit the model
    ├── ControlUnavailable    no ControlNet answers for a row, or not with what fits
    ├── ArenaFull             no slot left in this process's arena
    │   └── TmpfsFull         the file system under the arenas is full
    ├── PayloadTooLarge       a message over the bus's limit
    ├── RevisionConflict      somebody else advanced the record first
    ├── NotServed             every process that a job needs says that it takes no work
    ├── BusUnavailable        the bus did not answer in time
    ├── NotPermitted          the bus does not allow this to whoever we are
    ├── Unauthorized          an HTTP request without a valid token
    ├── Misconfigured         the environment cannot work; the text says what to set
    │   └── MemoryBudgetExceeded  a process would need more memory than it may use
    ├── DeadLetterUnusable    in `services/fleet/dead_letters/letters.py`
    ├── NotFinite             what was computed is NaN or infinite
    └── EngineStopped         in `services/denoiser/engine/events.py`: how a row can end
"""

from typing import Any, ClassVar


class DarkroomError(Exception):
    """Base of all errors of this project. `code` is its stable name on the wire."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


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


class HandleLost(DarkroomError):
    """The bytes behind a handle cannot be had any more; whoever made them has to run again."""

    code = "handle_lost"
    retryable = True

    def __init__(self, handle: str, reason: str) -> None:
        super().__init__(f"tensor {handle} is lost: {reason}", handle=handle, reason=reason)


class AdapterUnusable(DarkroomError):
    """Adapter `adapter` cannot be applied; `reason` says what is wrong with it."""

    code = "adapter_unusable"

    def __init__(self, adapter: str, reason: str) -> None:
        super().__init__(
            f"the adapter {adapter} cannot be used: {reason}", adapter=adapter, reason=reason
        )


class ControlUnavailable(DarkroomError):
    """ControlNet `control` did not give what the next step needs; `reason` says why."""

    code = "control_unavailable"

    def __init__(self, control: str, reason: str) -> None:
        super().__init__(
            f"the ControlNet {control} is not available: {reason}", control=control, reason=reason
        )


class NotFinite(DarkroomError):
    """What was computed became NaN or infinite: what it was computed from was, or the dtype is too
    narrow."""

    code = "not_finite"


class ArenaFull(DarkroomError):
    """An arena of `capacity` bytes, `in_use` of them taken, has no room for `requested` bytes."""

    code = "arena_full"
    retryable = True

    @property
    def for_good(self) -> bool:
        """Whether an empty arena would not do either."""
        return bool(self.fields["requested"] > self.fields.get("capacity", float("inf")))

    def __init__(self, arena: str, requested: int, in_use: int, capacity: int) -> None:
        super().__init__(
            f"arena {arena} has no room for {requested} bytes: {in_use} of {capacity} are in use "
            "(DARKROOM_ARENA_BYTES)",
            arena=arena,
            requested=requested,
            in_use=in_use,
            capacity=capacity,
        )


class TmpfsFull(ArenaFull):
    """The file system at `directory`, with `free` bytes left, cannot hold `requested` more."""

    code = "tmpfs_full"

    def __init__(self, arena: str, requested: int, directory: str, free: int) -> None:
        DarkroomError.__init__(
            self,
            f"the file system at {directory} has no room for {requested} bytes of arena {arena}: "
            f"{free} are free; enlarge it, or configure smaller arenas",
            arena=arena,
            requested=requested,
            directory=directory,
            free=free,
        )


class NotServed(DarkroomError):
    """Every `service` for `model` says that it takes no work, and that this is there to stay."""

    code = "not_served"

    def __init__(self, service: str, model: str, reason: str) -> None:
        super().__init__(
            f"no {service} for {model} takes work: {reason}",
            service=service,
            model=model,
            reason=reason,
        )


class PayloadTooLarge(DarkroomError):
    """A message of `size` bytes for `subject`, over the bus's limit of `limit`."""

    code = "payload_too_large"

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes for {subject} is over the limit of {limit} bytes",
            subject=subject,
            size=size,
            limit=limit,
        )


class RevisionConflict(DarkroomError):
    """A compare-and-set of `key` at `revision` lost: somebody wrote it in between."""

    code = "revision_conflict"
    retryable = True

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"{key} is no longer at revision {revision}", key=key, revision=revision)


class BusUnavailable(DarkroomError):
    """The bus, or whoever should answer on `subject`, did not answer in time."""

    code = "bus_unavailable"
    retryable = True

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"{subject}: {reason}", subject=subject, reason=reason)


class NotPermitted(DarkroomError):
    """The bus refused to let us `verb` ("publish" or "subscribe") `subject`."""

    code = "not_permitted"

    def __init__(self, verb: str, subject: str) -> None:
        super().__init__(
            f"the bus does not permit these credentials to {verb} {subject!r}; "
            "services/fleet/access/permissions.py says what each service may do",
            verb=verb,
            subject=subject,
        )


class Unauthorized(DarkroomError):
    """A request to the gateway carries no token, or one that is not known."""

    code = "invalid_api_key"


class Misconfigured(DarkroomError):
    """Something outside the code must be changed before this can work; the message says what."""

    code = "misconfigured"


class MemoryBudgetExceeded(Misconfigured):
    """`what` needs `needed` bytes, over this process's budget of `budget`."""

    code = "memory_budget"

    def __init__(self, what: str, needed: int, budget: int) -> None:
        super().__init__(
            f"{what} needs {needed} bytes, over DARKROOM_MEMORY_BUDGET={budget}: raise it, or "
            "serve less from this process",
            what=what,
            needed=needed,
            budget=budget,
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
