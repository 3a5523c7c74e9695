"""Darkroom for Python programs: the client, the requests it sends, and the errors it raises.

    from darkroom import Darkroom, GenerationRequest, new_job_id

    async with Darkroom.connect("nats://127.0.0.1:4222") as client:
        request = GenerationRequest(job_id=new_job_id(), prompt="a large red circle left on white")
        job = await client.submit(request)
        [image] = await job.images()

`Job.events()` yields progress (`NodeProgress`, `StepProgress`, `Preview`), every `ImageResult`, and
at last one of `darkroom.outcomes`. What is named here stays where it is; other modules may move.
"""

from shared.client import Darkroom, new_job_id
from shared.client.job import Job
from shared.errors import (
    AdapterUnusable,
    BusUnavailable,
    DarkroomError,
    DeadlineExceeded,
    DeadlineUnreachable,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Misconfigured,
    NotPermitted,
    PayloadTooLarge,
    QueueFull,
)
from shared.jobs.record import JobRecord
from shared.messages import (
    CancelReply,
    ControlChoice,
    GenerationRequest,
    ImageResult,
    LoraChoice,
    NodeProgress,
    Preview,
    StepProgress,
)
from shared.security.keys import Credentials

__version__ = "0.1.0"

__all__ = [
    "AdapterUnusable",
    "BusUnavailable",
    "CancelReply",
    "ControlChoice",
    "Credentials",
    "Darkroom",
    "DarkroomError",
    "DeadlineExceeded",
    "DeadlineUnreachable",
    "GenerationRequest",
    "ImageResult",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobRecord",
    "LoraChoice",
    "Misconfigured",
    "NodeProgress",
    "NotPermitted",
    "PayloadTooLarge",
    "Preview",
    "QueueFull",
    "StepProgress",
    "__version__",
    "new_job_id",
]
