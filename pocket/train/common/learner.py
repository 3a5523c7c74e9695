"""The weights of one training, their average, and the optimiser, shared between workers."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pocket.train.common.run import Run, set_rate

EMA, EMA_EVERY = 0.999, 4  # per step; applied every so many steps, to the same effect


class Learner:
    """A model under training. Every worker holds an equal one, for all see the same gradients."""

    def __init__(self, run: Run, model: nn.Module, rate: float) -> None:
        self.run = run
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self._weights, self._gradient = flatten(model)
        self._average_weights, _ = flatten(self.average)
        self._optimizer = torch.optim.AdamW(
            [self._weights], rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True
        )

    def learn(self, step: int, loss: Tensor, rate: float) -> bool:
        """One step down `loss`. Returns whether any worker is out of time."""
        self._gradient.zero_()
        torch.autograd.backward(loss)
        out_of_time = _share(self.run, self._gradient)
        nn.utils.clip_grad_norm_([self._weights], 1.0)
        set_rate(self._optimizer, rate)
        self._optimizer.step()
        if step % EMA_EVERY == 0:
            decay = min(EMA, (1 + step) / (10 + step)) ** EMA_EVERY
            self._average_weights.data.lerp_(self._weights.data, 1 - decay)
        return out_of_time

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds after `step` steps."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": step,
        }

    def restore(self, state: dict[str, Any] | None) -> int:
        """Go on from a checkpoint, if there is one. Returns how many steps are done."""
        if not state:
            return 0
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def flatten(model: nn.Module) -> tuple[nn.Parameter, Tensor]:
    """Lay all of a model's weights, and their gradients, into one vector each.

    Hundreds of small tensors cost the optimiser more than the arithmetic does.
    """
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in model.parameters()]))
    flat.grad = gradient = torch.zeros_like(flat)
    start = 0
    for p in model.parameters():
        end = start + p.numel()
        p.data, p.grad = flat.data[start:end].view_as(p), gradient[start:end].view_as(p)
        start = end
    return flat, gradient


def _share(run: Run, gradient: Tensor) -> bool:
    """Average the gradient over the workers. Returns whether any of them is out of time."""
    if run.world == 1:
        return run.out_of_time()
    late = torch.tensor(float(run.out_of_time()))
    torch.distributed.all_reduce(gradient)
    torch.distributed.all_reduce(late)
    gradient /= run.world
    return bool(late)
