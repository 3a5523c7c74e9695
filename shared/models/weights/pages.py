"""Which tensors lie on pages of files, and how changed pages become the file's again.

A file that is mapped privately (`MAP_PRIVATE`) lies on the pages of the page cache, once for all
processes of a host. A page that is written to becomes a copy for whoever writes, and nobody else
sees that; `MADV_DONTNEED` drops the copy, and the file's bytes are there again (mmap(2),
madvise(2)). The kernel is asked what is mapped, so it is all one which library mapped it. Linux;
elsewhere no tensor is known to lie on a file.
"""

import ctypes
import os
import sys
from bisect import bisect_right
from collections.abc import Iterable
from mmap import PAGESIZE
from pathlib import Path
from typing import Final, NamedTuple, Self

import torch

_MAPS: Final = Path("/proc/self/maps")
_DONTNEED: Final = 4
"""MADV_DONTNEED, which the module `mmap` does not have on every system."""


class Span(NamedTuple):
    """Addresses, the last one not included."""

    start: int
    stop: int


class FilePages:
    """The private, writable mappings of files in this process, as they are when it is asked."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = sorted(spans)

    @classmethod
    def mapped(cls) -> Self:
        """As they are now."""
        return cls(spans_of(_MAPS.read_text()) if sys.platform == "linux" else ())

    def __repr__(self) -> str:
        return f"<FilePages {len(self._spans)} mappings>"

    def hold(self, tensor: torch.Tensor) -> bool:
        """Whether all of `tensor` lies on them."""
        if tensor.device.type != "cpu" or tensor.numel() == 0:
            return False
        start, stop = span_of(tensor)
        place = bisect_right(self._spans, start, key=lambda span: span.start)
        return place > 0 and stop <= self._spans[place - 1].stop

    def private_bytes(self, tensors: Iterable[torch.Tensor]) -> int:
        """Of those that do not lie on them."""
        return sum(tensor.nbytes for tensor in tensors if not self.hold(tensor))


def spans_of(maps: str) -> list[Span]:
    """Of the private, writable mappings of files in the text of /proc/PID/maps (proc(5))."""
    found = []
    for line in maps.splitlines():
        addresses, rights, _, _, inode, *_ = line.split(maxsplit=5)
        if rights[1] == "w" and rights[3] == "p" and inode != "0":
            start, _, stop = addresses.partition("-")
            found.append(Span(int(start, 16), int(stop, 16)))
    return found


def span_of(tensor: torch.Tensor) -> Span:
    """The addresses of the numbers of `tensor`, which has some."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    reach = 1 + sum((size - 1) * stride for size, stride in sizes)
    start = tensor.data_ptr()
    return Span(start, start + reach * tensor.element_size())


def give_back(tensors: Iterable[torch.Tensor]) -> None:
    """Have these tensors, which lie on pages of files, be what the files say, bit for bit, on pages
    that are shared again. So is what else lies on their first and last pages. Raises `OSError`."""
    for tensor in tensors:
        start, stop = span_of(tensor)
        start -= start % PAGESIZE
        _dont_need(start, stop - start)


def _dont_need(start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.madvise(start, length, _DONTNEED):
        number = ctypes.get_errno()
        raise OSError(number, f"madvise: {os.strerror(number)}")
