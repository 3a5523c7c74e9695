"""The activation caches of a host: in memory as long as there is room, then on disk, then gone.

Any number of processes use one store: what is there is what lies in its directories. Memory is a
tmpfs, so an activation cache that one denoiser recorded costs the others nothing but page tables,
and on a CPU nothing has to be loaded. Activation caches that were not used for longest are moved to
disk, and mapped from there: the kernel's page cache brings them back.
"""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from services.denoiser.mask_cache import files
from services.denoiser.mask_cache.files import ActivationCache, CacheUnreadable, Part
from shared.policy.residency.evict import Resident, evict
from shared.security.private_files import private_directory
from shared.telemetry.caches import CacheReading

log = logging.getLogger(__name__)

MAX_LOOKS: Final = 3
"""At an activation cache that is replaced while it is opened."""
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Activation caches and bytes are the host's, counts are this process's. `refused`: recordings
    for which there was no room; `distrusted`: files that were cut short or another's."""

    templates: int
    bytes: int
    bound: int
    spilled: int
    spilled_bytes: int
    spilled_bound: int
    hits: int
    misses: int
    recorded: int
    refused: int
    spills: int
    evictions: int
    distrusted: int


class ActivationStore:
    """Blocks: for threads that may. Thread-safe."""

    def __init__(self, memory: Path, disk: Path, max_bytes: int, max_spilled_bytes: int) -> None:
        """`memory`: a directory on a tmpfs, `disk`: one elsewhere; both are made, and have to be
        ours alone (`Misconfigured`). A bound of 0: nothing is kept there."""
        self._memory = private_directory(memory)
        self._disk = private_directory(disk)
        self._max_bytes, self._max_spilled_bytes = max_bytes, max_spilled_bytes
        self._counting = threading.Lock()
        self._counts = dict.fromkeys(
            ("hits", "misses", "recorded", "refused", "spills", "evictions", "distrusted"), 0
        )

    def __repr__(self) -> str:
        s = self.statistics()
        return (
            f"<ActivationStore {s.templates} templates, {s.bytes}/{s.bound} bytes; "
            f"{s.spilled} on disk, {s.spilled_bytes}/{s.spilled_bound} bytes>"
        )

    def find(self, key: str, steps: range) -> ActivationCache | None:
        """Activation cache `key`, mapped; None if it is not there. A file that cannot be trusted is
        removed with all of its cache."""
        for directory in (self._memory, self._disk):
            if (found := self._mapped(directory / key, key, steps)) is not None:
                self._count("hits")
                return found
        self._count("misses")
        return None

    def _mapped(self, path: Path, key: str, steps: range) -> ActivationCache | None:
        """What has this name, all of one recording: it may be replaced at any moment."""
        for _ in range(MAX_LOOKS):
            try:
                files.touch(path)
                number, error = files.number(path), None
                found: ActivationCache | None = ActivationCache(
                    path, key, steps, path.parent == self._disk
                )
            except FileNotFoundError:
                return None
            except CacheUnreadable as unreadable:
                found, error = None, unreadable
            if files.number(path) != number:
                continue
            if error is not None:
                log.warning("activation cache %s is recorded anew: %s", key[:12], error)
                self._count("distrusted")
                shutil.rmtree(path, ignore_errors=True)
            return found
        return None

    def record(self, key: str, nbytes: int, replaced: bool = False) -> "Recording | None":
        """To record activation cache `key`, of `nbytes` in all; room is made for it now. None if it
        is there already, unless it is to be `replaced`; if somebody records it; or if it is too
        large beside what is being recorded."""
        with self._locked():
            files.remove_abandoned(self._memory)
            if not replaced and ((self._memory / key).exists() or (self._disk / key).exists()):
                return None
            part = Part.claim(self._memory, key, nbytes)
            if part is not None and not self._evict_to_bound():
                self._count("refused")
                part.remove()
                part = None
        return None if part is None else Recording(part, self)

    def statistics(self) -> StoreStatistics:
        memory = [nbytes for _, nbytes, _ in files.sizes(self._memory)]
        disk = [nbytes for _, nbytes, _ in files.sizes(self._disk)]
        with self._counting:
            counts = dict(self._counts)
        return StoreStatistics(
            templates=len(memory),
            bytes=sum(memory),
            bound=self._max_bytes,
            spilled=len(disk),
            spilled_bytes=sum(disk),
            spilled_bound=self._max_spilled_bytes,
            **counts,
        )

    def in_memory(self) -> CacheReading:
        """Hits and misses are those of both together; what leaves is spilled."""
        found = self.statistics()
        return CacheReading(found.bytes, found.bound, found.hits, found.misses, found.spills)

    def on_disk(self) -> CacheReading:
        found = self.statistics()
        return CacheReading(found.spilled_bytes, found.spilled_bound, 0, 0, found.evictions)

    def published(self, part: Part) -> None:
        """Only for `Recording`."""
        with self._locked():
            part.publish()
            shutil.rmtree(self._disk / part.key, ignore_errors=True)
        self._count("recorded")

    def _evict_to_bound(self) -> bool:
        """For all that is being recorded. False: there is none, and nothing has gone."""
        going = _oldest(self._memory, self._max_bytes)
        for path in going or ():
            self._spill(path)
        return going is not None

    def _spill(self, path: Path) -> None:
        """From memory to disk, where what was not used for longest makes room for it."""
        nbytes = sum(entry.stat().st_size for entry in os.scandir(path))
        going = _oldest(self._disk, self._max_spilled_bytes - nbytes)
        try:
            if going is not None:
                for old in going:
                    shutil.rmtree(old, ignore_errors=True)
                    self._count("evictions")
                target = self._disk / f"{path.name}{files.PART}"
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(path, target)
                target.rename(self._disk / path.name)
                self._count("spills")
            else:
                self._count("evictions")
        except OSError as error:
            log.warning(
                "activation cache %s is dropped, for it cannot be spilled: %s", path.name, error
            )
            self._count("evictions")
        shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Among all processes of the host: who makes room counts on nobody else's doing so."""
        fd = os.open(
            self._disk / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _count(self, what: str) -> None:
        with self._counting:
            self._counts[what] += 1


class Recording:
    """An activation cache that is being written, step by step, by one thread. Within `with`, what
    is not finished at the end is dropped."""

    def __init__(self, part: Part, store: ActivationStore) -> None:
        self._part: Part | None = part
        self._store = store

    def write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """The tensors of `step`. Raises `OSError` where the file system has no room; the recording
        is dropped then."""
        if self._part is None:
            return
        try:
            self._part.write(step, tensors)
        except OSError:
            self.drop()
            raise

    def finish(self) -> None:
        """All steps are written: from now on it can be found."""
        if self._part is not None:
            self._store.published(self._part)
            self._part = None

    def drop(self) -> None:
        if self._part is not None:
            self._part.remove()
            self._part = None


def _oldest(directory: Path, bound: int) -> tuple[Path, ...] | None:
    """The caches that have to go, least recently used first, until `bound` bytes hold the rest.
    Those being recorded stay; None: they alone take more."""
    held = (
        Resident(path, nbytes, used, pinned=path.suffix == files.PART)
        for path, nbytes, used in files.sizes(directory)
    )
    leaves, stays = evict(held, bound)
    return leaves if stays <= bound else None
