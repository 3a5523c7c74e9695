"""Latent parallelism: the halves of guidance on two denoisers (SwiftDiffusion, arXiv 2407.02031).

A row that is alone with its denoiser has its unconditional half computed by another one that has
nothing to do, while it computes the other half itself. Each step is asked for anew: it ends as soon
as either has other work. What does not come in time is computed here, so the image is the same.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import median_low
from typing import Final, Protocol

import torch

from services.denoiser.forward.predictors import Predictor, StepTime
from services.denoiser.forward.step import Batch, settle
from services.denoiser.rows.row import Row
from shared.errors import DarkroomError
from shared.models.contracts.network import Conditioning, Network
from shared.policy.row_view import StepCost
from shared.policy.step_work import StepWork, total

LEAST_WAIT: Final = 0.02
"""Seconds that an answer is waited for in any case; else as long again as the own half took."""
PAUSE: Final = 1.0
"""Seconds until somebody is asked again, after nobody had time."""
PRICE: Final = 0.02
"""Share of the time that finding out again that sharing is no gain may cost."""
SAMPLES: Final = 5
"""Steps of which the median is compared,"""
LEAST_SAMPLES: Final = 3
"""and how many there have to be: a slow one says nothing."""
COMPARED: Final = 50
"""One step of so many is not shared, so that it is known what it takes otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class CfgBranch:
    """One image of a step: x (1, C, H, W) at time t, and its conditioning."""

    x: torch.Tensor
    t: float
    conditioning: Conditioning

    @property
    def work(self) -> StepWork:
        return half_of(self.x)

    @torch.inference_mode()
    def __call__(self, network: Network) -> torch.Tensor:
        """What `network` says of it, (1, C, H, W) on the CPU."""
        device, dtype = network.device, network.dtype
        x, t = self.x.to(device, dtype), torch.tensor([self.t], device=device)
        return network.predict(x, t, self.conditioning.to(device, dtype)).cpu()


class AskBranch(Protocol):
    def __call__(self, row: Row, x: torch.Tensor) -> Future[torch.Tensor | None]:
        """The network's answer to the unconditional half of the next step of `row`, which is fed x
        (1, C, H, W); None if nobody has time. Arrives in another thread. Raises `ArenaFull`."""
        ...


class CfgParallel(Predictor):
    """For the thread of the step loop."""

    def __init__(
        self,
        ask: AskBranch,
        clock: Callable[[], float] = time.monotonic,
        given: Callable[[], int] = lambda: 0,
    ) -> None:
        """`given`: how many halves were computed for others."""
        self._ask, self._clock, self._given = ask, clock, given
        self._not_before = 0.0
        self._taken: dict[int, deque[float]] = {}
        """Seconds of the last steps that were shared, or were to be, by tokens."""
        self._considered = 0
        self.steps = 0
        """That were shared."""

    def applies(self, batch: Batch, cost: StepCost, lonely: bool) -> bool:
        seconds = cost.predict(total(row.work for row in batch.rows))
        return lonely and cost.known and self.pays(batch, seconds)

    def statistics(self) -> Mapping[str, float]:
        return {"shared_steps": self.steps, "halves": self._given()}

    def pays(self, batch: Batch, seconds: float) -> bool:
        """Whether to try and share this step, which takes `seconds` otherwise."""
        tokens, now = batch.rows[0].shape_key.tokens, self._clock()
        if now < self._not_before or not can_be_shared(batch):
            return False
        self._considered += 1
        if self._considered % COMPARED == 0:
            return False
        taken = self._taken.get(tokens, ())
        if len(taken) < LEAST_SAMPLES or median_low(taken) < seconds:
            return True
        lost = sum(taken) - len(taken) * seconds
        self._not_before = now + lost / PRICE
        del self._taken[tokens]
        return False

    def predict(
        self, network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, time: StepTime
    ) -> torch.Tensor:
        row, began = batch.rows[0], self._clock()
        answer = self._asked(row, x)
        asked = self._clock()
        cond = _half(network, batch, x, t, 1)
        settle(x.device)
        took = self._clock() - asked
        uncond, refused = self._answered(answer, max(LEAST_WAIT, took))
        if uncond is None:
            self._not_before = self._clock() + PAUSE
            uncond = _half(network, batch, x, t, 0)
            settle(x.device)
        else:
            self.steps += 1
            time.representative = False
            time.part = half_of(x), took
        if not refused:
            self._measured(row.shape_key.tokens, self._clock() - began)
        return torch.cat([uncond.to(cond), cond])

    def _asked(self, row: Row, x: torch.Tensor) -> Future[torch.Tensor | None] | None:
        """None: there is not even room for the question."""
        try:
            return self._ask(row, x)
        except DarkroomError:
            return None

    def _answered(
        self, answer: Future[torch.Tensor | None] | None, seconds: float
    ) -> tuple[torch.Tensor | None, bool]:
        """What came within `seconds`, and whether nobody had time: that costs nothing, while an
        answer that comes late costs more than none."""
        if answer is None:
            return None, True
        try:
            uncond = answer.result(seconds)
        except TimeoutError:
            return None, False
        except Exception:  # whatever it is, we can do without
            return None, True
        return uncond, uncond is None

    def _measured(self, tokens: int, seconds: float) -> None:
        self._taken.setdefault(tokens, deque(maxlen=SAMPLES)).append(seconds)


def can_be_shared(batch: Batch) -> bool:
    """One guided row, and all that its network computes with is at hand elsewhere."""
    row = batch.rows[0]
    guided = row.uncond is not None and bool(row.texts)
    return len(batch.rows) == 1 and guided and not row.local


def half_of(x: torch.Tensor) -> StepWork:
    """What it takes to compute an image of x (1, C, H, W)."""
    return StepWork.full(1, x.shape[-2] * x.shape[-1])


def _half(
    network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, which: int
) -> torch.Tensor:
    """The answer to the batch's unconditional (0) or conditional (1) image."""
    return network.predict(x, t, batch.conditioning.images(slice(which, which + 1)))
