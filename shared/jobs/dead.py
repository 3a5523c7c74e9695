"""What is kept of a job that was given up: enough to find out why, and to try it again."""

import msgspec

from shared.jobs.record import JobRecord
from shared.messages import Failure


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """On `dr.v1.dead.<job_id>`. The causes of earlier attempts are in the record's nodes."""

    job_id: str
    buried_at: float
    failure: Failure
    record: JobRecord | None = None
    """None if the job was given up before it had one;"""
    submission: bytes = b""
    """then this is the message that no planner survived."""
