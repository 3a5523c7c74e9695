"""Samplers as numbers: every one we serve is a linear update, so a batch may mix them freely.

With x = alpha·x0 + sigma·noise before a step and x' = alpha'·x0 + sigma'·noise after it, following
the predicted x0 and noise gives `x' = (sigma'/sigma)·x + (alpha' - alpha·sigma'/sigma)·x0`. That
line is DDIM (Song et al. 2020, eq. 12), Euler (Karras et al. 2022, alg. 1), flow-match Euler, and
first-order DPM-Solver++ alike; they differ in alpha and sigma. What the others add to it is in
`updates.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from services.denoiser.sampling.noise_schedule import Array, read_schedule
from services.denoiser.sampling.schedule_part import WHOLE, SchedulePart
from services.denoiser.sampling.updates import denoiser, update
from shared.errors import InvalidRequest
from shared.models.samplers.samplers import prediction_of, require_sampler


@dataclass(frozen=True, eq=False)
class StepTable:
    """`x0 = p·x + q·out;  x' = r·x + u·x0 + v·x0_prev + n·noise`, where `out` is the network's
    answer to `c_in·x` at time `t`. One entry per step, read-only. The first x is `init_scale` times
    unit noise, or `first` says how much of an image it is, and how much of noise; after each step
    that image would be `a·image + s·noise`, as far as a mask keeps it."""

    sampler: str
    init_scale: float
    first: tuple[float, float]
    draws: bool
    """Whether every step draws noise, even where n is 0."""
    t: Array
    c_in: Array
    p: Array
    q: Array
    r: Array
    u: Array
    v: Array
    n: Array
    a: Array
    s: Array

    def __post_init__(self) -> None:
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                column.flags.writeable = False

    @property
    def steps(self) -> int:
        return len(self.t)

    @cached_property
    def coefficients(self) -> torch.Tensor:
        """(steps, 10) float32: t, c_in, p, q, r, u, v, n, a, s."""
        asked = (self.t, self.c_in, self.p, self.q)
        columns = (*asked, self.r, self.u, self.v, self.n, self.a, self.s)
        return torch.from_numpy(np.stack(columns, axis=1)).float()

    def __repr__(self) -> str:
        return f"<StepTable {self.sampler} {self.steps} steps>"


def build_step_table(
    scheduler_config: Mapping[str, Any],
    sampler: str,
    steps: int,
    tokens: int | None = None,
    even_sigmas: bool = False,
    start: int = 0,
    part: SchedulePart = WHOLE,
) -> StepTable:
    """The table of `sampler` for a model with this `scheduler_config.json`.

    It has `steps` steps, or as many as the diffusers scheduler makes of that number, but for the
    first `start` and those outside `part`. `tokens` and `even_sigmas`: see `read_schedule`. Raises
    `InvalidRequest` naming `sampler`, `steps`, `start` or `end`."""
    config = json.dumps(dict(scheduler_config), sort_keys=True)
    return _build(config, sampler, steps, tokens, even_sigmas, start, part)


@lru_cache(maxsize=256)
def _build(
    scheduler_config: str,
    sampler: str,
    steps: int,
    tokens: int | None,
    even_sigmas: bool,
    start: int,
    part: SchedulePart,
) -> StepTable:
    config = json.loads(scheduler_config)
    entry = require_sampler(config, sampler)
    schedule = read_schedule(config, entry, steps, tokens, even_sigmas, start, part)
    prediction = prediction_of(config)
    assert prediction is not None, "require_sampler has checked it"
    with np.errstate(divide="ignore", invalid="ignore"):
        c_in, p, q = denoiser(prediction, schedule)
        r, u, v, n = update(entry, schedule)
    table = StepTable(
        sampler=sampler,
        init_scale=schedule.init_scale,
        first=(float(schedule.alpha[0]), float(schedule.sigma[0])),
        draws=entry.draws,
        t=schedule.t,
        c_in=c_in,
        p=p,
        q=q,
        r=r,
        u=u,
        v=v,
        n=n,
        # Where the next step begins, which for DDIM need not be where this one goes.
        a=np.append(schedule.alpha[1:], 1.0),
        s=np.append(schedule.sigma[1:], 0.0),
    )
    if not torch.isfinite(table.coefficients).all():
        raise InvalidRequest("steps", steps, f"fewer, for sampler {sampler}")
    return table
