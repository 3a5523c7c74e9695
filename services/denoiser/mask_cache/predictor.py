"""Steps of rows of which only masked tokens are computed (InstGenIE, arXiv 2505.20600 §4)."""

import torch

from services.denoiser.forward.predictors import Predictor, StepTime
from services.denoiser.forward.step import Batch
from services.denoiser.mask_cache.block_modes import choose_modes
from services.denoiser.mask_cache.row_cache import RowCache
from services.denoiser.rows.row import Row
from shared.models.contracts.network import MaskedNetwork, Network, Partial
from shared.policy.row_view import StepCost


class MaskedSteps(Predictor):
    """Takes the steps of batches in which somebody's mask is cached or recorded, unless the
    network computes with anything beside: then all is computed."""

    def prepare(self, batch: Batch, cost: StepCost) -> None:
        choose_modes(batch.rows, cost)

    def applies(self, batch: Batch, cost: StepCost, lonely: bool) -> bool:
        return not batch.beside and any(_active(row) is not None for row in batch.rows)

    def predict(
        self, network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, time: StepTime
    ) -> torch.Tensor:
        assert isinstance(network, MaskedNetwork), "only its rows are masked"
        partials = [Partial()] * len(batch.source)
        active = [_active(row) for row in batch.rows]
        for i, (row, masked) in enumerate(zip(batch.rows, active, strict=True)):
            if masked is not None:
                own = masked.partials(row.step, row.forwards, x.device)
                for image, partial in zip(batch.images(i), own, strict=True):
                    partials[image] = partial
        modes = next(masked.modes for masked in active if masked is not None)
        x, t = x[batch.source], t[batch.source]
        return network.predict_partly(x, t, batch.conditioning, partials, modes)


def _active(row: Row) -> RowCache | None:
    masked = row.extension(RowCache)
    return masked if masked is not None and masked.active else None
