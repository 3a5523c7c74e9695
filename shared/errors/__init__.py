"""The one tree of errors. Each carries its fields: what was wrong, where, and what is allowed.

Errors are translated once, at a boundary: `shared/bus/nats` turns the client library's errors into
these, `Failure` (`shared/messages/`) carries one over the wire, the gateway turns it into HTTP.

    DarkroomError
    ├── InvalidRequest        a field of a request is not allowed; never retried
    ├── QueueFull             a stated bound was reached; try again later
    ├── DeadlineExceeded      the job's own deadline passed
    ├── DeadlineUnreachable   the job cannot be finished by its deadline, as it is predicted
    ├── Poisoned              the job killed its processes, and is kept away from others
    ├── JobNotFound / JobFailed / JobCancelled      how waiting for a job can end
    ├── HandedOver / NoLongerWanted     why a process leaves a node undone; users never see it
    ├── HandleLost            a tensor's bytes are gone; its producer runs again
    ├── AdapterUnusable       a LoRA cannot be read, or does not fit the model
    ├── ControlUnavailable    no ControlNet answers for a row, or not with what fits
    ├── ArenaFull             no slot left in this process's arena
    │   └── TmpfsFull         the file system under the arenas is full
    ├── NoRoom                a tier cannot take an item in, for too much has to stay there
    ├── PayloadTooLarge       a message over the bus's limit
    ├── RevisionConflict      somebody else advanced the record first
    ├── Outdated              the job was begun by a version whose records are not understood
    ├── ModelRemoved          an operator removed the model of a job that had not ended
    ├── NotServed             every process that a job needs says that it takes no work
    ├── BusUnavailable        the bus did not answer in time
    ├── NotPermitted          the bus does not allow this to these credentials
    ├── Unauthorized          an HTTP request without a valid token
    ├── Forbidden             an HTTP request whose token does not allow what it asks for
    ├── Misconfigured         the environment cannot work; the text says what to set
    │   └── MemoryBudgetExceeded  a process would need more memory than it may use
    ├── DeadLetterUnusable    in `services/fleet/dead_letters/letters.py`
    ├── NotFinite             what was computed is NaN or infinite
    └── EngineStopped         in `services/denoiser/engine/events.py`: how a row can end
"""

from shared.errors.base import DarkroomError
from shared.errors.bus import BusUnavailable, NotPermitted, PayloadTooLarge, RevisionConflict
from shared.errors.environment import Forbidden, MemoryBudgetExceeded, Misconfigured, Unauthorized
from shared.errors.jobs import (
    DeadlineExceeded,
    DeadlineUnreachable,
    HandedOver,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NoLongerWanted,
    Outdated,
    Poisoned,
    QueueFull,
)
from shared.errors.models import AdapterUnusable, ControlUnavailable, ModelRemoved, NotServed
from shared.errors.tensors import ArenaFull, HandleLost, NoRoom, NotFinite, TmpfsFull

__all__ = [
    "AdapterUnusable",
    "ArenaFull",
    "BusUnavailable",
    "ControlUnavailable",
    "DarkroomError",
    "DeadlineExceeded",
    "DeadlineUnreachable",
    "Forbidden",
    "HandedOver",
    "HandleLost",
    "InvalidRequest",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "MemoryBudgetExceeded",
    "Misconfigured",
    "ModelRemoved",
    "NoLongerWanted",
    "NoRoom",
    "NotFinite",
    "NotPermitted",
    "NotServed",
    "Outdated",
    "PayloadTooLarge",
    "Poisoned",
    "QueueFull",
    "RevisionConflict",
    "TmpfsFull",
    "Unauthorized",
]
