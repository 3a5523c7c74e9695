"""Tensors that are needed again and again: read once, and kept while there is room."""

import asyncio
from typing import Final

import torch

from shared.host.lru import LruCache
from shared.messages.handle import TensorHandle
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of tensors that are kept; what was not used for longest leaves."""


class TensorCache:
    """In one event loop; tensors that are not there are read in threads. Nobody may write into what
    it gives."""

    def __init__(self, transport: Transport, max_bytes: int = MAX_BYTES) -> None:
        self._transport = transport
        self._held: LruCache[TensorHandle, torch.Tensor] = LruCache(max_bytes)

    def __repr__(self) -> str:
        return f"<TensorCache {self._held}>"

    async def get(self, handle: TensorHandle) -> torch.Tensor:
        """Raises `HandleLost`."""
        held = self._held.get(handle)
        if held is None:
            held = await asyncio.to_thread(get_tensor, self._transport, handle)
            self._held.put(handle, held, handle.nbytes)
        return held
