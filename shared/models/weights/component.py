"""The files that a component is loaded from, and what they are like: no torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from shared.errors import Misconfigured
from shared.models.files.directory import local_directory
from shared.models.files.safetensors_header import (
    FLOATING,
    OF_TORCH,
    Header,
    NotSafetensors,
    read_header,
)
from shared.models.files.weights import chosen
from shared.models.weights.layout import Layout

CONFIG: Final = "config.json"
MOST_PRIVATE: Final = 1 / 16
"""Share of a component's bytes that a process may have for itself, rather than have all of it
written to another file."""


class FileState(msgspec.Struct, frozen=True, order=True):
    """What tells that a file's content is another one: nobody can write to a file and leave all of
    these as they were (`changed`, the time of its inode's last change, is the kernel's)."""

    name: str
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Self:
        found = path.stat()
        return cls(path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Component:
    """`directory` has its config; `files`: those of its weights that are loaded."""

    directory: Path
    files: tuple[Path, ...]

    @classmethod
    def of(cls, source: str, folder: str) -> Self | None:
        """Component `folder` of the model `source`, a directory or a hub id; None if its files are
        not on this host."""
        try:
            directory = (local_directory(source) / folder).resolve()
        except Misconfigured:
            return None
        files = tuple(chosen(directory))
        return cls(directory, files) if files and (directory / CONFIG).is_file() else None

    def state(self) -> tuple[FileState, ...]:
        return tuple(sorted(map(FileState.of, (self.directory / CONFIG, *self.files))))

    def headers(self) -> list[Header] | None:
        """None if one of its files is none of safetensors."""
        try:
            return [read_header(file) for file in self.files]
        except (NotSafetensors, OSError):
            return None


def stands_as_is(headers: list[Header], dtype: str, layout: Layout | None) -> bool:
    """Whether the files with these `headers` can be mapped by processes that have their weights in
    `dtype`, laid out like this: all but `MOST_PRIVATE` of them lies in the files that way."""
    changed = total = 0
    for header in headers:
        for key, kind in header.kinds.items():
            size = header.nbytes(key)
            total += size
            moved = layout is not None and layout.changes(header.shapes[key])
            if kind in FLOATING and (kind != OF_TORCH[dtype] or moved):
                changed += size
    return changed <= MOST_PRIVATE * total
