"""What a fleet must not hold once its jobs have ended: slots, files, processes."""

import re
import time
from pathlib import Path
from typing import Final

from shared.bus.base import Bus
from shared.errors import BusUnavailable
from shared.telemetry.exposition import gather_metrics
from shared.tensors import owners

_USED: Final = re.compile(r"^darkroom_arena_used_bytes\{(.*)\} (\S+)$", re.MULTILINE)


async def arenas_in_use(bus: Bus) -> dict[str, float]:
    """Arena -> bytes of its slots in use, for every process that answers."""
    text = (await gather_metrics(bus)).decode()
    return {_label(labels, "arena"): float(value) for labels, value in _USED.findall(text)}


async def workers(bus: Bus) -> dict[int, str]:
    """Pid -> name, as events tell it, of every process with an arena."""
    text = (await gather_metrics(bus)).decode()
    found = {}
    for labels, _ in _USED.findall(text):
        owner = owners.owner_of(_label(labels, "arena"))
        if owner is not None:
            found[owner.pid] = _label(labels, "instance")
    return found


def _label(labels: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', labels)
    assert found is not None, f"{name} is not among {labels}"
    return found[1]


def ownerless(directory: Path) -> list[Path]:
    """Arenas of processes that are gone."""
    found = []
    for path in directory.glob(f"*{owners.SUFFIX}"):
        owner = owners.owner_of(path.name.removesuffix(owners.SUFFIX))
        if owner is not None and not owners.is_running(owner):
            found.append(path)
    return found


async def slots_left(bus: Bus, within: float) -> dict[str, float]:
    """Arenas that still hold something `within` seconds later; looks until none does."""
    deadline = time.monotonic() + within
    while True:
        try:
            held = {name: used for name, used in (await arenas_in_use(bus)).items() if used > 0}
        except BusUnavailable:
            held = {"unknown": 0.0}
        if not held or time.monotonic() >= deadline:
            return held


def pids_marked(mark: str) -> list[int]:
    """Running processes that belong to the fleet `mark`."""
    wanted = f"DARKROOM_CHAOS={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found
