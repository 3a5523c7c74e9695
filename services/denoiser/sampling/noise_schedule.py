"""Noise schedules, read off the diffusers schedulers so that theirs and ours cannot differ."""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from services.denoiser.sampling.schedule_part import WHOLE, SchedulePart
from shared.errors import InvalidRequest, Misconfigured
from shared.models.samplers.samplers import Sampler

Array = npt.NDArray[np.float64]


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
    sigma_data: float = 1.0
    """Deviation of clean images, as a network that is preconditioned takes it to be."""
    timestep_scaling: float = 1.0
    """Of a consistency model: the times its boundary condition is stated for are this much more."""

    def within(self, start: int, stop: int) -> "Schedule":
        """The steps from `start` up to `stop` alone: a multistep sampler knows nothing of those
        before, and goes as if others followed."""
        return replace(
            self,
            t=self.t[start:stop],
            alpha=self.alpha[start:stop],
            sigma=self.sigma[start:stop],
            alpha_next=self.alpha_next[start:stop],
            sigma_next=self.sigma_next[start:stop],
            first_order_from=self.first_order_from - start,
        )


def read_schedule(
    scheduler_config: Mapping[str, Any],
    sampler: Sampler,
    steps: int,
    tokens: int | None = None,
    even_sigmas: bool = False,
    start: int = 0,
    part: SchedulePart = WHOLE,
) -> Schedule:
    """The schedule that `sampler` follows in `steps` steps on a model with this scheduler config.

    `tokens` is the length of the image as the network's sequence; only models with dynamic shifting
    need it. `even_sigmas`: flow samplers go from noise level 1 in even steps to 1/steps, before any
    shift, as diffusers' pipelines of transformers have it, and not to the level that the config
    ends at. The first `start` of `steps` are left out, as diffusers' image-to-image pipelines have
    it, and those outside `part`. Raises `InvalidRequest` naming `steps`, `start` or `end`, or
    `Misconfigured` if `tokens` is missing."""
    scheduler = make_scheduler(scheduler_config, sampler)
    most = _most_steps(scheduler.config, sampler)
    if not 1 <= steps <= most:
        raise InvalidRequest("steps", steps, f"1 to {most}")
    settings = _shift(scheduler.config, tokens)
    if even_sigmas and sampler.kind.trained == "flow":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), **settings)
    else:
        scheduler.set_timesteps(steps, **settings)
    start *= sampler.order
    if start >= len(scheduler.timesteps):
        raise InvalidRequest("steps", steps, f"more, since the first {start} of them are left out")
    first, stop = 0, len(scheduler.timesteps)
    if part != WHOLE:
        first, stop = part.of(scheduler.timesteps.tolist(), _times(scheduler, part), sampler.order)
    return _read(scheduler, sampler, steps).within(max(start, first), stop)


def _times(scheduler: Any, part: SchedulePart) -> int:
    """How many a model was trained at. Raises `InvalidRequest` if steps are not told by them."""
    if "sigma_data" in scheduler.config:
        allowed = "all of the schedule, for this model's steps are not told by training times"
        name, share = ("start", part.start) if part.start else ("end", part.end)
        raise InvalidRequest(name, share, allowed)
    return int(scheduler.config.num_train_timesteps)


def _read(scheduler: Any, sampler: Sampler, steps: int) -> Schedule:
    match sampler.kind.levels:
        case "ddim":
            return _ddim(scheduler, steps)
        case "distilled":
            return _distilled(scheduler, sampler)
        case "sigmas":
            return _from_sigmas(scheduler, sampler)


def _most_steps(config: Any, sampler: Sampler) -> int:
    """Consistency models step on the times that they were distilled at."""
    if sampler.kind.levels == "distilled":
        return int(config.original_inference_steps or config.num_train_timesteps)
    return int(config.num_train_timesteps)


def make_scheduler(scheduler_config: Mapping[str, Any], sampler: Sampler) -> Any:
    """The diffusers scheduler that `sampler` stands for, on a model with this scheduler config."""
    module = importlib.import_module(f"diffusers.schedulers.{sampler.kind.module}")
    logger = logging.getLogger("diffusers.configuration_utils")
    level = logger.level
    # A config saved by one scheduler class always holds settings that another does not know.
    logger.setLevel(logging.ERROR)
    settings = dict(sampler.settings)
    if "flow" in sampler.predictions:
        # One class calls `flow_shift` what the other calls `shift`: without it the levels would be
        # another model's.
        names = ("shift", "flow_shift")
        own, other = names if sampler.kind.trained == "flow" else names[::-1]
        settings[own] = scheduler_config.get(own, scheduler_config.get(other, 1.0))
    try:
        return getattr(module, sampler.scheduler).from_config(dict(scheduler_config), **settings)
    finally:
        logger.setLevel(level)


def _from_sigmas(scheduler: Any, sampler: Sampler) -> Schedule:
    sigmas = scheduler.sigmas.double().numpy()
    alphas = np.ones_like(sigmas)
    if "flow" in sampler.predictions:
        alphas = 1.0 - sigmas
    elif sampler.kind.update == "multistep" and sampler.kind.trained == "variance_preserving":
        alphas = 1.0 / np.sqrt(sigmas**2 + 1.0)
        sigmas = sigmas * alphas
    steps = len(scheduler.timesteps)  # log-linear interpolation leaves sigmas never reached
    return Schedule(
        t=scheduler.timesteps.double().numpy(),
        alpha=alphas[:steps],
        sigma=sigmas[:steps],
        alpha_next=alphas[1 : steps + 1],
        sigma_next=sigmas[1 : steps + 1],
        init_scale=float(getattr(scheduler, "init_noise_sigma", 1.0)),
        first_order_from=_first_order_from(scheduler),
        sigma_data=float(scheduler.config.get("sigma_data", 1.0)),
    )


def _ddim(scheduler: Any, steps: int) -> Schedule:
    """DDIM goes `num_train_timesteps // steps` back from each t, whatever the next t is."""
    timesteps = scheduler.timesteps.numpy()
    signal = scheduler.alphas_cumprod.double().numpy()
    back = timesteps - int(scheduler.config.num_train_timesteps) // steps
    now = signal[timesteps]
    after = np.where(back >= 0, signal[back], float(scheduler.final_alpha_cumprod))
    return _of_signal(scheduler, timesteps, now, after)


def _distilled(scheduler: Any, sampler: Sampler) -> Schedule:
    """Each step goes to the next of the times; the last one to the clean image, or (TCD) to the
    least noise that there is."""
    timesteps = scheduler.timesteps.numpy()
    signal = scheduler.alphas_cumprod.double().numpy()
    now = signal[timesteps]
    last = 1.0 if sampler.kind.update == "consistency" else signal[0]
    after = np.append(now[1:], last)
    schedule = _of_signal(scheduler, timesteps, now, after)
    return replace(schedule, timestep_scaling=float(scheduler.config.timestep_scaling))


def _of_signal(scheduler: Any, timesteps: Any, now: Any, after: Any) -> Schedule:
    """From shares of the signal's variance, `now` at each of the times and `after` each step."""
    return Schedule(
        t=timesteps.astype(np.float64),
        alpha=np.sqrt(now),
        sigma=np.sqrt(1.0 - now),
        alpha_next=np.sqrt(after),
        sigma_next=np.sqrt(1.0 - after),
        init_scale=float(scheduler.init_noise_sigma),
        first_order_from=len(timesteps),
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
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return {"mu": low + (high - low) / (most - least) * (tokens - least)}
