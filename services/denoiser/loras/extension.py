"""The LoRAs that a row has, and those that it may still lack."""

from collections.abc import Collection, Hashable

from services.denoiser.rows.extension import RowExtension
from services.denoiser.rows.row import Row
from shared.models.lowrank.bank import Use


class RowLoras(RowExtension):
    """Of one row: what its network computes with beside the weights."""

    def __init__(self, uses: tuple[Use, ...] = ()) -> None:
        """`uses` fit the network."""
        self.uses = uses
        """From the next step on; replaced, never changed."""
        self.complete = True
        """The row has all that it will have."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {[adapter.name for adapter, _ in self.uses]}>"

    @property
    def arrived(self) -> tuple[Use, ...]:
        """What the row could have from the next step on."""
        return self.uses

    @property
    def version(self) -> Hashable:
        return self.uses

    @property
    def local(self) -> bool:
        return bool(self.uses)


class LateLoras(RowLoras):
    """Of a row that may take `most` steps while some of its LoRAs are missing."""

    def __init__(self, most: int, names: Collection[str]) -> None:
        """`names`: of all its LoRAs, as the result tells them."""
        super().__init__()
        self._most, self._names = most, frozenset(names)
        self._arrived: tuple[Use, ...] = ()
        self.complete = False
        self._joined: dict[str, int] = {}
        """By name: the steps that were done when it joined."""

    def begin(self, steps: int) -> None:
        """The row takes so many: not even the last one is taken if something is missing."""
        self._most = min(self._most, steps - 1)

    def blocked(self, step: int) -> bool:
        return not self.complete and step >= self._most

    @property
    def arrived(self) -> tuple[Use, ...]:
        return self._arrived

    def arrive(self, uses: tuple[Use, ...], complete: bool) -> None:
        """`uses` are there by now; `complete`: they are all that there will be."""
        self._arrived, self.complete = uses, complete

    def may_wait(self, step: int) -> bool:
        """Whether the step after `step` ones may be taken without what has arrived."""
        return step < self._most

    def join(self) -> None:
        """From the next step on the row has what has arrived."""
        self.uses = self._arrived

    def stepping(self, step: int, uses: Collection[Use]) -> None:
        """After `step` steps the row takes the next one in another batch, with `uses`."""
        for adapter, _ in uses:
            self._joined.setdefault(adapter.name, step)

    def approximations(self, index: int, steps: int) -> set[str]:
        """Which LoRAs the first `steps` steps, or some of them, lacked."""
        missed = {name: min(self._joined.get(name, steps), steps) for name in self._names}
        return {
            f"late_lora {name}: image {index}, step {lacked + 1}"
            for name, lacked in missed.items()
            if lacked
        }


def uses_of(row: Row) -> tuple[Use, ...]:
    found = row.extension(RowLoras)
    return () if found is None else found.uses


def give(row: Row, uses: tuple[Use, ...]) -> None:
    """Have `row`, which takes no step now, computed with `uses` from its next step on."""
    found = row.extension(RowLoras)
    if found is None:
        row.extensions = (*row.extensions, RowLoras(uses))
    else:
        found.uses = uses
