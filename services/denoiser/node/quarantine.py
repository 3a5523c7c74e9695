"""A suspect's way back into the batch: some steps alone, each on record before the next.

Whatever it did to its last process it did within a close interval of its last checkpoint, or a
later one would be on record: who had it then knew that it had been lost before. If it survives
those steps here, it was innocent.
"""

from services.denoiser.engine.engine import Engine, OnStep
from services.denoiser.node.checkpoints import CheckpointKeeper
from services.denoiser.rows.row import Row
from shared.errors import NoLongerWanted
from shared.policy.checkpoint_interval import Interval
from shared.worker.task import Task, retry_until_written


def quarantine_steps(row: Row, interval: Interval) -> int:
    """One more than the interval: the fatal step may have begun before the checkpoint just before
    it was written. Without checkpoints, all of them."""
    return interval.steps + 1 if interval.steps else row.table.steps


async def mark(task: Task) -> None:
    """Return when the record says that `task` runs alone. Raises `NoLongerWanted`."""
    if not await retry_until_written(task.alone, task.progressed):
        raise NoLongerWanted(task.job_id, task.node.name)


async def serve_alone(
    row: Row, steps: int, engine: Engine, keeper: CheckpointKeeper, on_step: OnStep
) -> None:
    """Take `steps` of `row` alone, or all it has left, and lift the mark. Raises as
    `Engine.step_alone` and `CheckpointKeeper.write` do."""
    for left in reversed(range(steps)):
        before = row.step, row.checkpoint()
        await engine.step_alone(row, on_step)
        if row.finished:  # there is no later checkpoint: the last one is published again, unmarked
            await keeper.write(*before, alone=False)
            return
        await keeper.write(row.step, row.checkpoint(), alone=left > 0)
