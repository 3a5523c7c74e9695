"""What was tried once on this host, and need not be tried at each load: that a network's graph
gives the same bits as the network. They are notes in the directory of converted weights, which is
this user's alone; without one, everything is tried each time.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from shared.models.weights.sharing import cache_of_process
from shared.models.weights.state import weights_of

MOST: Final = 1024
"""Notes that are kept; the oldest ones leave."""
_SUFFIX: Final = ".agrees"
_LIBRARIES: Final = ("darkroom", "torch", "diffusers", "transformers")


def identity_of(module: Any, *code: type) -> str:
    """Of all that decides what a forward of `module` (of diffusers) computes, but for the numbers
    in its weights: its config, its weights' forms, the classes in `code` that run it, libraries,
    and the processor."""
    digest = hashlib.sha256()
    for part in (*_parts(module), *_sources(code)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def known(identity: str) -> bool:
    """Whether it agreed before."""
    note = _note(identity)
    return note is not None and note.exists()


def remember(identity: str) -> None:
    """It agreed."""
    note = _note(identity)
    if note is None:
        return
    with contextlib.suppress(OSError):  # then it is tried again
        note.touch(mode=0o600)
        others = [other for other in note.parent.glob(f"*{_SUFFIX}") if other != note]
        others.sort(key=lambda path: path.stat().st_mtime)
        for old in others[: max(0, len(others) + 1 - MOST)]:
            old.unlink(missing_ok=True)


def _note(identity: str) -> Path | None:
    cache = cache_of_process()
    return None if cache is None else cache.directory / f"{identity}{_SUFFIX}"


def _parts(module: Any) -> Iterator[str]:
    for library in _LIBRARIES:
        yield f"{library} {version(library)}"
    yield f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    yield type(module).__qualname__
    for name, value in sorted(module.config.items()):
        if not name.startswith("_"):  # where it was read from
            yield f"{name}={value!r}"
    for weight in weights_of(module):
        yield f"{weight.dtype} {tuple(weight.shape)} {weight.stride()}"


def _sources(code: tuple[type, ...]) -> Iterator[str]:
    """Of the files of these classes and of those that they are made of, as far as they are
    ours."""
    modules = {base.__module__ for each in code for base in each.__mro__}
    for name in sorted(modules):
        path = getattr(sys.modules.get(name), "__file__", None)
        if name.startswith("shared.") and path is not None:
            yield hashlib.sha256(Path(path).read_bytes()).hexdigest()
