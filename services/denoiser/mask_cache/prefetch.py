"""What is recorded of an activation cache, brought to where the network reads it before it is asked
for.

On a thread of its own and, on an accelerator, a stream, while blocks before compute (InstGenIE,
arXiv 2505.20600 §4.2), and across the boundaries of steps. In a CPU's memory nothing has to be
loaded: activation caches are mapped, and only those that were spilled to disk are read ahead.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import torch

from services.denoiser.mask_cache.files import ActivationCache

MAX_AHEAD: Final = 512 * 1024 * 1024
"""Bytes of one row that are loaded, or being loaded, and not asked for yet."""
KINDS: Final = 2
"""Of tensors that a block asks for, of one image: keys and values."""
BYTES_PER_SECOND: Final = 2e9
"""Before anything was loaded."""
MEMORY: Final = 64
"""What was loaded per second follows about so many loads."""


class Loaded(NamedTuple):
    """`ready`: when the copy is done on the loads' stream; None: it is."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None


class DeviceLoader:
    """Of one network on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, "cache-loader")
        cuda: Any = torch.cuda
        self._stream = cuda.Stream(device) if device.type == "cuda" else None
        self._seconds_per_byte = 1.0 / BYTES_PER_SECOND

    def seconds(self, nbytes: int) -> float:
        """How long it takes to load so much, as seen."""
        return self._seconds_per_byte * nbytes

    def needed(self, cache: ActivationCache) -> bool:
        return self._device.type != "cpu" or cache.spilled

    def begin(self, tensor: torch.Tensor) -> Future[Loaded]:
        return self._thread.submit(self._load, tensor)

    def result(self, load: Future[Loaded]) -> torch.Tensor:
        """On the network's device, for the stream that computes."""
        tensor, ready = load.result()
        if ready is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(ready)
            tensor.record_stream(computing)
        return tensor

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _load(self, tensor: torch.Tensor) -> Loaded:
        began = time.perf_counter()
        loaded = self._loaded(tensor)
        if loaded.ready is not None:
            loaded.ready.synchronize()
        took = (time.perf_counter() - began) / tensor.nbytes
        self._seconds_per_byte += (took - self._seconds_per_byte) / MEMORY
        return loaded

    def _loaded(self, tensor: torch.Tensor) -> Loaded:
        if self._device.type == "cpu":
            return Loaded(tensor.clone(), None)
        if self._stream is None:
            return Loaded(tensor.to(self._device), None)
        with torch.cuda.stream(self._stream):
            moved = tensor.pin_memory().to(self._device, non_blocking=True)
            return Loaded(moved, self._stream.record_event())


class Place(NamedTuple):
    step: int
    name: str


class Prefetcher:
    """The tensors of an activation cache from step `first` on, in the order in which blocks ask for
    them."""

    def __init__(
        self, loader: DeviceLoader, cache: ActivationCache, first: int, max_bytes: int = MAX_AHEAD
    ) -> None:
        self._loader, self._cache, self._max_bytes = loader, cache, max_bytes
        self._coming = _in_order(cache, first)
        self._begun: OrderedDict[Place, tuple[Future[Loaded], int]] = OrderedDict()
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
        return self._loader.seconds(self._block_bytes)

    @property
    def head_seconds(self) -> float:
        """What was loaded already would take so long."""
        done = (nbytes for load, nbytes in self._begun.values() if load.done())
        return self._loader.seconds(sum(done))

    def take(self, step: int, name: str) -> torch.Tensor:
        """It is not asked for again, nor is anything of the steps before."""
        for place in [place for place in self._begun if place.step < step]:
            self._forget(place)
        load = self._forget(Place(step, name))
        if load is None:
            load = self._loader.begin(self._cache.at(step)[name])
        self._top_up()
        return self._loader.result(load)

    def _forget(self, place: Place) -> Future[Loaded] | None:
        load, nbytes = self._begun.pop(place, (None, 0))
        self._bytes -= nbytes
        return load

    def _top_up(self) -> None:
        while self._bytes < self._max_bytes and (found := next(self._coming, None)) is not None:
            place, tensor = found
            if _block(place.name) < self.skipped:
                continue
            self._begun[place] = self._loader.begin(tensor), tensor.nbytes
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
