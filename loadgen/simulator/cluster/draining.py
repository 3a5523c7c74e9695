"""A denoiser that leaves: it takes nothing more, and finishes what it has begun."""

from collections.abc import Callable

from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.rows import Row, Run
from loadgen.simulator.cluster.stepper import Stepper


class DrainingStepper(Stepper):
    """A `Stepper` that may leave."""

    _drained: Callable[[], None] | None = None

    def room(self) -> int:
        return 0 if self._drained else super().room()

    def drain(self, drained: Callable[[], None]) -> None:
        """Take nothing more, give back what was not begun, and call `drained` once the rest is
        finished."""
        self._drained = drained
        self._queue.leave(self)
        for row in [row for row in self._waiting.values() if not _has_begun(row)]:
            del self._waiting[row.number]
            row.job.holders.remove(self)
            self._queue.push(row.node)
        self._rest()

    def withdraw(self, job: Job) -> None:
        super().withdraw(job)
        self._rest()

    def _stepped(self, run: Run) -> None:
        super()._stepped(run)
        self._rest()

    def _rest(self) -> None:
        """Say so if all is finished that was to be finished."""
        if self._drained is not None and self._run is None and not self:
            drained, self._drained = self._drained, _nothing
            drained()


def _has_begun(row: Row) -> bool:
    return row.steps_left < row.job.wanted.steps


def _nothing() -> None:
    """It has been said."""
