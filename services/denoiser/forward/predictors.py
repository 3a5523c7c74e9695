"""The ways in which a batch's answers are computed. The first that applies takes the step.

A way is a subclass of `Predictor` in the folder of its feature; the last one, `WholeNetwork`,
always applies.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from services.denoiser.forward.step import Batch, whole
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Network
from shared.policy.row_view import StepCost
from shared.policy.step_work import StepWork


@dataclass(slots=True)
class StepTime:
    """What a predictor says about how long its step took."""

    waited: float = 0.0
    """Seconds in which the network waited for others."""
    representative: bool = True
    """The other seconds are what the batch's work costs on this network."""
    part: tuple[StepWork, float] | None = None
    """If they are not: what was computed here, and its seconds, where that is known."""


class Interrupted(Exception):
    """Some rows cannot take their step now: `late` ones have to wait, `failed` ones have an
    error."""

    def __init__(self, late: set[Row], failed: Mapping[Row, Exception]) -> None:
        super().__init__(f"{len(late)} rows are late, {len(failed)} failed")
        self.late, self.failed = late, failed


class Predictor:
    """One way of computing steps, or what is done for one feature around the steps that others
    compute. Everything is called on the thread of the step loop, but for `statistics`."""

    def attach(self, wake: Callable[[], object]) -> None:
        """`wake` is to be called, in any thread, when a row may not be blocked any more."""

    def settle(self, rows: Collection[Row]) -> bool:
        """Before a step of some of `rows`, which are all that take turns, or before there is none:
        then the network is to be as it was loaded. True: batches have to be made anew."""
        return False

    def batched(self, batch: Batch, network: Network) -> None:
        """`batch` was made. What its forwards compute with may be put `beside` it now."""

    def prepare(self, batch: Batch, cost: StepCost) -> None:
        """The batch takes a step, in whichever way: what its rows compute in it is decided now."""

    def applies(self, batch: Batch, cost: StepCost, lonely: bool) -> bool:
        """Whether this way takes the step. `lonely`: the batch's one row has the network to itself,
        and nobody waits."""
        return False

    def predict(
        self, network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, time: StepTime
    ) -> torch.Tensor:
        """The answers (F, C, H, W) for the batch's images, to what the network is fed of its rows,
        x (B, C, H, W) at times t (B,). Raises `Interrupted`."""
        raise NotImplementedError

    def observe(self, batch: Batch, work: StepWork, seconds: float) -> None:
        """A step of `batch`, in whichever way, was `seconds` of work on this network; its rows are
        not told yet."""

    def stepped(self, row: Row, network: Network) -> None:
        """`row` has taken a step, in whichever way."""

    def statistics(self) -> Mapping[str, float]:
        """Counts since the start, by the names that metrics and benchmarks know. Called in any
        thread."""
        return {}


class WholeNetwork(Predictor):
    """All images in one forward."""

    def applies(self, batch: Batch, cost: StepCost, lonely: bool) -> bool:
        return True

    def predict(
        self, network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, time: StepTime
    ) -> torch.Tensor:
        time.representative = all(row.computed_in_full for row in batch.rows)
        return whole(network, batch, x, t)


def first_that_applies(
    predictors: Sequence[Predictor], batch: Batch, cost: StepCost, lonely: bool
) -> Predictor:
    for predictor in predictors:
        predictor.prepare(batch, cost)
    return next(one for one in predictors if one.applies(batch, cost, lonely))
