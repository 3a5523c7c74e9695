"""Tensors brought to where a network reads them: from files to memory, or to a device.

On an accelerator they are copied on a stream of its own, by way of pinned memory. Whoever computes
with one has its own stream wait for the copy's event; no thread waits for the device, but for the
loader's, so that no more than `IN_FLIGHT` pieces are out of its hands.
"""

from collections import deque
from typing import Any, Final, NamedTuple

import torch

from shared.residency.item import PIECE_BYTES, Item, Pieces
from shared.residency.loader import Load, Loader
from shared.residency.rates import Rate

IN_FLIGHT: Final = 2
"""Pieces that are being copied to a device: one is filled while the other one is on its way."""


class Moved(NamedTuple):
    """`ready`: when the copy is done on the stream of the copies; None: it is."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None


class Transfer:
    """The way to `device` of what lies in files or in memory. `rate`: how fast that was."""

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self._loader, self._device = loader, device
        cuda: Any = torch.cuda
        self._stream = cuda.Stream(device) if device.type == "cuda" else None
        self._in_flight: deque[torch.cuda.Event] = deque()
        self.rate = Rate()

    def needed(self, on_disk: bool) -> bool:
        """Whether what lies in memory, or `on_disk`, is not where the network reads it."""
        return self._device.type != "cpu" or on_disk

    def begin(
        self, tensor: torch.Tensor, within: float = 0.0, likelihood: float = 1.0
    ) -> Load[Moved]:
        """`tensor` on the device; it may be mapped from a file. See `Loader.bring`."""
        item = Item("tensor", tensor.nbytes, lambda: self._moving(tensor))
        return self._loader.bring(item, within, likelihood, self.rate)

    def result(self, load: Load[Moved]) -> torch.Tensor:
        """For the stream that computes. Waits until the copy has been begun, and raises whatever it
        raised."""
        tensor, ready = load.future.result()
        if ready is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(ready)
            tensor.record_stream(computing)
        return tensor

    def _moving(self, tensor: torch.Tensor) -> Pieces[Moved]:
        source = tensor.contiguous().flatten()
        with torch.cuda.stream(self._stream):
            moved = torch.empty_like(source, device=self._device)
        step, ready = max(1, PIECE_BYTES // tensor.element_size()), None
        for start in range(0, len(source), step):
            piece = source[start : start + step]
            ready = self._copied(piece, moved[start : start + step])
            yield piece.nbytes
        return Moved(moved.view(tensor.shape), ready)

    def _copied(self, piece: torch.Tensor, to: torch.Tensor) -> torch.cuda.Event | None:
        if self._stream is None:
            to.copy_(piece)
            return None
        if len(self._in_flight) >= IN_FLIGHT:
            self._in_flight.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            to.copy_(piece.pin_memory(), non_blocking=True)
            event: torch.cuda.Event = self._stream.record_event()
        self._in_flight.append(event)
        return event
