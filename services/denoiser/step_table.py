"""Samplers as numbers: every one we serve is a linear update, so a batch may mix them freely.

With x = alpha·x0 + sigma·noise before a step and x' = alpha'·x0 + sigma'·noise after it, following
the predicted x0 and noise gives `x' = (sigma'/sigma)·x + (alpha' - alpha·sigma'/sigma)·x0`. That
line is DDIM (Song et al. 2020, eq. 12), Euler (Karras et al. 2022, alg. 1), flow-match Euler, and
first-order DPM-Solver++ alike; they differ in alpha and sigma. DPM-Solver++ 2M (Lu et al. 2022,
alg. 2) also looks at the previous x0; ancestral Euler steps to less noise and adds fresh noise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from services.denoiser.schedules import Array, Schedule, read_schedule
from shared.errors import InvalidRequest
from shared.samplers import Prediction, Sampler, prediction_of, require_sampler


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
) -> StepTable:
    """The table of `sampler` for a model with this `scheduler_config.json`.

    It has `steps` steps, or as many as the diffusers scheduler makes of that number, but for the
    first `start`. `tokens` and `even_sigmas`: see `read_schedule`. Raises `InvalidRequest` naming
    `sampler` or `steps`."""
    config = json.dumps(dict(scheduler_config), sort_keys=True)
    return _build(config, sampler, steps, tokens, even_sigmas, start)


@lru_cache(maxsize=256)
def _build(
    scheduler_config: str,
    sampler: str,
    steps: int,
    tokens: int | None,
    even_sigmas: bool,
    start: int,
) -> StepTable:
    config = json.loads(scheduler_config)
    entry = require_sampler(config, sampler)
    schedule = read_schedule(config, entry, steps, tokens, even_sigmas, start)
    prediction = prediction_of(config)
    assert prediction is not None, "require_sampler has checked it"
    with np.errstate(divide="ignore", invalid="ignore"):
        c_in, p, q = _denoiser(prediction, schedule)
        r, u, v, n = _update(entry, schedule)
    table = StepTable(
        sampler=sampler,
        init_scale=schedule.init_scale,
        first=(float(schedule.alpha[0]), float(schedule.sigma[0])),
        draws=entry.scheduler == "EulerAncestralDiscreteScheduler",
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


def _denoiser(prediction: Prediction, s: Schedule) -> tuple[Array, Array, Array]:
    """c_in, p, q: how the network is asked, and how its answer becomes x0."""
    norm = np.sqrt(s.alpha**2 + s.sigma**2)
    match prediction:
        case "epsilon":
            return 1.0 / norm, 1.0 / s.alpha, -s.sigma / s.alpha
        case "v_prediction":
            return 1.0 / norm, s.alpha / norm**2, -s.sigma / norm
        case "flow":
            return np.ones_like(norm), np.ones_like(norm), -s.sigma


def _update(sampler: Sampler, s: Schedule) -> tuple[Array, Array, Array, Array]:
    """r, u, v, n: how x and x0 become the next x."""
    match sampler.scheduler:
        case "EulerAncestralDiscreteScheduler":
            return _ancestral(s)
        case "DPMSolverMultistepScheduler":
            return _multistep(s)
        case _:
            return _first_order(s, s.sigma_next)


def _first_order(s: Schedule, sigma_next: Array) -> tuple[Array, Array, Array, Array]:
    r = sigma_next / s.sigma
    zero = np.zeros_like(r)
    return r, s.alpha_next - s.alpha * r, zero, zero


def _ancestral(s: Schedule) -> tuple[Array, Array, Array, Array]:
    """k-diffusion's `get_ancestral_step` with eta = 1: sigma'² = sigma_down² + sigma_up²."""
    up = np.sqrt(s.sigma_next**2 * (s.sigma**2 - s.sigma_next**2) / s.sigma**2)
    down = np.sqrt(s.sigma_next**2 - up**2)
    r, u, v, _ = _first_order(s, down)
    return r, u, v, up


def _multistep(s: Schedule) -> tuple[Array, Array, Array, Array]:
    """DPM-Solver++ 2M, midpoint: x0 is extrapolated to x0 + (h/2h_prev)·(x0 - x0_prev), h being a
    step's length in lambda = log(alpha/sigma)."""
    r, u, v, n = _first_order(s, s.sigma_next)
    lambda_now = np.log(s.alpha / s.sigma)
    h = np.diff(lambda_now)
    second = slice(1, s.first_order_from)
    h_next = np.log(s.alpha_next / s.sigma_next)[second] - lambda_now[second]
    extra = u[second] * h_next / (2.0 * h[: len(h_next)])
    u[second] += extra
    v[second] -= extra
    return r, u, v, n
