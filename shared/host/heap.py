"""What malloc does with freed memory, in processes without torch (see `torch_setup.py`)."""

import ctypes
import sys
from typing import Final

LARGEST_IN_HEAP: Final = 1 << 20
"""Above this, a piece of memory is mapped for itself, and given back when it is freed."""
_MMAP_THRESHOLD: Final = -3
"""mallopt(3)"""


def give_back_large_pieces() -> None:
    """Otherwise glibc keeps up to 64 MB in every thread's heap once images were decoded there.
    Another malloc decides for itself."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_IN_HEAP)
