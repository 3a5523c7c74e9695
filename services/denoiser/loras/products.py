"""What adapters add to the weights, computed beside the steps."""

import logging
from concurrent.futures import CancelledError
from contextlib import suppress

from shared.errors import QueueFull
from shared.models.contracts.network import Network
from shared.models.lowrank.bank import Products, Use
from shared.residency.item import Item
from shared.residency.loader import Load, Loader

log = logging.getLogger(__name__)


class Preparation:
    """Products of the adapters that are to be merged into the weights of `network`: the loader
    computes them, and the thread that computes steps only adds them. On an accelerator they take
    less time than it takes to add them, and nothing is prepared. For that thread."""

    def __init__(self, network: Network, loader: Loader | None = None, max_bytes: int = 0) -> None:
        """What takes more than `max_bytes` is not prepared; without a `loader` nothing is."""
        self._network, self._max_bytes = network, max_bytes
        self._loader = loader if network.device.type == "cpu" else None
        self._coming: tuple[tuple[Use, ...], Load[Products]] | None = None

    def __repr__(self) -> str:
        return f"<Preparation {self._coming and self._coming[1]}>"

    @property
    def under_way(self) -> bool:
        """Something is prepared, and was not taken yet."""
        return self._coming is not None

    def ready(self, uses: tuple[Use, ...]) -> bool:
        """Whether there is nothing to wait for before `uses` are merged; if there is, it is under
        way."""
        if self._coming is None or self._coming[0] != uses:
            self.drop()
            self._begin(uses)
        return self._coming is None or self._coming[1].future.done()

    def take(self) -> Products | None:
        """Of the adapters that are `ready`; None: they have to be computed."""
        coming, self._coming = self._coming, None
        if coming is None:
            return None
        try:
            return coming[1].future.result()
        except (RuntimeError, MemoryError, CancelledError) as error:
            log.warning("what adapters add to the weights is not prepared: %r", error)
            return None

    def drop(self) -> None:
        """Nothing is to be merged now."""
        if self._coming is not None:
            self._coming[1].future.cancel()
            self._coming = None

    def _begin(self, uses: tuple[Use, ...]) -> None:
        if self._loader is None:
            return
        nbytes = self._network.product_bytes(uses)
        if nbytes <= self._max_bytes:
            item = Item("products", nbytes, lambda: self._network.products(uses))
            with suppress(QueueFull):
                self._coming = uses, self._loader.bring(item)
