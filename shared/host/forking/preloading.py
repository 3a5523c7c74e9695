"""What a module needs, imported before any process runs it."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Collection
from pathlib import Path


def preload(module: str) -> None:
    """Import all that `python -m MODULE` imports at its start, and what its function `preload`
    imports, if it has one. What the module does under `if __name__ == "__main__"` is not done."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {module}")
    name = f"{module}.__main__" if spec.submodule_search_locations is not None else module
    found = importlib.import_module(name)
    if (further := getattr(found, "preload", None)) is not None:
        further()
    del sys.modules[name]  # the process that runs it does so under another name


def open_files() -> frozenset[int]:
    """Descriptors of this process."""
    with os.scandir("/proc/self/fd") as found:
        names = {int(entry.name) for entry in found}
    return frozenset(number for number in names if Path(f"/proc/self/fd/{number}").exists())


def unfit(known: Collection[int]) -> str:
    """Why a process that is forked from this one would not be like a new one; empty: it would be.
    `known`: the files that may be open. An accelerator that was initialised, a connection and
    whatever else a fork would share are files too."""
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        return f"an import started {threads - 1} threads"
    further = [_target(number) for number in sorted(open_files() - set(known))]
    if further:
        return f"an import left files open: {', '.join(further)}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "an import initialised CUDA"
    return ""


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return f"descriptor {number}"
