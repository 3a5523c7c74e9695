"""Loads that tests hold, watch and break."""

import threading
from dataclasses import dataclass, field

from shared.residency.item import Item, Pieces
from tests.conftest import HANG_SECONDS


@dataclass(eq=False)
class Source:
    """Where the items of a test come from. `moved`: pieces, as key and number, in their order."""

    moved: list[tuple[str, int]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def item(
        self, key: str, pieces: int = 1, nbytes: int = 10, error: Exception | None = None
    ) -> Item[str, str]:
        """Of so many pieces of `nbytes` each; what is loaded is its name in capitals, or an
        `error` behind the first piece."""

        def load() -> Pieces[str]:
            try:
                for number in range(pieces):
                    self.moved.append((key, number))
                    yield nbytes
                    if error is not None:
                        raise error
            finally:
                self.closed.append(key)
            return key.upper()

        return Item(key, pieces * nbytes, load)

    @property
    def order(self) -> list[str]:
        """The keys, as often as they had pieces in a row."""
        keys = [key for key, _ in self.moved]
        return [key for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]


class Gate:
    """A load that holds the loader's thread until it is opened."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        self.item: Item[str, str] = Item("gate", 1, self._load)

    def reached(self) -> None:
        assert self._reached.wait(HANG_SECONDS)

    def open(self) -> None:
        self._open.set()

    def _load(self) -> Pieces[str]:
        self._reached.set()
        assert self._open.wait(HANG_SECONDS)
        yield 1
        return "GATE"
