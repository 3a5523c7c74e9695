"""Fetched files on this host's disk, for all of its processes: each is fetched once, and the least
recently used leave when they take too much room.

    <key>.safetensors   a whole file; locked (shared) while somebody reads it
    <key>.json          what was said about it; its modification time is when it was last wanted
    <key>.part          being fetched; locked by who fetches it, and void once nobody does

A file is renamed to its name when it is whole and checked: what is half-written never has it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec

from shared.policy.residency.evict import Resident, evict
from shared.security.private_files import private_directory, write_private

_WHOLE: Final = ".safetensors"
_PART: Final = ".part"
_NOTE: Final = ".json"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """`checked`: Unix seconds when the file was last known to be what its origin has; `etag`: how
    the origin calls it, empty if it does not."""

    checked: float
    etag: str


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """`files`, `bytes`: of all processes of this host, at most `bound` bytes but for what was just
    fetched; the rest: of this one. `hits`: files that were there."""

    files: int
    bytes: int
    bound: int
    hits: int
    fetches: int
    evictions: int
    failures: int


@dataclass(frozen=True, slots=True)
class Held:
    """A file that stays while it is held."""

    path: Path
    note: Note
    _file: BinaryIO = field(repr=False)

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class Part:
    """A file to be written, by nobody else. Unless it is kept it is gone at the end."""

    path: Path
    file: BinaryIO = field(repr=False)
    kept: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.kept:
            self.path.unlink(missing_ok=True)  # before the lock is let go: nobody has it yet
        self.file.close()


class Store:
    """A directory of this user's alone. `keep`, `confirm` and `statistics` block for a moment; the
    others only look things up."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Raises `Misconfigured` unless the directory is, or can be made, ours alone."""
        self._directory = private_directory(directory)
        self._max_bytes = max_bytes
        self.hits = self.fetches = self.failures = 0
        """Counted by who uses it."""
        self._evictions = 0

    def __repr__(self) -> str:
        return f"<Store {self._directory}: {self.hits} hits, {self.fetches} fetches>"

    def statistics(self) -> StoreStatistics:
        sizes = [size for _, size, _ in self._files()]
        return StoreStatistics(
            files=len(sizes),
            bytes=sum(sizes),
            bound=self._max_bytes,
            hits=self.hits,
            fetches=self.fetches,
            evictions=self._evictions,
            failures=self.failures,
        )

    def hold(self, key: str) -> Held | None:
        """The file `key`, if it is there; it counts as used."""
        path = self._path(key, _WHOLE)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        if not _locked(file, fcntl.LOCK_SH, path):
            file.close()
            return None
        note = self.note(key)
        if note is None:  # its writer ended before it could say anything
            note = Note(checked=0.0, etag="")
            self._write(key, note)
        os.utime(self._path(key, _NOTE))
        return Held(path, note, file)

    def note(self, key: str) -> Note | None:
        try:
            return msgspec.json.decode(self._path(key, _NOTE).read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None

    def claim(self, key: str) -> Part | None:
        """The place to write file `key` to; None while somebody else has it."""
        path = self._path(key, _PART)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = open(fd, "r+b", buffering=0)  # noqa: SIM115  # the part closes it
        if not _locked(file, fcntl.LOCK_EX, path):
            file.close()
            return None
        part = Part(path, file)
        if self._arriving(key):
            with part:
                return None
        file.truncate(0)  # of one that was killed
        return part

    def keep(self, key: str, part: Part, etag: str) -> None:
        """`part` is whole: from now on it is the file `key`. Others leave if there is no room."""
        os.fsync(part.file.fileno())
        part.path.replace(self._path(key, _WHOLE))
        part.kept = True
        self._write(key, Note(checked=time.time(), etag=etag))
        self._evict(but=key)

    def confirm(self, key: str, note: Note) -> None:
        """The file `key` was found to be still what its origin has."""
        self._write(key, msgspec.structs.replace(note, checked=time.time()))

    def _arriving(self, key: str) -> bool:
        """Whether who wrote the file has given it its name, but not let go of it yet."""
        path = self._path(key, _WHOLE)
        try:
            with path.open("rb") as file:
                return not _locked(file, fcntl.LOCK_SH, path)
        except FileNotFoundError:
            return False

    def _write(self, key: str, note: Note) -> None:
        write_private(self._path(key, _NOTE), msgspec.json.encode(note))

    def _path(self, key: str, suffix: str) -> Path:
        return self._directory / f"{key}{suffix}"

    def _files(self) -> list[tuple[float, int, str]]:
        """When each was last used, its bytes, its key; what leaves meanwhile is left out."""
        found = []
        for path in self._directory.glob(f"*{_WHOLE}"):
            with contextlib.suppress(FileNotFoundError):
                file, note = path.stat(), path.with_suffix(_NOTE)
                used = note.stat().st_mtime if note.exists() else file.st_mtime
                found.append((used, file.st_size, path.stem))
        return found

    def _evict(self, but: str) -> None:
        files, stay = {key: (size, used) for used, size, key in self._files()}, {but}
        while leaves := self._leaving(files, stay):
            for key in leaves:
                if self._remove(self._path(key, _WHOLE)):
                    self._path(key, _NOTE).unlink(missing_ok=True)
                    self._evictions += 1
                    del files[key]
                else:
                    stay.add(key)
        for path in self._directory.glob(f"*{_PART}"):  # of those that were killed
            self._remove(path)

    def _leaving(
        self, files: Mapping[str, tuple[int, float]], stay: Collection[str]
    ) -> tuple[str, ...]:
        """Of `files`, with their bytes and when they were used last: those that make room."""
        held = (Resident(key, *each, pinned=key in stay) for key, each in files.items())
        return evict(held, self._max_bytes).leaves

    def _remove(self, path: Path) -> bool:
        """Whether the file is gone: nobody had it in use."""
        try:
            with path.open("rb") as file:
                if not _locked(file, fcntl.LOCK_EX, path):
                    return False
                path.unlink()
        except FileNotFoundError:
            return False
        return True


def _locked(file: BinaryIO, how: int, path: Path) -> bool:
    """Whether the lock on `file` is ours now, and `path` still its name."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
