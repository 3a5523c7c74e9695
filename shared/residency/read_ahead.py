"""Files brought to memory before a library maps them."""

import os
from collections.abc import Sequence
from pathlib import Path

from shared.residency.item import PIECE_BYTES, Pieces


def read_ahead(files: Sequence[Path]) -> Pieces[int]:
    """Have the kernel hold the pages of `files`, and return how many bytes these are. Who maps one
    of them then has its pages without the disk, as long as there is memory for them. Raises
    `OSError`."""
    piece, moved = bytearray(PIECE_BYTES), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while count := file.readinto(piece):
                moved += count
                yield count
    return moved
