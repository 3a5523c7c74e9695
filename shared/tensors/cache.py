"""Tensors that are needed again and again: read once, and kept while there is room."""

import asyncio
from collections import OrderedDict
from typing import Final

import torch

from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of tensors that are kept; what was not used for longest leaves."""


class TensorCache:
    """In one event loop; tensors that are not there are read in threads. Nobody may write into what
    it gives."""

    def __init__(self, transport: Transport, max_bytes: int = MAX_BYTES) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._held: OrderedDict[TensorHandle, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<TensorCache {len(self._held)} tensors, {self._bytes}/{self._max_bytes} bytes>"

    async def get(self, handle: TensorHandle) -> torch.Tensor:
        """Raises `HandleLost`."""
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
