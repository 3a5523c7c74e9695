"""What is recorded of an activation cache, brought to where the network reads it before it is asked
for.

The loader brings it while blocks before compute (InstGenIE, arXiv 2505.20600 §4.2), and across the
boundaries of steps. In a CPU's memory nothing has to be loaded: activation caches are mapped, and
only those that were spilled to disk are read ahead.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Final, NamedTuple

import torch

from services.denoiser.mask_cache.files import ActivationCache
from shared.residency.loader import Load
from shared.residency.transfer import Moved, Transfer

MAX_AHEAD: Final = 512 * 1024 * 1024
"""Bytes of one row that are loaded, or being loaded, and not asked for yet."""
KINDS: Final = 2
"""Of tensors that a block asks for, of one image: keys and values."""


class Place(NamedTuple):
    step: int
    name: str


class Prefetcher:
    """The tensors of an activation cache from step `first` on, in the order in which blocks ask for
    them."""

    def __init__(
        self, transfer: Transfer, cache: ActivationCache, first: int, max_bytes: int = MAX_AHEAD
    ) -> None:
        self._transfer, self._cache, self._max_bytes = transfer, cache, max_bytes
        self._coming = _in_order(cache, first)
        self._begun: OrderedDict[Place, tuple[Load[Moved], int]] = OrderedDict()
        self._bytes = 0
        self._block_bytes = sum(
            tensor.nbytes for name, tensor in cache.at(first).items() if _block(name) == 0
        )
        self.skipped = 0
        """Blocks, the first ones of each step, of which nothing more is loaded unless it is asked
        for."""
        self._top_up()

    def __repr__(self) -> str:
        return f"<Prefetcher of {self._cache}: {len(self._begun)} tensors, {self._bytes} bytes>"

    @property
    def block_seconds(self) -> float:
        """To load what one block needs in a step."""
        return self._transfer.rate.seconds(self._block_bytes)

    @property
    def head_seconds(self) -> float:
        """What was loaded already would take so long."""
        done = (nbytes for load, nbytes in self._begun.values() if load.future.done())
        return self._transfer.rate.seconds(sum(done))

    def take(self, step: int, name: str) -> torch.Tensor:
        """It is not asked for again, nor is anything of the steps before, which is given up."""
        for place in [place for place in self._begun if place.step < step]:
            if (old := self._forget(place)) is not None:
                old.future.cancel()
        load = self._forget(Place(step, name))
        if load is None:
            load = self._transfer.begin(self._cache.at(step)[name])
        load.hasten()
        self._top_up()
        try:
            return self._transfer.result(load)
        except CancelledError:  # it was closed just now, but this step goes on
            return self._transfer.result(self._transfer.begin(self._cache.at(step)[name]))

    def close(self) -> None:
        """Give up what is not there yet; what is asked for nevertheless comes. In any thread."""
        begun, self._begun = self._begun, OrderedDict()
        self._coming = iter(())
        for load, _ in list(begun.values()):
            load.future.cancel()

    def _forget(self, place: Place) -> Load[Moved] | None:
        load, nbytes = self._begun.pop(place, (None, 0))
        self._bytes -= nbytes
        return load

    def _top_up(self) -> None:
        while self._bytes < self._max_bytes and (found := next(self._coming, None)) is not None:
            place, tensor = found
            if _block(place.name) < self.skipped:
                continue
            ahead = self._transfer.rate.seconds(self._bytes)
            self._begun[place] = self._transfer.begin(tensor, ahead), tensor.nbytes
            self._bytes += tensor.nbytes


class PrefetchedStep(Mapping[str, torch.Tensor]):
    """What is recorded of one image in `step`, by the names that a network gives. What is looked up
    is waited for, and kept until the next block's is: a block may need it twice."""

    def __init__(self, prefetcher: Prefetcher, step: int, image: int, names: Iterable[str]) -> None:
        self._prefetcher, self._step = prefetcher, step
        self._whole = {name: f"{image}.{name}" for name in names}
        self._held: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._held:
            self._held[name] = self._prefetcher.take(self._step, self._whole[name])
            if len(self._held) > KINDS:
                self._held.popitem(last=False)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)


def _in_order(cache: ActivationCache, first: int) -> Iterator[tuple[Place, torch.Tensor]]:
    """Block by block, of each image after image, its keys and then its values."""
    for step in range(first, cache.steps.stop):
        found = cache.at(step)
        names = [name for name in found if _block(name) >= 0]
        for name in sorted(names, key=lambda name: (_block(name), name.split(".")[:2])):
            yield Place(step, name), found[name]


def _block(name: str) -> int:
    """Of a name that says image, kind and block; -1: it says none."""
    _, _, block = name.rpartition(".")
    return int(block) if block.isdigit() else -1
