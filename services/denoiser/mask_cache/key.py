"""The key of an activation cache: everything that its activations depend on.

InstGenIE (arXiv 2505.20600) looks caches up by an id that its users give. Here the key is a hash
of content, so that nobody can be served another's activations, and a model that is replaced finds
none of the old ones.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

FORMAT: Final = 1
"""Of the files; another one is another key."""


class CacheKeyParts(msgspec.Struct, frozen=True, kw_only=True):
    """`image`: digest of the original's latents. `model`: see `fingerprint`. `adapters`: each one's
    digest and scale. `first_step`: where its denoising begins, of `steps`."""

    image: str
    model: str
    adapters: tuple[tuple[str, float], ...]
    sampler: str
    steps: int
    first_step: int
    shape: tuple[int, ...]
    kept: str
    """What is kept of each block, and as which dtype."""


def cache_key(parts: CacheKeyParts) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(msgspec.msgpack.encode((FORMAT, parts))).hexdigest()


def fingerprint(folder: Path) -> str:
    """Of the component in `folder`: its configuration and its weights' files, by name, size and
    time of change, without reading gigabytes. Files that are fetched anew are another component."""
    return _fingerprint(folder, _state(folder))


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    stats = [(path.name, os.stat(path)) for path in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=64)
def _fingerprint(folder: Path, state: Sequence[tuple[str, int, int]]) -> str:
    found = hashlib.sha256(msgspec.msgpack.encode(state))
    if (folder / "config.json").is_file():
        found.update((folder / "config.json").read_bytes())
    return found.hexdigest()


def metadata(key: str, step: int) -> Mapping[str, str]:
    """What a file of cache `key` says of itself."""
    return {"format": str(FORMAT), "template": key, "step": str(step)}
