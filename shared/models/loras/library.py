"""Adapters in memory: each is read once, however many jobs want it, and the least recently used
ones leave when they take too much room."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from shared.host.lru import LruCache
from shared.messages import LoraChoice
from shared.models.contracts.family import Family
from shared.models.loras.files import LoraFiles, Version, version
from shared.models.loras.layout import layout
from shared.models.loras.read import reading
from shared.models.loras.sources.origins import label
from shared.models.lowrank.bank import Use
from shared.models.lowrank.weights import Adapter
from shared.residency.item import Item, Pieces
from shared.residency.loader import Loader
from shared.residency.tier import Tier
from shared.telemetry.caches import CacheReading

_Key = tuple[str, bool, Version]
"""What an adapter is called, whether a part of it may be left out, and its file: results name it as
it was asked for."""
NOTHING_SECONDS: Final = 60.0
"""For so long a file elsewhere that had nothing for this process is not looked into again."""
MAX_NOTHING: Final = 1024
"""Files of which that is remembered."""


@dataclass(frozen=True, slots=True)
class LibraryStatistics:
    """`bytes`: of the adapters in memory, at most `bound` but for one that is larger by itself."""

    adapters: int
    bytes: int
    bound: int
    hits: int
    reads: int
    evictions: int
    failures: int


class AdapterLibrary:
    """Adapters in `files` for one model. In one event loop; the loader reads the files."""

    def __init__(
        self,
        files: LoraFiles,
        family: Family,
        check: Callable[[Adapter], None],
        max_bytes: int,
        loader: Loader,
        parts: Sequence[str] | None = None,
    ) -> None:
        """`check` raises `AdapterUnusable` for an adapter that does not fit the model; `parts`: the
        networks that this process has of it, None: all. Most adapters have something for the
        network that denoises: without it, what is elsewhere is fetched only if its header says that
        it has something for `parts`."""
        self._files = files
        self._family = family
        self._check = check
        self._parts = parts
        self._memory: Tier[_Key, Adapter] = Tier(
            "the LoRAs in memory", max_bytes, loader, lambda adapter: adapter.nbytes
        )
        self._nothing: LruCache[LoraChoice, tuple[float, Adapter]] = LruCache(MAX_NOTHING)
        """Adapters (of scale 1) with nothing for `parts`, and when that was seen (monotonic)."""

    def __repr__(self) -> str:
        return f"<AdapterLibrary {self._memory}>"

    def reading(self) -> CacheReading:
        return self._memory.reading()

    def statistics(self) -> LibraryStatistics:
        found = self._memory.statistics()
        return LibraryStatistics(
            adapters=found.items,
            bytes=found.bytes,
            bound=found.bound,
            hits=found.hits,
            reads=found.loads,
            evictions=found.evictions,
            failures=found.failures,
        )

    async def uses(self, choices: Sequence[LoraChoice]) -> tuple[Use, ...]:
        """The adapters of `choices` with their scales. Raises `InvalidRequest` for what is not on
        a LoRA directory, `AdapterUnusable` for what cannot be fetched, read, or does not fit."""
        adapters = await asyncio.gather(*(self.get(choice) for choice in choices))
        return tuple((a, choice.scale) for a, choice in zip(adapters, choices, strict=True))

    async def late_steps(self, choices: Sequence[LoraChoice], steps: int, asked: int) -> int:
        """How many of `steps` may be taken without the adapters of `choices`: as many as were
        `asked` for, but no more than they were calibrated for, where they were."""
        if not asked or not choices:
            return 0
        found = await asyncio.gather(*(self._files.calibration(choice) for choice in choices))
        return min([asked, steps - 1, *(one.bound(steps) for one in found if one is not None)])

    async def fetch(self, choices: Sequence[LoraChoice]) -> None:
        """Return when the files of `choices` are on this host, which may take long for those from
        elsewhere. Raises as `uses` does."""
        await asyncio.gather(*(self._fetch(choice) for choice in choices))

    async def get(self, choice: LoraChoice) -> Adapter:
        """One adapter; raises as `uses` does."""
        parts = self._parts or (self._family.denoiser,)
        if self._family.denoiser not in parts:
            nothing = await self._nothing_of(choice, parts)
            if nothing is not None:
                return nothing
        async with self._files.file(choice) as path:
            return await self._got(label(choice), choice.partial, path)

    async def _fetch(self, choice: LoraChoice) -> None:
        async with self._files.file(choice):
            pass

    async def _nothing_of(self, choice: LoraChoice, parts: Sequence[str]) -> Adapter | None:
        """The adapter in a file elsewhere whose header says that it has nothing for `parts`."""
        key = msgspec.structs.replace(choice, scale=1.0)
        known = self._nothing.get(key)
        if known is not None and time.monotonic() - known[0] < NOTHING_SECONDS:
            return known[1]
        header = await self._files.header(choice)
        if header is None:
            return None
        found = await asyncio.to_thread(
            layout, label(choice), header, self._family, partial=choice.partial
        )
        if found.parts.intersection(parts):
            return None
        nothing = Adapter(label(choice), {}, found.said())
        self._nothing.put(key, (time.monotonic(), nothing))
        return nothing

    async def _got(self, name: str, partial: bool, path: Path) -> Adapter:
        key = name, partial, await asyncio.to_thread(version, path)
        _, _, size = key[2]
        return await asyncio.wrap_future(
            self._memory.bring(Item(key, size, lambda: self._checked(*key)))
        )

    def _checked(self, name: str, partial: bool, file: Version) -> Pieces[Adapter]:
        found = yield from reading(name, Path(file[0]), self._family, self._parts, partial=partial)
        self._check(found)
        return found
