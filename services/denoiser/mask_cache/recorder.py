"""An activation cache on its way into the host's store, while the row that it is recorded of
runs."""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Final

import torch

from services.denoiser.mask_cache.store import ActivationStore, Recording

log = logging.getLogger(__name__)

MAX_PENDING: Final = 8
"""Steps of one row that may wait to be written; what is slower than the network is not worth it."""


class Recorder:
    """Of one row: `put` and `close` never block, everything else is done by `writer`, which has one
    thread, so in order. The cache is there when all its steps are written; the first of several
    recorders of a key has it, the others are `over`."""

    def __init__(
        self,
        store: ActivationStore,
        key: str,
        nbytes: int,
        steps: int,
        writer: Executor,
        replaced: bool = False,
    ) -> None:
        """`nbytes`: of all `steps` together. `replaced`: in the place of the one that is there."""
        self._store, self._key, self._nbytes = store, key, nbytes
        self._last, self._writer, self._replaced = steps - 1, writer, replaced
        self._pending = threading.Semaphore(MAX_PENDING)
        self._recording: Recording | None = None
        self._complete = False
        self.over = False
        """Nothing more is written."""

    def __repr__(self) -> str:
        return f"<Recorder {self._key[:12]}{' over' if self.over else ''}>"

    def put(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """What is kept of `step`; each once, in their order."""
        if self.over:
            return
        if not self._pending.acquire(blocking=False):
            log.warning(
                "activation cache %s is not recorded: writing it takes too long", self._key[:12]
            )
            self.close()
            return
        self._complete = step == self._last
        self._writer.submit(self._write, step, tensors)

    def close(self) -> None:
        """Drop what is not complete."""
        if not self._complete:
            self.over = True
            self._writer.submit(self._drop)

    def _write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        try:
            if not self.over:
                self._written(step, tensors)
        except Exception as error:  # whatever it is, the image does not need it
            log.warning("activation cache %s is not recorded: %s", self._key[:12], error)
            self.over = True
            self._drop()
        finally:
            self._pending.release()

    def _written(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        if self._recording is None:
            self._recording = self._store.record(self._key, self._nbytes, self._replaced)
        if self._recording is None:  # somebody else records it, or it is too large
            self.over = True
            return
        self._recording.write(step, tensors)
        if step == self._last:
            self._recording.finish()
            self.over = True

    def _drop(self) -> None:
        if self._recording is not None:
            self._recording.drop()
