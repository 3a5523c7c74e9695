"""Which jobs may wait until their model is loaded. Pure."""

from shared.policy.release.jobs import Refusal, WaitingJob
from shared.policy.release.rules import Bounds


def refuse_cold(
    job: WaitingJob, ahead: int, loading: float | None, bounds: Bounds, now: float
) -> Refusal | None:
    """None: `job` waits, behind `ahead` others that wait for models too. `loading`: seconds until
    its own is loaded; None: nobody knows."""
    if ahead >= bounds.jobs and not job.admitted:
        return Refusal(job.job_id, "backlog_full", bound=("jobs", bounds.jobs))
    if loading is None or job.deadline is None or now + loading <= job.deadline:
        return None
    return Refusal(job.job_id, "deadline_unreachable", loading, loading)
