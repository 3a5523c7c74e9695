"""How many denoisers a fleet has, and how many threads each, where nobody says. Pure.

Figures and reasons are in docs/log.md, "The default layout".
"""

from dataclasses import dataclass
from typing import Final

MOST_ALONE: Final = 4
"""So many denoisers have one thread each. Below that a thread more carries less than a process
more; above it sixteen users would no longer fill batches of four rows."""
MOST_THREADS: Final = 8
"""Of one denoiser, as long as there is memory for another one."""
OTHERS_SHARE: Final = 4
"""The other services take one of so many seconds of processor time when all are busy."""
PROCESS_BYTES: Final = 3 << 28
"""Of a denoiser without its weights: libraries, batches, and what the allocator keeps."""
FLEET_BYTES: Final = 3 << 29
"""Of all other processes without their weights."""
WEIGHT_COPIES: Final = 2
"""Memory that weights take, over their size on disk: those in half precision become twice as large
in float32, and reading takes some for a while. Processes of a host share their pages, so it is
taken once, however many denoisers there are."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a fleet may use. `memory`: bytes that are free. `gpu`: it does not compute on cores.
    `devices`: GPUs to spread denoisers over, by the names that CUDA_VISIBLE_DEVICES takes; none if
    the user named the one to use."""

    cores: int
    memory: int
    gpu: bool = False
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes on disk of a fleet's models; `denoising`: of their denoising networks alone, 0 if they
    are not here yet. `shared`: the denoisers of a host have their pages in common."""

    denoising: int
    all: int
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """`threads`: of each denoiser. `reason`: what decided, in words."""

    denoisers: int
    threads: int
    reason: str

    def __str__(self) -> str:
        """`2 denoisers of 1 thread each for 2 cores`"""
        each = " each" if self.denoisers > 1 else ""
        threads = _counted(self.threads, "thread")
        return f"{_counted(self.denoisers, 'denoiser')} of {threads}{each} {self.reason}"


def choose_layout(
    machine: Machine, weights: Weights, denoisers: int | None = None, threads: int = 0
) -> Layout:
    """What the user chose (`denoisers`; `threads` above 0), else the best that was measured: on
    cores as many denoisers as `denoisers_for` says and memory has room for, else one for each
    GPU."""
    count, reason = _automatic(machine, weights)
    if denoisers is not None:
        count, reason = denoisers, "as chosen"
    elif threads and not machine.gpu:
        count = min(count, max(1, machine.cores // threads))
    return Layout(count, threads or threads_each(machine.cores, count), reason)


def denoisers_for(cores: int) -> int:
    """How many denoisers keep so many cores busy."""
    busy = min(cores, max(MOST_ALONE, cores - cores // OTHERS_SHARE))
    threads = min(MOST_THREADS, max(1, busy // MOST_ALONE))
    return busy // threads


def threads_each(cores: int, denoisers: int) -> int:
    """One core is left to event loops and the bus where each denoiser still has a thread then: a
    torch operation waits for its slowest thread, and one that shares its core slows all down."""
    return max(1, (cores - 1) // max(1, denoisers))


def _automatic(machine: Machine, weights: Weights) -> tuple[int, str]:
    """How many, and what decided that."""
    if machine.gpu:
        count = max(1, len(machine.devices))
        return count, f"for {_counted(count, 'GPU')}"
    if not weights.denoising:
        return 1, "for a model whose size is not known before it is fetched"
    wanted, fit = denoisers_for(machine.cores), _that_fit(machine.memory, weights)
    if fit < wanted:
        return fit, f"for {machine.memory / 1e9:.1f} GB of free memory"
    return wanted, f"for {_counted(machine.cores, 'core')}"


def _that_fit(memory: int, weights: Weights) -> int:
    """Denoisers, at least one."""
    each = 0 if weights.shared else weights.denoising
    left = memory - FLEET_BYTES - WEIGHT_COPIES * (weights.all - each)
    return max(1, left // (PROCESS_BYTES + WEIGHT_COPIES * each))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
