"""What batches compute with: a bank of their rows' adapters beside the weights, or the weights."""

from collections.abc import Collection, Sequence

from services.denoiser.forward.predictors import Predictor
from services.denoiser.forward.step import Batch
from services.denoiser.loras.extension import LateLoras, uses_of
from services.denoiser.loras.merging import Merging
from services.denoiser.loras.products import Preparation
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Network
from shared.models.lowrank.bank import Use
from shared.policy.step_work import StepWork


class LoraWeights(Predictor):
    """Takes no step itself: whoever takes one does it with what this gives the batch, or with the
    weights as this left them."""

    def __init__(self, network: Network, preparation: Preparation | None = None) -> None:
        """`preparation` as in `Merging`."""
        self.merging = Merging(network, preparation)
        self._merged: tuple[Use, ...] = ()
        """That the batches were made for."""

    def settle(self, rows: Collection[Row]) -> bool:
        """A late row that may still do without its adapters does so while they are prepared to be
        merged: with a bank its steps would take longer, and so would the preparation."""
        self.merging.settle(rows)
        for row in rows:
            late = row.extension(LateLoras)
            if late is not None and not (self.merging.preparing and late.may_wait(row.step)):
                late.join()
        before, self._merged = self._merged, self.merging.merged
        return self._merged != before

    def batched(self, batch: Batch, network: Network) -> None:
        give_bank(batch, network, merged=bool(self._merged))

    def observe(self, batch: Batch, work: StepWork, seconds: float) -> None:
        self.merging.observe(work, seconds, "bank" in batch.beside)


def batch_of(rows: Sequence[Row], network: Network) -> Batch:
    """A batch of `rows` (see `Batch.of`), whose adapters are not in the weights."""
    batch = Batch.of(rows, network)
    give_bank(batch, network)
    return batch


def give_bank(batch: Batch, network: Network, merged: bool = False) -> None:
    """Have forwards of `batch` compute with its rows' adapters, unless the weights have them
    (`merged`)."""
    each = [uses_of(row) for row in batch.rows]  # more may join a row at any moment
    for row, uses in zip(batch.rows, each, strict=True):
        late = row.extension(LateLoras)
        if late is not None:
            late.stepping(row.step, uses)
    if any(each) and not merged:
        bank = network.bank([each[i] for i in batch.source.tolist()])
        if bank is not None:
            batch.beside["bank"] = bank
