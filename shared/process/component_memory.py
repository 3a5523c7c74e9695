"""The components in the memory of one process: brought by its loader, and freed."""

import asyncio
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Literal, TypeVar

from shared.bus.unusable import Kind
from shared.host.heap import hand_back
from shared.models.files.directory import loading
from shared.models.weights.sharing import files_to_read
from shared.residency.item import Item, Pieces, undivided
from shared.residency.loader import Loader
from shared.residency.read_ahead import read_ahead
from shared.residency.tier import UNBOUNDED, Tier
from shared.residency.urgency import beside_others
from shared.worker.context import Context

T = TypeVar("T")
Haste = Literal["alone", "urgent", "patient"]
"""Of a load: nobody computes beside it; jobs wait for it; or nobody does."""

PATIENT_SECONDS: Final = 60.0
"""In which a component is wanted that no job waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHost(Generic[T]):
    """What a service does with its components, by their names."""

    what: str
    """They are, of a model."""
    sources: Callable[[], Mapping[str, str]]
    """Directories or hub ids of all that are served now, by name."""
    folders: Callable[[str], Sequence[str]]
    """That are loaded, below the source."""
    load: Callable[[str], T]
    """On any thread, from files that are in memory, if there is room for them. May raise
    anything."""
    serving: Callable[[str, T], AbstractAsyncContextManager[None]]
    """Within, the service's handlers hold it."""
    kind: Kind = "model"

    def called(self, name: str) -> str:
        return f"{self.what} of {name}" if self.kind == "model" else f"{self.what} {name}"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedComponent(Generic[T]):
    """A component, alone in a list, so that whoever empties that has freed it. `nbytes`: of its
    weights."""

    component: list[T]
    nbytes: int


class ComponentMemory(Generic[T]):
    """Those of `host`: items of a tier that `loader` serves. `budget`: bytes that their weights may
    take together; 0: any."""

    def __init__(
        self, context: Context, host: ComponentHost[T], loader: Loader, budget: int
    ) -> None:
        self._context, self._host = context, host
        self._tier: Tier[str, LoadedComponent[T]] = Tier(
            "the components in memory",
            budget or UNBOUNDED,
            loader,
            lambda loaded: loaded.nbytes,
            strict=True,
        )

    def __repr__(self) -> str:
        return f"<ComponentMemory {self._tier!r}>"

    async def bring(self, name: str, size: int, haste: Haste) -> LoadedComponent[T]:
        """The component of `size` bytes, which stays until `let_go`. Raises `DarkroomError`."""
        item = Item(name, size, partial(self._pieces, name, size, haste))
        within = PATIENT_SECONDS if haste == "patient" else 0.0
        return await asyncio.wrap_future(self._tier.bring(item, within, pinned=True))

    async def let_go(self, name: str, loaded: LoadedComponent[T]) -> None:
        """Free it: nobody uses it any more."""
        await asyncio.to_thread(_free, loaded.component)
        self._tier.unpin(name)
        self._tier.drop(name)

    def _pieces(self, name: str, size: int, haste: Haste) -> Pieces[LoadedComponent[T]]:
        """Its files come piece by piece; what a library makes of them cannot be divided."""
        called, device = self._host.called(name), self._context.settings.device
        self._context.budget.refuse_larger(called, size)
        with loading(called):
            source, dtype = self._host.sources()[name], self._context.settings.dtype
            files = files_to_read(source, self._host.folders(name), dtype)
            read = yield from read_ahead(files)
        # To a device all of it moves once more.
        left = max(0, size - read) if device == "cpu" else size
        component = yield from undivided(partial(self._loaded, name, haste), left)
        return LoadedComponent([component], size)

    def _loaded(self, name: str, haste: Haste) -> T:
        """On a thread of its own."""
        manner = nullcontext() if haste == "alone" else beside_others(haste == "patient")
        with loading(self._host.called(name)), manner, _without_gradients():
            return self._host.load(name)


def _without_gradients() -> AbstractContextManager[object]:
    """Torch asks each thread anew. A process that has not imported it has none."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.no_grad()


def _free(loaded: list[T]) -> None:
    """Nobody needs what is in the list any more. It may be of those that no collector looks at (see
    `Process.serve`)."""
    loaded.clear()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    hand_back()
