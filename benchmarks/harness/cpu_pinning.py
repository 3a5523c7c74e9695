"""Which core each process of a fleet with ControlNets computes on. Linux."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CpuPinning:
    """Cores by their numbers."""

    denoiser: int
    controls: tuple[int, ...]
    """Of each ControlNet's process."""
    others: frozenset[int]
    """For the bus, the other services, and whoever measures."""

    @property
    def every(self) -> list[int]:
        return sorted({self.denoiser, *self.controls, *self.others})

    def held(self, controls: int) -> int:
        """How many cores the denoiser and the first `controls` ControlNets have between them."""
        return len({self.denoiser, *self.controls[:controls]})


def cpu_pinning(cores: Sequence[int], controls: int) -> CpuPinning:
    """The denoiser has the first core for itself, and each ControlNet the next one as long as there
    are any, then they share; everything else has what is left, or shares with the ControlNets. With
    one core everything is on it."""
    first, rest = cores[0], list(cores[1:]) or list(cores)
    return CpuPinning(
        denoiser=first,
        controls=tuple(rest[number % len(rest)] for number in range(controls)),
        others=frozenset(rest[controls:] or rest),
    )


def pin(pid: int, cores: Collection[int]) -> None:
    """All threads that process `pid` has now, and those that they start."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


@contextmanager
def keeping_to(cores: Collection[int]) -> Iterator[None]:
    """Within, this thread runs on `cores`, and so do those that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
