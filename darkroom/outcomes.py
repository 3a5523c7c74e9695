"""How a job can end, as `Job.outcome()` returns it and `Job.events()` yields it last.

match await job.outcome():
    case JobDone(approximations=approximations): ...
    case JobFailed(failure=failure): ...
    case JobCancelled(): ...

`Job.images()` raises the errors `darkroom.JobFailed` and `darkroom.JobCancelled` instead; those
have the same names, and are other classes.
"""

from shared.messages import Failure, JobCancelled, JobDone, JobFailed, Outcome, StageTime

__all__ = ["Failure", "JobCancelled", "JobDone", "JobFailed", "Outcome", "StageTime"]
