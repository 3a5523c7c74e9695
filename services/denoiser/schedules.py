"""Noise schedules, read off the diffusers schedulers so that theirs and ours cannot differ."""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.errors import InvalidRequest, Misconfigured
from shared.samplers import Sampler

Array = npt.NDArray[np.float64]

_MODULES: Final = {
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "DDIMScheduler": "scheduling_ddim",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "FlowMatchEulerDiscreteScheduler": "scheduling_flow_match_euler_discrete",
}


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Per step, where a row is and where it goes: x = alpha·x0 + sigma·noise, before and after.

    All arrays have one entry per step. `init_scale` is the deviation of the initial latents, `t`
    the network's time. `first_order_from` is the step at which a multistep sampler goes back to its
    first-order form."""

    t: Array
    alpha: Array
    sigma: Array
    alpha_next: Array
    sigma_next: Array
    init_scale: float
    first_order_from: int

    def without(self, start: int) -> "Schedule":
        """But for the first `start` steps: a multistep sampler knows nothing of them."""
        return replace(
            self,
            t=self.t[start:],
            alpha=self.alpha[start:],
            sigma=self.sigma[start:],
            alpha_next=self.alpha_next[start:],
            sigma_next=self.sigma_next[start:],
            first_order_from=self.first_order_from - start,
        )


def read_schedule(
    scheduler_config: Mapping[str, Any],
    sampler: Sampler,
    steps: int,
    tokens: int | None = None,
    even_sigmas: bool = False,
    start: int = 0,
) -> Schedule:
    """The schedule that `sampler` follows in `steps` steps on a model with this scheduler config.

    `tokens` is the length of the image as the network's sequence; only models with dynamic shifting
    need it. `even_sigmas`: flow samplers go from noise level 1 in even steps to 1/steps, before any
    shift, as diffusers' pipelines of transformers have it, and not to the level that the config
    ends at. The first `start` steps are left out, as diffusers' image-to-image pipelines have it.
    Raises `InvalidRequest` naming `steps`, or `Misconfigured` if `tokens` is missing."""
    scheduler = make_scheduler(scheduler_config, sampler)
    most = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise InvalidRequest("steps", steps, f"1 to {most}")
    settings = _shift(scheduler.config, tokens)
    if even_sigmas and sampler.scheduler == "FlowMatchEulerDiscreteScheduler":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), **settings)
    else:
        scheduler.set_timesteps(steps, **settings)
    if start >= len(scheduler.timesteps):
        raise InvalidRequest("steps", steps, f"more, since the first {start} of them are left out")
    ddim = sampler.scheduler == "DDIMScheduler"
    schedule = _ddim(scheduler, steps) if ddim else _from_sigmas(scheduler, sampler)
    return schedule.without(start)


def make_scheduler(scheduler_config: Mapping[str, Any], sampler: Sampler) -> Any:
    """The diffusers scheduler that `sampler` stands for, on a model with this scheduler config."""
    module = importlib.import_module(f"diffusers.schedulers.{_MODULES[sampler.scheduler]}")
    logger = logging.getLogger("diffusers.configuration_utils")
    level = logger.level
    # A config saved by one scheduler class always holds settings that another does not know.
    logger.setLevel(logging.ERROR)
    settings = dict(sampler.settings)
    if settings.get("use_flow_sigmas"):
        # What flow schedulers call `shift`, without which its levels would be another model's.
        settings["flow_shift"] = scheduler_config.get("shift", 1.0)
    try:
        return getattr(module, sampler.scheduler).from_config(dict(scheduler_config), **settings)
    finally:
        logger.setLevel(level)


def _from_sigmas(scheduler: Any, sampler: Sampler) -> Schedule:
    sigmas = scheduler.sigmas.double().numpy()
    alphas = np.ones_like(sigmas)
    if "flow" in sampler.predictions:
        alphas = 1.0 - sigmas
    elif sampler.scheduler == "DPMSolverMultistepScheduler":
        alphas = 1.0 / np.sqrt(sigmas**2 + 1.0)
        sigmas = sigmas * alphas
    steps = len(
        scheduler.timesteps
    )  # log-linear interpolation leaves sigmas that are never reached
    return Schedule(
        t=scheduler.timesteps.double().numpy(),
        alpha=alphas[:steps],
        sigma=sigmas[:steps],
        alpha_next=alphas[1 : steps + 1],
        sigma_next=sigmas[1 : steps + 1],
        init_scale=float(getattr(scheduler, "init_noise_sigma", 1.0)),
        first_order_from=_first_order_from(scheduler),
    )


def _ddim(scheduler: Any, steps: int) -> Schedule:
    """DDIM goes `num_train_timesteps // steps` back from each t, whatever the next t is."""
    timesteps = scheduler.timesteps.numpy()
    signal = scheduler.alphas_cumprod.double().numpy()
    back = timesteps - int(scheduler.config.num_train_timesteps) // steps
    now = signal[timesteps]
    after = np.where(back >= 0, signal[back], float(scheduler.final_alpha_cumprod))
    return Schedule(
        t=timesteps.astype(np.float64),
        alpha=np.sqrt(now),
        sigma=np.sqrt(1.0 - now),
        alpha_next=np.sqrt(after),
        sigma_next=np.sqrt(1.0 - after),
        init_scale=float(scheduler.init_noise_sigma),
        first_order_from=steps,
    )


def _first_order_from(scheduler: Any) -> int:
    """DPM-Solver++ ends in a first-order step where its second-order one would be unstable."""
    steps, config = len(scheduler.timesteps), scheduler.config
    few = bool(config.get("lower_order_final")) and steps < 15
    ends = few or bool(config.get("euler_at_final")) or config.get("final_sigmas_type") == "zero"
    return steps - 1 if ends else steps


def _shift(config: Any, tokens: int | None) -> dict[str, float]:
    """Flow models with dynamic shifting spend more steps on noise the larger the image is; `mu` is
    linear in the number of tokens (Esser et al. 2024, arXiv 2403.03206, §5.3.2)."""
    if not config.get("use_dynamic_shifting"):
        return {}
    if tokens is None:
        raise Misconfigured("use_dynamic_shifting: this model's schedule needs the token count")
    span = config.max_image_seq_len - config.base_image_seq_len
    slope = (config.max_shift - config.base_shift) / span
    return {"mu": config.base_shift + slope * (tokens - config.base_image_seq_len)}
