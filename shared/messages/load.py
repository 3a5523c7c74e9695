"""What processes say of their load, and planners of what they have promised, on core subjects:
several times a second, and lossy. Times are Unix seconds, durations seconds.
"""

from typing import Protocol

import msgspec


class Work(Protocol):
    """See `shared/policy/step_work.py`."""

    @property
    def tokens(self) -> int: ...
    @property
    def pairs(self) -> int: ...
    @property
    def loaded(self) -> int: ...
    @property
    def masked(self) -> int: ...


class CostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a step takes, in seconds, at the pace that promises count on:
    `fixed + per_token·T + per_pair·P + per_byte·B + per_masked·M` (see
    `shared/policy/cost_model.py`)."""

    fixed: float
    per_token: float = 0.0
    per_pair: float = 0.0
    per_byte: float = 0.0
    per_masked: float = 0.0
    known: bool = True
    """Whether it rests on measurements."""
    doubt: float = 0.0
    """Relative error."""

    def seconds(self, work: Work) -> float:
        """Of a step of so much work."""
        return (
            self.fixed
            + self.per_token * work.tokens
            + self.per_pair * work.pairs
            + self.per_byte * work.loaded
            + self.per_masked * work.masked
        )


class WorkReport(msgspec.Struct, frozen=True, array_like=True):
    """See `shared/policy/step_work.py`."""

    tokens: int
    pairs: int
    loaded: int = 0
    masked: int = 0


class RowReport(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    steps_left: int
    work: WorkReport
    """Of each step."""
    height: int
    """Latent positions."""
    width: int
    due: float | None = None
    """When its denoising has to be over."""


class ComponentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One component that a process holds."""

    kind: str
    model: str
    cost: CostReport
    """Of a step of rows that share steps; else of one node."""
    seconds: float = 0.0
    """Until what is in hand is finished."""
    count: int = 0
    """Rows or nodes in hand,"""
    max_rows: int = 1
    """and how many share a step at most."""
    max_step_seconds: float | None = None
    step_seconds: float | None = None
    """How long its last steps took, at most; None: there were none."""
    rows: tuple[RowReport, ...] = ()


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """From a process, on `dr.v1.load.<process>`."""

    process: str
    at: float
    components: tuple[ComponentReport, ...]
    leaving: bool = False
    """It takes no more work."""


class PromisedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a planner holds, or has just released; as far as it matters to other planners."""

    job_id: str
    model: str
    steps: int
    work: WorkReport
    height: int
    width: int
    rows: int
    due: float | None


class AskedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs have asked of one component since a planner started, also those that were
    refused."""

    kind: str
    model: str
    jobs: int
    steps: int
    """Of all their rows; nodes, where nothing has steps."""
    work: WorkReport
    """Of a step of the last one."""
    waiting: int = 0
    """Steps of jobs that wait at the planner now."""
    left: float | None = None
    """Seconds that the last job with a deadline had until it."""


class PromiseReport(msgspec.Struct, frozen=True, kw_only=True, tag="promises"):
    """From a planner, on `dr.v1.load.<process>`."""

    process: str
    at: float
    jobs: tuple[PromisedJob, ...]
    asked: tuple[AskedReport, ...] = ()
