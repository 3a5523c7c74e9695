"""A row as the step loop holds it, and what it has to say after a step."""

import time
from dataclasses import dataclass, field

from services.denoiser.engine.events import (
    Checkpointed,
    Event,
    Failed,
    Finished,
    Progressed,
    StepReport,
    Yielded,
)
from services.denoiser.forward.step import Stepped
from services.denoiser.rows.row import Row
from shared.errors import NotFinite
from shared.policy.checkpoint_interval import NEVER, Interval
from shared.policy.row_view import RowView


@dataclass(slots=True, eq=False)
class Slot:
    ticket: int
    row: Row
    interval: Interval = NEVER
    """Between its checkpoints."""
    alone: bool = False
    """It takes one step by itself, and yields."""
    passed_over: int = 0
    yielded: int = 0
    """See `RowView`."""
    parked: bool = False
    """It was in the batch, and waits again for others' sake."""
    withdrawn: bool = False
    """Nobody waits for it any more."""
    came: float = field(default_factory=time.time)
    """Unix seconds."""
    checkpointed: int = field(init=False)
    """The step from which the row would continue elsewhere."""
    uncheckpointed_seconds: float = 0.0
    """Of the steps since then."""

    def __post_init__(self) -> None:
        self.checkpointed = self.row.step

    @property
    def is_kept_waiting(self) -> bool:
        """It has to be finished by some time, and a step was taken without it."""
        return self.passed_over > 0 and self.due is not None

    @property
    def due(self) -> float | None:
        """Unix seconds by which it has to be finished, or was promised to be."""
        return self.row.wanted_by if self.row.deadline is None else self.row.deadline

    def view(self, now: float, grace: float) -> RowView:
        """At `now` (Unix seconds); `grace` as in `Limits.deadline_grace`."""
        row = self.row
        due = self.due
        return RowView(
            self.ticket,
            row.shape_key,
            row.forwards,
            row.service_class,
            self.passed_over,
            self.alone,
            row.table.steps - row.step,
            None if due is None else due - now - grace,
            grace,
            row.blocked,
            row.asks,
            now - self.came,
            row.work,
            row.job_id,
            row.deadline is None,
            self.yielded,
        )

    def take(self, stepped: Stepped, i: int, seconds: float) -> list[Event]:
        """Give the row its share `i` of a step, and say what came of it."""
        row = self.row
        row.step += 1
        self.uncheckpointed_seconds += seconds
        row.latents, row.x0_prev = stepped.x[i : i + 1], stepped.x0[i : i + 1]
        if not stepped.finite[i]:
            message = f"the latents of {row.job_id}/{row.node} are not finite after step {row.step}"
            return [Failed(self.ticket, NotFinite(message, step=row.step))]
        for extension in row.extensions:
            extension.stepped(row.step - 1)
        preview = row.predicted.cpu() if row.step in row.previews else None
        report = StepReport(row.step, row.table.steps, len(stepped.finite), seconds, preview)
        events: list[Event] = [Progressed(self.ticket, report)]
        if row.finished:
            events.append(Finished(self.ticket, row.latents.cpu()))
        elif self.alone:
            events.append(Yielded(self.ticket, row.latents.cpu()))
        elif self.interval.over(row.step - self.checkpointed, self.uncheckpointed_seconds):
            events.append(self.checkpoint())
        return events

    def checkpoint(self) -> Checkpointed:
        self.checkpointed, self.uncheckpointed_seconds = self.row.step, 0.0
        return Checkpointed(self.ticket, self.row.step, self.row.checkpoint())

    def last_checkpoint(self) -> list[Event]:
        """For a row that has to stop here: what is not kept of it yet."""
        wanted = self.interval.steps > 0 and self.row.step > self.checkpointed
        return [self.checkpoint()] if wanted else []
