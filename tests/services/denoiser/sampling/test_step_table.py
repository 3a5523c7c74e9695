"""Every step table against the diffusers scheduler of the same name, over whole schedules."""

from typing import Any

import pytest
import torch

from services.denoiser.sampling.noise_schedule import make_scheduler
from services.denoiser.sampling.step_table import StepTable, build_step_table
from shared.errors import InvalidRequest, Misconfigured
from shared.models.samplers.samplers import SAMPLERS, samplers_for

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
EDM = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
}
NOISE_SAMPLERS = [name for name in SAMPLERS if not name.startswith(("flow_", "edm_"))]
FLOW_SAMPLERS = [name for name in SAMPLERS if name.startswith("flow_")]
EDM_SAMPLERS = [name for name in SAMPLERS if name.startswith("edm_")]
SHAPE = (1, 4, 8, 8)


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Nonlinear in x and in t, of the size of a real network's answer."""
    return torch.tanh(0.7 * x + torch.sin(t.float() / 130.0)) + 0.2 * torch.cos(3.0 * x)


def with_diffusers(config: dict[str, Any], sampler: str, steps: int, seed: int) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    scheduler = make_scheduler(config, SAMPLERS[sampler])
    tokens = {"mu": 0.83} if config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(steps, **tokens)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    x = torch.randn(SHAPE, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    extra: dict[str, Any] = {"generator": generator} if SAMPLERS[sampler].draws else {}
    if sampler == "tcd":
        extra["eta"] = 0.0  # as diffusers' pipeline has it by default
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if "flow" not in sampler else x
        x = scheduler.step(network(scaled, t), t, x, **extra).prev_sample
    return x


def with_table(table: StepTable, seed: int) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    x = torch.randn(SHAPE, generator=generator) * table.init_scale
    x0_prev = torch.zeros(SHAPE)
    for t, c_in, p, q, r, u, v, n, _, _ in table.coefficients:
        x0 = p * x + q * network(c_in * x, t)
        noise = torch.randn(SHAPE, generator=generator) if table.draws else torch.zeros(SHAPE)
        x, x0_prev = r * x + u * x0 + v * x0_prev + n * noise, x0
    return x


def difference(
    config: dict[str, Any], sampler: str, steps: int, tokens: int | None = None
) -> float:
    """Largest difference, relative to the largest value."""
    expected = with_diffusers(config, sampler, steps, seed=steps)
    got = with_table(build_step_table(config, sampler, steps, tokens), seed=steps)
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("prediction", "steps"),
    [("epsilon", 1), ("epsilon", 20), ("v_prediction", 2), ("v_prediction", 20)],
)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", NOISE_SAMPLERS)
def test_a_table_follows_the_diffusers_scheduler(
    sampler: str, spacing: str, prediction: str, steps: int
) -> None:
    config = SDXL | {"prediction_type": prediction, "timestep_spacing": spacing}
    # Heun's correction of a step to nearly no noise is the difference of two large numbers.
    assert difference(config, sampler, steps) < (1e-4 if sampler.startswith("heun") else 1e-5)


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", EDM_SAMPLERS)
def test_a_table_follows_diffusers_for_models_that_are_preconditioned(
    sampler: str, prediction: str, schedule: str
) -> None:
    config = EDM | {"prediction_type": prediction, "sigma_schedule": schedule}
    for steps in (2, 5, 20):
        assert difference(config, sampler, steps) < 1e-4  # from 80 times unit noise


@pytest.mark.parametrize("sampler", NOISE_SAMPLERS)
def test_a_table_follows_diffusers_for_models_that_predict_the_clean_image(sampler: str) -> None:
    config = SDXL | {"prediction_type": "sample"}
    if sampler not in samplers_for(config):
        assert sampler.startswith(("euler_ancestral", "heun"))  # diffusers has not made it yet
        return
    for steps in (1, 20):
        assert difference(config, sampler, steps) < 2e-5


@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_flow_table_follows_the_diffusers_scheduler(
    sampler: str, shift: float, steps: int
) -> None:
    assert difference(FLOW | {"shift": shift}, sampler, steps) < 1e-5


def test_levels_that_depend_on_the_size_in_another_way_are_left_to_euler() -> None:
    config = FLOW | {"use_dynamic_shifting": True}
    assert "flow_dpmpp_2m" in samplers_for(config)
    linear = samplers_for(config | {"time_shift_type": "linear"})
    assert "flow_euler" in linear
    assert "flow_dpmpp_2m" not in linear


def test_dynamic_shifting_uses_the_token_count() -> None:
    config = FLOW | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    tokens = round(256 + (0.83 - 0.5) / (1.15 - 0.5) * (4096 - 256))
    assert difference(config, "flow_euler", 20, tokens) < 1e-4
    with pytest.raises(Misconfigured, match="token count"):
        build_step_table(config, "flow_euler", 20)


@pytest.mark.parametrize(
    "settings",
    [
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"final_sigmas_type": "sigma_min", "euler_at_final": True, "lower_order_final": False},
        {"lower_order_final": False},
        {"steps_offset": 0},
        {"set_alpha_to_one": True},
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"interpolation_type": "log_linear", "timestep_spacing": "trailing"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
    ],
    ids=str,
)
@pytest.mark.parametrize("sampler", NOISE_SAMPLERS)
def test_unusual_scheduler_configs_are_followed_too(sampler: str, settings: dict[str, Any]) -> None:
    if sampler not in samplers_for(SDXL | settings):
        assert "timestep_type" in settings  # of which the class knows nothing
        return
    # Beta levels lie very close together at both ends.
    rounding = 5e-5 if sampler.endswith("_beta") else 2e-5
    # How a multistep sampler ends depends on the number of steps.
    for steps in (5, 20) if "2m" in sampler else (5,):
        assert difference(SDXL | settings, sampler, steps) < rounding


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_zero_terminal_snr_is_followed_where_the_sampler_exists(prediction: str) -> None:
    config = SDXL | {
        "prediction_type": prediction,
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    for sampler in samplers_for(config):
        # Latents start at 4096 times unit noise, so float32 itself leaves about 1e-4.
        assert difference(config, sampler, 20) < 3e-4, sampler
    assert ("ddim" in samplers_for(config)) == (prediction == "v_prediction")


def test_a_sampler_of_another_family_is_refused_with_the_names_that_fit() -> None:
    with pytest.raises(InvalidRequest, match="euler_beta, euler_ancestral, ddim"):
        build_step_table(SDXL, "flow_euler", 20)
    with pytest.raises(InvalidRequest, match=r"allowed: flow_euler, .*flow_dpmpp_2m$"):
        build_step_table(FLOW, "euler", 20)
    with pytest.raises(InvalidRequest, match=r"sampler: 'ddim_karras'"):
        build_step_table(SDXL, "ddim_karras", 20)
    with pytest.raises(InvalidRequest, match="none for this model"):
        build_step_table(SDXL | {"prediction_type": "score"}, "euler", 20)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_out_of_range_is_refused(steps: int) -> None:
    with pytest.raises(InvalidRequest, match="steps"):
        build_step_table(SDXL, "euler", steps)


def test_a_schedule_too_dense_for_its_sampler_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="steps"):
        build_step_table(SDXL, "dpmpp_2m", 1000)


def test_the_models_own_scheduler_is_named_first() -> None:
    assert samplers_for(SDXL)[0] == "euler"
    assert samplers_for(SDXL | {"use_karras_sigmas": True})[0] == "euler_karras"
    assert samplers_for(SDXL | {"_class_name": "DDIMScheduler"})[0] == "ddim"


def test_a_table_cannot_be_changed() -> None:
    table = build_step_table(SDXL, "euler", 20)
    with pytest.raises(ValueError, match="read-only"):
        table.r[0] = 1.0
