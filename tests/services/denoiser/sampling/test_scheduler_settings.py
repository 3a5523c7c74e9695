"""Every setting of every scheduler class is drawn as diffusers draws it, or refused by its name: a
model never looks other than its files ask for."""

import inspect
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from services.denoiser.sampling.step_table import build_step_table
from shared.errors import DarkroomError
from shared.models.samplers.samplers import own_sampler, refuse_unreadable
from shared.models.samplers.schedulers import SCHEDULERS
from tests.services.denoiser.sampling.test_step_table import SHAPE, network, with_table

STEPS = 5
TOKENS = 1024
BETAS = np.linspace(0.001, 0.02, 1000).tolist()
PLAIN: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": False},
    "EDMEulerScheduler": {"prediction_type": "v_prediction"},
    "FlowMatchEulerDiscreteScheduler": {"shift": 1.5},
}
OTHERS: dict[str, list[Any]] = {
    "algorithm_type": ["dpmsolver", "sde-dpmsolver", "sde-dpmsolver++", "x"],
    "base_image_seq_len": [128],
    "base_shift": [0.7, "x"],
    "beta_end": [0.03, None, "x"],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "exp", "sigmoid", "x"],
    "beta_start": [0.002, "x"],
    "clip_sample": [True, False],
    "clip_sample_range": [2.0],
    "dynamic_thresholding_ratio": [0.9],
    "euler_at_final": [True],
    "final_sigmas_type": ["zero", "sigma_min", "x"],
    "flow_shift": [3.0],
    "interpolation_type": ["linear", "log_linear", "x"],
    "invert_sigmas": [True],
    "lambda_min_clipped": [-3.0, -5.1],
    "lower_order_final": [False],
    "max_image_seq_len": [2048],
    "max_shift": [1.5],
    "num_train_timesteps": [500, 0, "x", 1000.0],
    "original_inference_steps": [20, 4, None],
    "prediction_type": ["epsilon", "v_prediction", "sample", "flow_prediction", "x"],
    "rescale_betas_zero_snr": [True],
    "rho": [5.0],
    "sample_max_value": [2.0],
    "set_alpha_to_one": [False],
    "shift": [1.0, 3.0, "x"],
    "shift_terminal": [0.1],
    "sigma_data": [1.0],
    "sigma_max": [50.0],
    "sigma_min": [0.01],
    "sigma_schedule": ["karras", "exponential", "x"],
    "solver_order": [1, 2, 3],
    "solver_type": ["heun", "bh1", "x"],
    "steps_offset": [0, 1, 3],
    "stochastic_sampling": [True],
    "thresholding": [True],
    "time_shift_type": ["linear", "exponential", "x"],
    "timestep_scaling": [1.0],
    "timestep_spacing": ["linspace", "leading", "trailing", "x"],
    "timestep_type": ["continuous", "x"],
    "trained_betas": [BETAS, BETAS[:500]],
    "use_beta_sigmas": [True],
    "use_dynamic_shifting": [True],
    "use_exponential_sigmas": [True],
    "use_flow_sigmas": [True],
    "use_karras_sigmas": [True],
    "use_lu_lambdas": [True],
    "variance_type": ["learned", "fixed_small"],
}


def configs(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """That differ from the plain one in one setting, which is named."""
    plain = {"_class_name": kind, **PLAIN.get(kind, {})}
    for name in inspect.signature(getattr(diffusers, kind).__init__).parameters:
        for value in OTHERS.get(name, []):
            yield name, plain | {name: value}
            if name != "use_dynamic_shifting" and "shift" in name and kind.startswith("Flow"):
                yield name, plain | {"use_dynamic_shifting": True, name: value}


def with_diffusers(config: dict[str, Any]) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(3)
    scheduler: Any = getattr(diffusers, config["_class_name"]).from_config(config)
    flow = config["_class_name"].startswith("FlowMatch")
    how: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting"):
        own = scheduler.config
        bounds = own.get("base_image_seq_len", 256), own.get("max_image_seq_len", 4096)
        shifts = own.get("base_shift", 0.5), own.get("max_shift", 1.15)
        how = {"mu": float(np.interp(TOKENS, bounds, shifts))}
    scheduler.set_timesteps(STEPS, **how)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    x = torch.randn(SHAPE, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    known = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": generator} if "generator" in known else {}
    if config["_class_name"] == "TCDScheduler":
        extra["eta"] = 0.0  # as diffusers' pipeline has it by default
    for t in scheduler.timesteps:
        fed = x if flow else scheduler.scale_model_input(x, t)
        x = scheduler.step(network(fed, t), t, x, **extra).prev_sample
    return x


def outcome(name: str, config: dict[str, Any]) -> str:
    """Empty if it is as diffusers draws it, or refused by name; else what is wrong."""
    try:
        refuse_unreadable(config)
        sampler = own_sampler(config)
        table = build_step_table(config, sampler, STEPS, tokens=TOKENS)
    except DarkroomError as error:
        return "" if name in error.message or "steps" in error.message else error.message
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    try:
        expected = with_diffusers(config)
    except Exception as error:
        return f"diffusers refuses it: {error}"
    apart = float((with_table(table, 3) - expected).abs().max() / expected.abs().max())
    return "" if apart < 2e-3 else f"{sampler} is {apart:.3g} off"


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_each_setting_is_drawn_as_diffusers_does_or_refused_by_name(kind: str) -> None:
    wrong = {
        f"{name}={str(config[name])[:30]}": problem
        for name, config in configs(kind)
        if (problem := outcome(name, config))
    }
    assert wrong == {}


def test_every_setting_has_another_value_here() -> None:
    for kind in SCHEDULERS:
        known = set(inspect.signature(getattr(diffusers, kind).__init__).parameters) - {"self"}
        assert known <= set(OTHERS), kind
