"""What glibc's malloc does with freed memory (see `torch_setup.py` for processes with torch)."""

import ctypes
import sys
from typing import Final

LARGEST_IN_HEAP: Final = 1 << 20
"""Above this, a piece of memory is mapped for itself, and given back when it is freed."""
_MMAP_THRESHOLD: Final = -3
"""mallopt(3)"""


def give_back_large_pieces() -> None:
    """For processes without torch: otherwise glibc keeps up to 64 MB in every thread's heap once
    images were decoded there. Another malloc decides for itself."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_IN_HEAP)


def hand_back() -> None:
    """What was freed, and kept by glibc's allocator for the next step, goes back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
