"""LoRAs from elsewhere: streamed to the disk of this host, checked, and kept there.

Nothing here blocks the event loop, and nothing is unpickled: what is not safetensors is given up at
its first bytes. A file with a checksum, or of a commit of the hub, never changes. What is at
another address is asked for again, by its ETag, if that was not done in the last minute.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from shared.config import Settings
from shared.errors import AdapterUnusable, InvalidRequest, Misconfigured
from shared.messages import LoraChoice
from shared.models.files.safetensors_header import Header
from shared.models.loras.sources.download import Origin, download, finished, read_header
from shared.models.loras.sources.hosts import Hosts
from shared.models.loras.sources.hub import Hub
from shared.models.loras.sources.origins import hub_id, label
from shared.models.loras.sources.store import Held, Note, Part, Store, StoreStatistics

FRESH_SECONDS: Final = 60.0
"""For so long what may change is not asked for again."""
POLL_SECONDS: Final = 0.05
"""Between two looks for a file that another task or process is fetching."""


class Fetcher:
    """What is in hand at a time is bounded by the LoRAs of the work that the process took on."""

    def __init__(self, hosts: Hosts, store: Store, max_bytes: int, seconds: float) -> None:
        """`max_bytes`: of one file; `seconds`: for one, however it is waited for."""
        self._hosts, self._hub = hosts, Hub(hosts)
        self._store = store
        self._max_bytes = max_bytes
        self._seconds = seconds

    @staticmethod
    def of(settings: Settings) -> "Fetcher | None":
        """None if the operator allows no hosts. Raises `Misconfigured`."""
        hosts = Hosts.parse(settings.lora_origins, settings.lora_hub)
        if not hosts.entries:
            return None
        if settings.lora_file_bytes > settings.lora_disk_bytes:
            raise Misconfigured(
                f"DARKROOM_LORA_FILE_BYTES={settings.lora_file_bytes}: no file may be larger than "
                f"all of DARKROOM_LORA_DISK_BYTES={settings.lora_disk_bytes}"
            )
        store = Store(settings.lora_dir, settings.lora_disk_bytes)
        return Fetcher(hosts, store, settings.lora_file_bytes, settings.lora_seconds)

    def __repr__(self) -> str:
        return f"<Fetcher {self._store!r}>"

    def statistics(self) -> StoreStatistics:
        return self._store.statistics()

    @asynccontextmanager
    async def file(self, choice: LoraChoice) -> AsyncIterator[Path]:
        """The file of `choice`, a hub id or an address, which stays there within. Raises
        `AdapterUnusable`; `InvalidRequest` for what is no such choice."""
        async with self._bounded(label(choice)):
            held = await self._have(await self._origin(choice))
        try:
            yield held.path
        finally:
            held.close()

    async def header(self, choice: LoraChoice) -> Header | None:
        """The beginning of the file of `choice`, which is not fetched for it; None: the file is
        here. Raises as `file` does."""
        async with self._bounded(label(choice)):
            origin = await self._origin(choice)
            held = self._current(origin)
            if held is None:
                return await read_header(origin, self._hosts)
            held.close()
            return None

    @asynccontextmanager
    async def _bounded(self, name: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            self._store.failures += 1
            raise AdapterUnusable(name, f"not fetched within {self._seconds:g} s") from error
        except AdapterUnusable:
            self._store.failures += 1
            raise

    async def _origin(self, choice: LoraChoice) -> Origin:
        name, sha256 = label(choice), choice.sha256 and choice.sha256.lower()
        if choice.url is not None:
            return Origin(name, choice.url, sha256, constant=sha256 is not None)
        wanted = hub_id(choice.hub or "")
        if wanted is None:
            raise InvalidRequest("loras", choice.hub, "a hub id")
        return Origin(name, await self._hub.address(name, wanted), sha256, constant=True)

    def _current(self, origin: Origin) -> Held | None:
        """The file, if it is here and need not be asked for."""
        held = self._store.hold(origin.key)
        if held is None or origin.constant or _fresh(held.note):
            return held
        held.close()
        return None

    async def _have(self, origin: Origin) -> Held:
        held = self._current(origin)
        if held is not None:
            self._store.hits += 1
            return held
        while held is None:
            part = self._store.claim(origin.key)
            if part is None:
                await asyncio.sleep(POLL_SECONDS)
            else:
                with part:  # somebody else may have brought it since we looked
                    if (held := self._current(origin)) is None:
                        await self._bring(origin, part)
            held = held or self._current(origin)
        return held

    async def _bring(self, origin: Origin, part: Part) -> None:
        """Fetch the file, unless it is here and still the same."""
        old = self._store.hold(origin.key)
        try:
            etag = "" if old is None else old.note.etag
            new = await download(origin, self._hosts, part, self._max_bytes, etag)
            if new is not None:
                await finished(self._store.keep, origin.key, part, new)
                self._store.fetches += 1
            elif old is not None:
                await finished(self._store.confirm, origin.key, old.note)
        except OSError as error:
            raise AdapterUnusable(origin.label, f"it cannot be kept: {error}") from error
        finally:
            if old is not None:
                old.close()


def _fresh(note: Note) -> bool:
    return 0.0 <= time.time() - note.checked < FRESH_SECONDS
