"""What rows bring with them behind handles: read once a job, not once a step."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import torch

from shared.messages import ControlledRow
from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of tensors that are kept; what was not used for longest leaves."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadRow:
    """A row of a step with its tensors. For its one or two images: embeds (tokens, width), pooled
    (projection,); hint (C, H, W)."""

    row: ControlledRow
    embeds: tuple[torch.Tensor, ...]
    pooled: tuple[torch.Tensor, ...]
    hint: torch.Tensor


class TensorCache:
    """In one event loop; tensors that are not there are read in threads."""

    def __init__(self, transport: Transport, max_bytes: int = MAX_BYTES) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._held: OrderedDict[TensorHandle, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<TensorCache {len(self._held)} tensors, {self._bytes}/{self._max_bytes} bytes>"

    async def of_row(self, row: ControlledRow) -> ReadRow:
        """Raises `HandleLost` if one of its tensors is."""
        return ReadRow(
            row,
            embeds=tuple([await self._get(text.embeds) for text in row.texts]),
            pooled=tuple([await self._get(text.pooled) for text in row.texts]),
            hint=await self._get(row.hint),
        )

    async def _get(self, handle: TensorHandle) -> torch.Tensor:
        held = self._held.get(handle)
        if held is not None:
            self._held.move_to_end(handle)
            return held
        tensor = await asyncio.to_thread(get_tensor, self._transport, handle)
        if handle not in self._held:
            self._held[handle] = tensor
            self._bytes += handle.nbytes
        while self._bytes > self._max_bytes and len(self._held) > 1:
            oldest, _ = self._held.popitem(last=False)
            self._bytes -= oldest.nbytes
        return tensor
