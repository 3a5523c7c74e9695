"""The file of a LoRA that somebody chose, on this host: in a LoRA directory, or fetched."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from shared.errors import AdapterUnusable
from shared.messages import LoraChoice
from shared.models.files.safetensors_header import Header
from shared.models.loras.sources.directory import Calibration, LoraDirectory, calibration
from shared.models.loras.sources.fetch import Fetcher
from shared.models.loras.sources.origins import label
from shared.models.loras.sources.store import StoreStatistics
from shared.telemetry.caches import CacheReading

NOTHING: Final = StoreStatistics(0, 0, 0, 0, 0, 0, 0)
MAX_DIGESTS: Final = 1024
"""Checksums of local files that are remembered."""
Version = tuple[str, int, int]
"""A file's path, modification time (ns) and size (bytes): another one is another adapter."""


class LoraFiles:
    """For one process, whatever its models."""

    def __init__(self, lora_directory: LoraDirectory, fetcher: Fetcher | None = None) -> None:
        """Without a `fetcher` nothing is fetched."""
        self._lora_directory = lora_directory
        self._fetcher = fetcher
        self._digests: dict[Version, str] = {}
        """Of local files whose checksum somebody gave."""

    def __repr__(self) -> str:
        return f"<LoraFiles {self._lora_directory!r}, {self._fetcher!r}>"

    @asynccontextmanager
    async def file(self, choice: LoraChoice) -> AsyncIterator[Path]:
        """The file of `choice`, which is not thrown away within. Raises `InvalidRequest` for a name
        or path that is not in a LoRA directory, `AdapterUnusable` for what cannot be fetched."""
        if _elsewhere(choice):
            async with self._fetching(choice).file(choice) as path:
                yield path
        else:
            yield await asyncio.to_thread(self._checked, choice)

    async def header(self, choice: LoraChoice) -> Header | None:
        """The beginning of a file that would have to be fetched; None: it is here. Raises as `file`
        does."""
        return await self._fetching(choice).header(choice) if _elsewhere(choice) else None

    async def calibration(self, choice: LoraChoice) -> Calibration | None:
        """What is known of an adapter in a LoRA directory; None of any other."""
        if _elsewhere(choice):
            return None
        return await asyncio.to_thread(lambda: calibration(self._local(choice)))

    def reading(self) -> CacheReading:
        """Of what is fetched."""
        found = self.statistics()
        return CacheReading(found.bytes, found.bound, found.hits, found.fetches, found.evictions)

    def statistics(self) -> StoreStatistics:
        """Of what is fetched."""
        return NOTHING if self._fetcher is None else self._fetcher.statistics()

    def _checked(self, choice: LoraChoice) -> Path:
        path = self._local(choice)
        if choice.sha256 is not None:
            found = self._sha256(path)
            if found != choice.sha256.lower():
                reason = f"its sha256 is {found}, not {choice.sha256.lower()}"
                raise AdapterUnusable(label(choice), reason)
        return path

    def _sha256(self, path: Path) -> str:
        key = version(path)
        known = self._digests.get(key)
        if known is None:
            with path.open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            self._digests[key] = known
            while len(self._digests) > MAX_DIGESTS:
                self._digests.pop(next(iter(self._digests)), None)
        return known

    def _local(self, choice: LoraChoice) -> Path:
        if choice.path is not None:
            return self._lora_directory.below(choice.path)
        return self._lora_directory.find(choice.name or "")

    def _fetching(self, choice: LoraChoice) -> Fetcher:
        if self._fetcher is None:
            raise AdapterUnusable(label(choice), "this process fetches no LoRAs")
        return self._fetcher


def version(path: Path) -> Version:
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def _elsewhere(choice: LoraChoice) -> bool:
    return choice.url is not None or choice.hub is not None
