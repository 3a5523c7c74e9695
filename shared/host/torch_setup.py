"""How torch is set up in every process that computes."""

import ctypes
import sys
from typing import Final

import torch

from shared.errors import Misconfigured

KEPT_BYTES: Final = 512 << 20
"""What the allocator may keep of freed memory, rather than hand it back and be given it again, page
by page, in the next step."""
LARGEST_IN_HEAP: Final = 32 << 20
"""Above this, a piece of memory is mapped for itself; glibc allows no more."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""mallopt(3)"""


def prepare_torch(threads: int, device: str = "cpu") -> None:
    """Use `threads` threads for one operation (0: as torch decides); no gradients, ever. To be
    called before other threads are started: they share one heap then. Raises `Misconfigured` if
    there is no `device`."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise Misconfigured(f"DARKROOM_DEVICE={device!r} cannot be used: {reason}") from error
    if threads > 0:
        torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    if sys.platform == "linux":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """With glibc's malloc; another one decides for itself."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, LARGEST_IN_HEAP)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
