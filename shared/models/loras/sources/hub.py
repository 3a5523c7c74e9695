"""Hub ids: which file of which commit one is about, and its address. As huggingface.co has it."""

import re
import time
from typing import Final
from urllib.parse import quote

import msgspec

from shared.errors import AdapterUnusable
from shared.host.lru import LruCache
from shared.models.loras.sources.directory import SUFFIX
from shared.models.loras.sources.hosts import Hosts
from shared.models.loras.sources.http import body, expect, opened
from shared.models.loras.sources.origins import HubId

USUAL_FILE: Final = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of a LoRA."""
FRESH_SECONDS: Final = 60.0
"""For so long a branch is taken to be where it was."""
MAX_REMEMBERED: Final = 256
MAX_ANSWER: Final = 4 * 1024 * 1024
SHOWN: Final = 10
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class _File(msgspec.Struct, frozen=True):
    rfilename: str


class Revision(msgspec.Struct, frozen=True):
    """What the hub says of a revision. `sha`: its commit."""

    sha: str
    siblings: tuple[_File, ...] = ()


class Hub:
    """Remembers where branches were, for a minute."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._revisions: LruCache[tuple[str, str], tuple[float, Revision]] = LruCache(
            MAX_REMEMBERED
        )

    async def address(self, label: str, wanted: HubId) -> str:
        """Of the file, in a commit: it never changes. Raises `AdapterUnusable` about `label`."""
        if _COMMIT.fullmatch(wanted.revision) and wanted.file:
            return self._address(wanted.repo, wanted.revision, wanted.file)
        revision = await self._revision(label, wanted)
        file = wanted.file or _only(label, [one.rfilename for one in revision.siblings])
        return self._address(wanted.repo, revision.sha, file)

    def _address(self, repo: str, commit: str, file: str) -> str:
        return f"{self._hosts.hub}/{repo}/resolve/{commit}/{quote(file)}"

    async def _revision(self, label: str, wanted: HubId) -> Revision:
        key = wanted.repo, wanted.revision
        known = self._revisions.get(key)
        if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
            return known[1]
        found = await self._asked(label, wanted)
        self._revisions.put(key, (time.monotonic(), found))
        return found

    async def _asked(self, label: str, wanted: HubId) -> Revision:
        address = f"{self._hosts.hub}/api/models/{wanted.repo}/revision/{wanted.revision}"
        async with opened(label, address, self._hosts, {}) as response:
            expect(label, response, 200)
            data = await body(label, response, MAX_ANSWER)
        try:
            found = msgspec.json.decode(data, type=Revision)
        except (msgspec.DecodeError, ValueError) as error:
            raise AdapterUnusable(label, f"the hub's answer is not understood: {error}") from error
        if not _COMMIT.fullmatch(found.sha):
            raise AdapterUnusable(label, f"the hub names no commit but {found.sha[:60]!r}")
        return found


def _only(label: str, files: list[str]) -> str:
    """The LoRA among the files of a repository."""
    found = [name for name in files if name.endswith(SUFFIX) and "/" not in name]
    if USUAL_FILE in found:
        return USUAL_FILE
    if len(found) != 1:
        shown = ", ".join(found[:SHOWN]) or "none"
        raise AdapterUnusable(label, f"name one of its {SUFFIX} files; it has {shown}")
    return found[0]
