"""How often planners decide, and how often processes report to them. Pure."""

from collections.abc import Sequence
from typing import Final, Protocol

from shared.policy.release.jobs import WaitingJob

TICK_SECONDS: Final = 0.1
"""Longest pause between two decisions of a planner while anybody waits,"""
GAP_SECONDS: Final = 0.005
"""and shortest."""
DECIDING: Final = 3.0
"""Times as long as a decision takes nothing is decided after it: there is other work to do."""
COMING_SECONDS: Final = 5.0
"""After which a released job is taken to have rows, or to have ended, if no process told of them;
one that was promised a time, so long after that time at most:"""
LATE_SECONDS: Final = 0.1

LOOK_SECONDS: Final = 0.03
"""Between two looks of a process at how it stands: until a planner hears that a row came, or left,
it takes it to be on its way, or still there. A row that comes and leaves between two looks is not
seen."""
QUIET_SECONDS: Final = 0.5
"""Between two reports of a process whose load does not change."""
CHANGED: Final = 0.2
"""Share by which seconds in hand differ that is worth a report."""


class OfJob(Protocol):
    @property
    def job_id(self) -> str: ...


class Standing(Protocol):
    """What a component has in hand."""

    @property
    def count(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def rows(self) -> Sequence[OfJob]: ...


def pause(decided_seconds: float) -> float:
    """Seconds after a decision that took so long until the next one."""
    return max(GAP_SECONDS, DECIDING * decided_seconds)


def settled_at(job: WaitingJob, released: float) -> float:
    """When a job that was released then surely has rows, or has ended."""
    due = released + COMING_SECONDS
    return due if job.promised is None else min(due, job.promised + LATE_SECONDS)


def differs(told: Sequence[Standing], now: Sequence[Standing]) -> bool:
    """Whether planners should know at once how a process's components stand."""
    if len(told) != len(now):
        return True
    return any(
        old.count != new.count
        or abs(old.seconds - new.seconds) > telling_change(old)
        or _jobs(old) != _jobs(new)
        for old, new in zip(told, now, strict=True)
    )


def telling_change(told: Standing) -> float:
    """Seconds by which what is in hand has to change to be told."""
    return CHANGED * (told.seconds + 0.1)


def _jobs(one: Standing) -> list[str]:
    """Whose rows it has: where one comes whenever one leaves, the rest stays the same."""
    return [row.job_id for row in one.rows]
