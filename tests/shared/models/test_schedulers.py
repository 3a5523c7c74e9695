"""A model's own scheduler is its default sampler, with all its settings; what is not honoured is
refused by name. diffusers says which settings there are, and what they come to."""

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from services.denoiser.sampling.noise_schedule import make_scheduler
from shared.errors import Misconfigured
from shared.models.cards import read_card
from shared.models.files.directory import scheduler_config
from shared.models.samplers.samplers import SAMPLERS, own_sampler
from shared.models.samplers.schedulers import CONVERTIBLE, SCHEDULERS
from tests.helpers.models import FLUX, SDXL, rescheduled

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
DPM = SD | {"_class_name": "DPMSolverMultistepScheduler"}
EULER = SD | {"_class_name": "EulerDiscreteScheduler"}
DDIM = SD | {"_class_name": "DDIMScheduler"}
EDM = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "num_train_timesteps": 1000}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.5}

OWN: list[tuple[dict[str, Any], str]] = [
    (EULER, "euler"),
    (EULER | {"use_karras_sigmas": True}, "euler_karras"),
    (EULER | {"use_exponential_sigmas": True}, "euler_exponential"),
    (EULER | {"use_beta_sigmas": True}, "euler_beta"),
    (EULER | {"final_sigmas_type": "sigma_min"}, "euler"),
    (EULER | {"prediction_type": "sample"}, "euler"),
    (
        EULER
        | {
            "timestep_type": "continuous",
            "sigma_min": 0.002,
            "sigma_max": 80.0,
            "prediction_type": "v_prediction",
        },
        "euler",
    ),
    (SD | {"_class_name": "EulerAncestralDiscreteScheduler"}, "euler_ancestral"),
    (DPM, "dpmpp_2m"),
    (DPM | {"use_karras_sigmas": True}, "dpmpp_2m_karras"),
    (DPM | {"use_exponential_sigmas": True}, "dpmpp_2m_exponential"),
    (DPM | {"use_beta_sigmas": True}, "dpmpp_2m_beta"),
    (DPM | {"use_lu_lambdas": True}, "dpmpp_2m_lu"),
    (
        DPM | {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
        "dpmpp_2m_sde_karras",
    ),
    (DDIM | {"clip_sample": False}, "ddim"),
    (
        DDIM
        | {
            "clip_sample": False,
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
        "ddim",
    ),
    (SD | {"_class_name": "HeunDiscreteScheduler", "use_karras_sigmas": True}, "heun_karras"),
    (SD | {"_class_name": "LCMScheduler", "original_inference_steps": 50}, "lcm"),
    (SD | {"_class_name": "TCDScheduler"}, "tcd"),
    (EDM | {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}, "edm_euler"),
    (EDM | {"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 2}, "edm_dpmpp_2m"),
    (FLOW, "flow_euler"),
    (FLOW | {"use_karras_sigmas": True}, "flow_euler_karras"),
    (FLOW | {"shift_terminal": 0.1}, "flow_euler"),
    (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": 3.0,
        },
        "flow_dpmpp_2m",
    ),
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    (EULER | {"use_beta_sigmas": True, "use_karras_sigmas": True}, "settings together"),
    (EULER | {"use_karras_sigmas": True, "use_exponential_sigmas": True}, "settings together"),
    (EULER | {"prediction_type": "score"}, "prediction_type is 'score'"),
    (EULER | {"timestep_spacing": "middle"}, "timestep_spacing is 'middle'; allowed: linspace"),
    (EULER | {"num_train_timesteps": "1000"}, "num_train_timesteps is '1000'"),
    (EULER | {"beta_start": "0.1"}, "beta_start is '0.1'; allowed: a number"),
    (EULER | {"rescale_betas_zero_snr": "false"}, "is 'false'; allowed: true or false"),
    (EULER | {"trained_betas": [0.1, 0.2]}, "trained_betas are no list of 1000 numbers"),
    (FLOW | {"shift": None}, "shift is None; allowed: a number"),
    (
        DPM | {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        "time_shift_type is 'linear'; allowed with use_dynamic_shifting: exponential",
    ),
    (DPM | {"solver_order": 3}, "solver_order is 3; honoured is 2"),
    (DPM | {"solver_type": "heun"}, "solver_type is 'heun'"),
    (DPM | {"algorithm_type": "dpmsolver"}, "algorithm_type is 'dpmsolver'"),
    (DPM | {"thresholding": True}, "thresholding is True"),
    (DPM | {"variance_type": "learned"}, "variance_type is 'learned'"),
    (DDIM, "clip_sample is True, as the class has it by default; honoured is False"),
    (DDIM | {"clip_sample": True}, "clip_sample is True; honoured is False"),
    (DDIM | {"clip_sample": False, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
    (EDM | {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "'sample'"),
    (SD | {"_class_name": "HeunDiscreteScheduler", "prediction_type": "sample"}, "'sample'"),
    (SD | {"_class_name": "UniPCMultistepScheduler"}, "a UniPCMultistepScheduler; served are"),
    (SD | {"_class_name": "PNDMScheduler"}, "a PNDMScheduler; served are"),
    (SD | {"_class_name": "FancyScheduler"}, "a FancyScheduler; served are"),
    (FLOW | {"stochastic_sampling": True}, "stochastic_sampling is True"),
    (FLOW | {"invert_sigmas": True}, "invert_sigmas is True"),
    (FLOW | {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "a FlowMatchHeunDiscreteScheduler"),
]


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_setting_that_diffusers_knows_is_in_one_of_the_lists(kind: str) -> None:
    known, lists = inspect.signature(getattr(diffusers, kind).__init__).parameters, SCHEDULERS[kind]
    assert lists.read | set(lists.fixed) | lists.idle == set(known) - {"self"}
    for name, default in lists.fixed.items():
        assert known[name].default == default, name


def test_classes_that_are_not_drawn_with_are_known_to_diffusers() -> None:
    assert all(hasattr(diffusers, kind) for kind in CONVERTIBLE)


@pytest.mark.parametrize(("config", "name"), OWN, ids=lambda value: str(value)[-60:])
def test_a_models_own_scheduler_is_its_default_and_keeps_its_levels(
    tmp_path: Path, config: dict[str, Any], name: str
) -> None:
    flow = name.startswith("flow")
    model = rescheduled(tmp_path / "m", config, FLUX if flow else SDXL)
    card = read_card(model)
    assert card.default_sampler == card.samplers[0] == name
    own = getattr(diffusers, str(config["_class_name"])).from_config(config)
    ours = make_scheduler(scheduler_config(model), SAMPLERS[name])
    for scheduler in (own, ours):
        scheduler.set_timesteps(10)
    assert torch.equal(own.timesteps, ours.timesteps)
    if hasattr(own, "sigmas"):
        assert torch.equal(own.sigmas, ours.sigmas)
    assert all(ours.config[k] == v for k, v in config.items() if k != "_class_name")


@pytest.mark.parametrize(("config", "reason"), REFUSED, ids=lambda value: str(value)[-60:])
def test_what_is_not_honoured_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    flow = str(config["_class_name"]).startswith("Flow")
    model = rescheduled(tmp_path / "m", config, FLUX if flow else SDXL)
    with pytest.raises(Misconfigured, match="cannot be served") as refusal:
        read_card(model)
    assert reason in refusal.value.message


def test_an_operator_may_choose_a_sampler_where_the_models_own_is_not_honoured(
    tmp_path: Path,
) -> None:
    for kind in ("UniPCMultistepScheduler", "PNDMScheduler"):
        config = SD | {"_class_name": kind}
        model = rescheduled(tmp_path / kind, config, settings={"sampler": "dpmpp_2m_karras"})
        assert read_card(model).default_sampler == "dpmpp_2m_karras"
    fancy = SD | {"_class_name": "FancyScheduler"}
    model = rescheduled(tmp_path / "f", fancy, settings={"sampler": "euler"})
    with pytest.raises(Misconfigured, match="FancyScheduler"):
        read_card(model)


def test_a_scheduler_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="predict flow; a StableDiffusionXLPipeline"):
        read_card(rescheduled(tmp_path / "sdxl", FLOW))
    with pytest.raises(Misconfigured, match="predict epsilon; a FluxPipeline"):
        read_card(rescheduled(tmp_path / "flux", EULER, FLUX))


def test_a_config_without_a_class_is_of_the_one_that_the_model_index_names(tmp_path: Path) -> None:
    assert read_card(rescheduled(tmp_path / "m", SD)).default_sampler == "euler"


def test_settings_of_other_classes_do_not_count(tmp_path: Path) -> None:
    """Configs are full of what earlier schedulers left there."""
    leftovers = {"clip_sample": True, "solver_order": 3, "use_lu_lambdas": True}
    assert own_sampler(EULER | leftovers) == "euler"
