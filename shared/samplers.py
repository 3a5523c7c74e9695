"""The samplers a request may name. No torch here: planners validate against this table.

Each name stands for one diffusers scheduler class with some settings fixed; every other setting
comes from the model's own `scheduler/scheduler_config.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from shared.errors import InvalidRequest

Prediction = Literal["epsilon", "v_prediction", "flow"]
"""What a network was trained to return: the noise, the velocity of a variance-preserving process,
or the velocity of a straight path (flow matching)."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """`scheduler` is a class of diffusers, `settings` overrules the model's scheduler config."""

    scheduler: str
    settings: Mapping[str, Any]
    predictions: frozenset[Prediction]


_NOISE: Final[frozenset[Prediction]] = frozenset({"epsilon", "v_prediction"})
_FLOW: Final[frozenset[Prediction]] = frozenset({"flow"})


def _sigmas(*, karras: bool) -> dict[str, Any]:
    return {
        "use_karras_sigmas": karras,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
    }


def _dpmpp_2m(*, karras: bool) -> dict[str, Any]:
    return _sigmas(karras=karras) | {
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "solver_order": 2,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "thresholding": False,
    }


SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {
        "euler": Sampler("EulerDiscreteScheduler", _sigmas(karras=False), _NOISE),
        "euler_karras": Sampler("EulerDiscreteScheduler", _sigmas(karras=True), _NOISE),
        "euler_ancestral": Sampler("EulerAncestralDiscreteScheduler", {}, _NOISE),
        # Clipping x0 to [-1, 1] is diffusers' default and meant for pixels: latents lie outside.
        "ddim": Sampler("DDIMScheduler", {"clip_sample": False, "thresholding": False}, _NOISE),
        "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", _dpmpp_2m(karras=False), _NOISE),
        "dpmpp_2m_karras": Sampler("DPMSolverMultistepScheduler", _dpmpp_2m(karras=True), _NOISE),
        "flow_euler": Sampler(
            "FlowMatchEulerDiscreteScheduler",
            _sigmas(karras=False) | {"stochastic_sampling": False},
            _FLOW,
        ),
        "flow_dpmpp_2m": Sampler(
            "DPMSolverMultistepScheduler",
            _dpmpp_2m(karras=False)
            | {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
            _FLOW,
        ),
    }
)


def prediction_of(scheduler_config: Mapping[str, Any]) -> Prediction | None:
    """What a model with this scheduler config predicts; None: nothing a sampler here can use."""
    if scheduler_config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        # Inverted sigmas (clean at 1, noise at 0) would divide by a noise level of zero.
        return None if scheduler_config.get("invert_sigmas") else "flow"
    match scheduler_config.get("prediction_type", "epsilon"):
        case "epsilon":
            return "epsilon"
        case "v_prediction":
            return "v_prediction"
        case "flow_prediction":
            return "flow"
        case _:
            return None


def samplers_for(scheduler_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names a request for this model may use, the model's own scheduler first if it is here."""
    prediction = prediction_of(scheduler_config)
    fitting = (name for name, sampler in SAMPLERS.items() if prediction in sampler.predictions)
    usable = [name for name in fitting if not _cannot_follow(name, scheduler_config)]
    return tuple(sorted(usable, key=lambda name: not _is_own(name, scheduler_config)))


def require_sampler(scheduler_config: Mapping[str, Any], name: str) -> Sampler:
    """The entry `name`; raises `InvalidRequest` if this model cannot be sampled with it."""
    allowed = samplers_for(scheduler_config)
    if name not in allowed:
        raise InvalidRequest("sampler", name, ", ".join(allowed) or "none for this model")
    return SAMPLERS[name]


def _cannot_follow(name: str, config: Mapping[str, Any]) -> bool:
    """At zero terminal SNR noise says nothing of the image: DDIM would divide by alpha = 0. And
    DPM-Solver++ knows one of the ways in which a flow's levels may depend on the size."""
    if name == "flow_dpmpp_2m":
        dynamic = bool(config.get("use_dynamic_shifting"))
        return dynamic and config.get("time_shift_type", "exponential") != "exponential"
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    return name == "ddim" and zero_snr and prediction_of(config) == "epsilon"


def _is_own(name: str, config: Mapping[str, Any]) -> bool:
    sampler = SAMPLERS[name]
    karras = bool(sampler.settings.get("use_karras_sigmas", False))
    own_karras = bool(config.get("use_karras_sigmas", False))
    return sampler.scheduler == config.get("_class_name") and karras == own_karras
