"""How much memory there is for what computes here."""

from pathlib import Path
from typing import Final

MEMINFO: Final = Path("/proc/meminfo")
CONTAINER_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
SHARE: Final = 0.9
"""Of a device's or the machine's memory, that weights may take unless it is said otherwise."""


def free_memory(meminfo: Path = MEMINFO, limit: Path = CONTAINER_LIMIT) -> int:
    """Bytes that new processes may take: what the kernel says is available, and no more than this
    container may have."""
    return _bounded("MemAvailable", meminfo, limit)


def all_memory(meminfo: Path = MEMINFO, limit: Path = CONTAINER_LIMIT) -> int:
    """Bytes of this machine, or of this container."""
    return _bounded("MemTotal", meminfo, limit)


def _bounded(line: str, meminfo: Path, limit: Path) -> int:
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    there = int(lines[line].split()[0]) * 1024
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return there if allowed == "max" else min(there, int(allowed))


def weights_budget(device: str) -> int:
    """Bytes of weights that one process may hold by default; 0: any number, for nobody says how
    much there is."""
    if device == "cpu":
        return int(SHARE * all_memory()) if MEMINFO.exists() else 0
    import torch

    if not device.startswith("cuda"):
        return 0
    _, there = torch.cuda.mem_get_info(device)
    return int(SHARE * there)
