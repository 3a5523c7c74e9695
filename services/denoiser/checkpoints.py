"""A row's checkpoints on their way into the arena and the record."""

import asyncio
import contextlib
import logging

import torch

from shared.jobs.record import Checkpoint
from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import put_tensor
from shared.tensors.transport import Transport
from shared.worker import Task

log = logging.getLogger(__name__)


class CheckpointKeeper:
    """Writes a row's checkpoints into the arena and its record, one at a time, newest first."""

    def __init__(self, task: Task, transport: Transport, lifetime: float) -> None:
        self._task = task
        self._transport = transport
        self._lifetime = lifetime
        self._next: tuple[int, dict[str, torch.Tensor]] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written: list[TensorHandle] = []
        self.unwanted = False
        """The record would not take a checkpoint: the job ended, or somebody else has the row."""

    def keep(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        self._next = (step, tensors)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """A checkpoint that cannot be written costs repeated steps after a crash, and no more."""
        while self._next is not None:
            (step, tensors), self._next = self._next, None
            written: list[TensorHandle] = []
            try:
                handles = {}
                for name, tensor in tensors.items():
                    handles[name] = put_tensor(
                        self._transport,
                        tensor,
                        job_id=self._task.job_id,
                        attempt=self._task.state.attempt,
                        lifetime=self._lifetime,
                    )
                    written.append(handles[name])
                kept = await self._task.checkpoint(Checkpoint(step=step, tensors=handles))
                self.unwanted = self.unwanted or not kept
            except Exception as error:
                log.warning("the checkpoint at step %d was not written: %s", step, error)
                kept = False
            superseded = self._written if kept else written
            self._written = written if kept else self._written
            for handle in superseded:
                self._transport.free(handle)

    async def settle(self) -> None:
        """Wait for the running write, so that it cannot race with the node's end."""
        self._next = None
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
