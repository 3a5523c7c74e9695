"""A row's checkpoints on their way into the arena and the record."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from shared.errors import NoLongerWanted
from shared.jobs.record import Checkpoint
from shared.worker.task import Task, Tensors, retry_until_written

log = logging.getLogger(__name__)


class Said(NamedTuple):
    """What a result has to say of a row's steps; see `Task`."""

    approximations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class CheckpointKeeper:
    """Writes a row's checkpoints into the arena and its record, one at a time, newest first."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next: tuple[int, dict[str, torch.Tensor], Said] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written: Tensors = {}
        self.said: Callable[[int], Said] = lambda step: Said()
        """What there is to say after so many steps: whoever goes on from there has to repeat it."""
        self.unwanted = False
        """The record would not take a checkpoint: the job ended, or somebody else has the row."""

    def keep(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Write this checkpoint soon, unless a later one comes first."""
        self._next = (step, tensors, self.said(step))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_pending())

    async def write(self, step: int, tensors: dict[str, torch.Tensor], alone: bool) -> None:
        """Return when this checkpoint is in the record, however long the bus is away. Raises
        `ArenaFull`, and `NoLongerWanted` if the record does not take it from us."""
        write = partial(self._write, step, tensors, self.said(step), alone)
        if not await retry_until_written(write, self._task.progressed):
            raise NoLongerWanted(self._task.job_id, self._task.node.name)

    async def flush(self) -> None:
        """Return when the newest checkpoint is written, or could not be."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def settle(self) -> None:
        """Wait for the running write, so that it cannot race with the node's end; what was still
        to be written is dropped."""
        self._next = None
        await self.flush()

    async def _write_pending(self) -> None:
        """A checkpoint that cannot be written costs repeated steps after a crash, and no more."""
        while self._next is not None:
            (step, tensors, said), self._next = self._next, None
            try:
                await self._write(step, tensors, said)
            except Exception as error:
                log.warning("the checkpoint at step %d was not written: %s", step, error)

    async def _write(
        self,
        step: int,
        tensors: dict[str, torch.Tensor],
        said: Said,
        alone: bool = False,
    ) -> bool:
        """The slots of the checkpoint before it are freed, or its own if it is not taken."""
        written = self._task.put_all(tensors)
        kept = False
        try:
            checkpoint = Checkpoint(step=step, tensors=written, **said._asdict())
            kept = await self._task.checkpoint(checkpoint, alone)
            self.unwanted = self.unwanted or not kept
            return kept
        finally:
            superseded = self._written if kept else written
            self._written = written if kept else self._written
            self._task.discard(superseded)
