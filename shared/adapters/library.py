"""Adapters in memory: each is read once, however many jobs want it, and the least recently used
ones leave when they take too much room."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared.adapters.adapter import Adapter, read_adapter
from shared.adapters.bank import Use
from shared.adapters.shelf import Shelf
from shared.families.base import Family
from shared.messages import LoraChoice

Version = tuple[str, int, int]
"""A file's path, modification time (ns) and size (bytes): another one is another adapter."""


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
    """Adapters of `shelf` for one model. In one event loop; files are read in threads."""

    def __init__(
        self,
        shelf: Shelf,
        family: Family,
        check: Callable[[Adapter], None],
        max_bytes: int,
        parts: Sequence[str] | None = None,
    ) -> None:
        """`check` raises `AdapterUnusable` for an adapter that does not fit the model; `parts`: the
        networks that this process has of it, None: all."""
        self._shelf = shelf
        self._family = family
        self._check = check
        self._max_bytes = max_bytes
        self._parts = parts
        self._held: OrderedDict[Version, Adapter] = OrderedDict()
        self._reading: dict[Version, asyncio.Task[Adapter]] = {}
        self._bytes = self._hits = self._reads = self._evictions = self._failures = 0

    def __repr__(self) -> str:
        return f"<AdapterLibrary {len(self._held)} adapters, {self._bytes}/{self._max_bytes} bytes>"

    def statistics(self) -> LibraryStatistics:
        return LibraryStatistics(
            adapters=len(self._held),
            bytes=self._bytes,
            bound=self._max_bytes,
            hits=self._hits,
            reads=self._reads,
            evictions=self._evictions,
            failures=self._failures,
        )

    async def uses(self, choices: Sequence[LoraChoice]) -> tuple[Use, ...]:
        """The adapters of `choices` with their scales. Raises `InvalidRequest` for a name that is
        not on the shelf, `AdapterUnusable` for what cannot be read or does not fit."""
        adapters = await asyncio.gather(*(self.get(choice.name) for choice in choices))
        return tuple((a, choice.scale) for a, choice in zip(adapters, choices, strict=True))

    async def late_steps(self, choices: Sequence[LoraChoice], steps: int, asked: int) -> int:
        """How many of `steps` may be taken without the adapters of `choices`: as many as were
        `asked` for, but no more than they were calibrated for, where they were."""
        if not asked or not choices:
            return 0
        found = await asyncio.to_thread(lambda: [self._shelf.calibration(c.name) for c in choices])
        return min([asked, steps - 1, *(one.bound(steps) for one in found if one is not None)])

    async def get(self, name: str) -> Adapter:
        """One adapter; raises as `uses` does."""
        version = await asyncio.to_thread(_version, self._shelf, name)
        held = self._held.get(version)
        if held is not None:
            self._hits += 1
            self._held.move_to_end(version)
            return held
        reading = self._reading.get(version)
        if reading is None:
            reading = self._reading[version] = asyncio.create_task(self._read(name, version))
            reading.add_done_callback(partial(self._was_read, version))
        return await asyncio.shield(reading)  # whoever else waits for it still wants it

    def _was_read(self, version: Version, reading: asyncio.Task[Adapter]) -> None:
        del self._reading[version]
        if not reading.cancelled():
            reading.exception()  # whoever waited for it has it; perhaps nobody does any more

    async def _read(self, name: str, version: Version) -> Adapter:
        self._reads += 1
        try:
            path = Path(version[0])
            adapter = await asyncio.to_thread(read_adapter, name, path, self._family, self._parts)
            self._check(adapter)
        except BaseException:
            self._failures += 1
            raise
        self._held[version] = adapter
        self._bytes += adapter.nbytes
        while self._bytes > self._max_bytes and len(self._held) > 1:
            _, oldest = self._held.popitem(last=False)
            self._bytes -= oldest.nbytes
            self._evictions += 1
        return adapter


def _version(shelf: Shelf, name: str) -> Version:
    path = shelf.find(name)
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size
