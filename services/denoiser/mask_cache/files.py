"""One activation cache as files: a directory with a safetensors file for each step.

An activation cache is there when its directory has its name: it is recorded under another one, and
renamed. Who has mapped a file keeps it, whatever becomes of its name.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from services.denoiser.mask_cache.key import metadata

PART: Final = ".part"
GONE: Final = ".gone"
_LOCK: Final = "lock"


class CacheUnreadable(Exception):
    """A file is cut short, not what its name says, or gone."""


class ActivationCache:
    """All steps of an activation cache, mapped. Tensors are views of the files: nobody may write to
    them."""

    def __init__(self, path: Path, key: str, steps: range, spilled: bool = False) -> None:
        """Raises `CacheUnreadable` unless every file is whole and says that it is this one's.
        `spilled`: it lies on disk."""
        self.key, self.steps, self.spilled = key, steps, spilled
        self._files = {step: _mapped(path, key, step) for step in steps}

    def __repr__(self) -> str:
        return (
            f"<ActivationCache {self.key[:12]}, steps {self.steps.start} to {self.steps.stop - 1}>"
        )

    @cached_property
    def step_bytes(self) -> int:
        """Of the tensors of its last step."""
        return sum(tensor.nbytes for tensor in self.at(self.steps.stop - 1).values())

    def at(self, step: int) -> Mapping[str, torch.Tensor]:
        """By name, the tensors of `step`."""
        file = self._files[step]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


class Part:
    """An activation cache's directory while it is recorded. It is ours as long as we hold its
    lock."""

    def __init__(self, path: Path, fd: int, key: str) -> None:
        """Only for `claim`."""
        self.path, self._fd, self.key = path, fd, key

    @classmethod
    def claim(cls, directory: Path, key: str, nbytes: int) -> Self | None:
        """To record `key`, of `nbytes` in all; None if somebody else does."""
        path = directory / f"{key}{PART}"
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # renamed or removed since
            return None
        if not _locked(fd) or not _is(fd, path / _LOCK):
            os.close(fd)
            return None
        os.pwrite(fd, str(nbytes).encode(), 0)
        return cls(path, fd, key)

    def write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raises `OSError` where there is no room for it."""
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(flat, self.path / _name(step), metadata=dict(metadata(self.key, step)))
        except SafetensorError as error:
            raise OSError(
                f"step {step} of an activation cache cannot be written: {error}"
            ) from error

    def publish(self) -> None:
        """Under its own name, in the place of what had it. For a moment nobody has it."""
        (self.path / _LOCK).unlink()
        touch(self.path)
        named, gone = self.path.with_suffix(""), self.path.with_suffix(GONE)
        with suppress(FileNotFoundError):
            named.rename(gone)
        self.path.rename(named)
        shutil.rmtree(gone, ignore_errors=True)
        os.close(self._fd)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def touch(path: Path) -> None:
    """It was used now, by a clock that is finer than the file system's own."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def number(path: Path) -> int | None:
    """By which what has this name now is told from what had it before; None: nothing has it."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def remove_abandoned(directory: Path) -> None:
    """Parts whose recorder is gone, and what such a one was about to replace. Under the store's
    lock."""
    for path in directory.glob(f"*{GONE}"):
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(f"*{PART}"):
        try:
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # just made, or just renamed
            continue
        try:
            if _locked(fd) and _is(fd, path / _LOCK):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)


def sizes(directory: Path) -> Iterator[tuple[Path, int, int]]:
    """Of each cache and part: its path, its bytes (what is reserved for it, if that is more),
    and when it was used last (ns)."""
    for path in directory.iterdir():
        try:
            nbytes = sum(entry.stat().st_size for entry in os.scandir(path))
            if path.suffix == PART:
                nbytes = max(nbytes, int((path / _LOCK).read_text() or 0))
            yield path, nbytes, path.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went, or is none


def _name(step: int) -> str:
    return f"{step}.safetensors"


def _mapped(path: Path, key: str, step: int) -> Any:
    try:
        file: Any = safe_open(path / _name(step), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CacheUnreadable(f"step {step}: {error}") from error
    if file.metadata() != metadata(key, step):
        raise CacheUnreadable(f"step {step} says that it is {file.metadata()}")
    return file


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(fd: int, path: Path) -> bool:
    """Whether the file that we have opened still has this name."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
