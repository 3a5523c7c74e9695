"""The samplers a request may name. No torch here: planners validate against this table.

Each name stands for one diffusers scheduler class with some settings fixed; every other setting
comes from the model's own `scheduler/scheduler_config.json`. Which of those are honoured is in
`shared/models/samplers/schedulers.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from shared.errors import InvalidRequest, Misconfigured
from shared.models.samplers.schedulers import (
    CONVERTIBLE,
    SCHEDULERS,
    SchedulerClass,
    misread,
    setting,
)

Prediction = Literal["epsilon", "v_prediction", "sample", "flow", "edm_epsilon", "edm_v_prediction"]
"""What a network was trained to return: the noise, the velocity of a variance-preserving process,
the clean image, or the velocity of a straight path (flow matching); or, preconditioned as Karras et
al. have it (EDM), the residue of the clean image, or its negative."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """`scheduler` is a class of diffusers, `settings` overrules the model's scheduler config.
    `aliases`: other names, beside those that `sampler_named` makes of its own and its class's."""

    scheduler: str
    settings: Mapping[str, Any]
    predictions: frozenset[Prediction]
    aliases: tuple[str, ...] = ()

    @property
    def kind(self) -> SchedulerClass:
        return SCHEDULERS[self.scheduler]

    @property
    def draws(self) -> bool:
        """Whether its steps add noise."""
        return self.kind.update in ("ancestral", "consistency") or self.stochastic

    @property
    def stochastic(self) -> bool:
        """Whether it is a multistep solver of the stochastic equation."""
        return str(self.settings.get("algorithm_type")).startswith("sde-")

    @property
    def order(self) -> int:
        """Forwards that a step takes, but for the last one."""
        return 2 if self.kind.update == "heun" else 1


_NOISE: Final[frozenset[Prediction]] = frozenset({"epsilon", "v_prediction"})
_ANY: Final[frozenset[Prediction]] = _NOISE | {"sample"}
_FLOW: Final[frozenset[Prediction]] = frozenset({"flow"})
_EDM: Final[frozenset[Prediction]] = frozenset({"edm_epsilon", "edm_v_prediction"})

_EDM_NAMES: Final[Mapping[str, Prediction]] = {
    "epsilon": "edm_epsilon",
    "v_prediction": "edm_v_prediction",
}

SPACINGS: Final = ("", "_karras", "_exponential", "_beta")
"""Of the noise levels, as names of samplers end."""


def _sigmas(spacing: str = "") -> dict[str, Any]:
    return {
        "use_karras_sigmas": spacing == "_karras",
        "use_exponential_sigmas": spacing == "_exponential",
        "use_beta_sigmas": spacing == "_beta",
    }


def _solver(algorithm: str = "dpmsolver++") -> dict[str, Any]:
    return {
        "algorithm_type": algorithm,
        "solver_type": "midpoint",
        "solver_order": 2,
        "thresholding": False,
    }


def _dpmpp_2m(spacing: str = "", algorithm: str = "dpmsolver++", *aliases: str) -> Sampler:
    settings = _sigmas(spacing) | _solver(algorithm)
    settings |= {
        "use_lu_lambdas": spacing == "_lu",
        "use_flow_sigmas": False,
        "variance_type": None,
    }
    return Sampler("DPMSolverMultistepScheduler", settings, _ANY, aliases)


# Clipping x0 to [-1, 1] is diffusers' default for some, and meant for pixels: latents lie outside.
_UNCLIPPED: Final = {"clip_sample": False}
_UNBOUNDED: Final = _UNCLIPPED | {"thresholding": False}

SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {
        **{
            f"euler{spacing}": Sampler("EulerDiscreteScheduler", _sigmas(spacing), _ANY)
            for spacing in SPACINGS
        },
        "euler_ancestral": Sampler("EulerAncestralDiscreteScheduler", {}, _NOISE, ("euler_a",)),
        "ddim": Sampler("DDIMScheduler", _UNBOUNDED, _ANY),
        "dpmpp_2m": _dpmpp_2m(),
        "dpmpp_2m_karras": _dpmpp_2m("_karras", "dpmsolver++", "karrasdpm"),
        **{f"dpmpp_2m{spacing}": _dpmpp_2m(spacing) for spacing in (*SPACINGS[2:], "_lu")},
        **{f"dpmpp_2m_sde{spacing}": _dpmpp_2m(spacing, "sde-dpmsolver++") for spacing in SPACINGS},
        **{
            f"heun{spacing}": Sampler(
                "HeunDiscreteScheduler", _sigmas(spacing) | _UNCLIPPED, _NOISE
            )
            for spacing in SPACINGS
        },
        "lcm": Sampler("LCMScheduler", _UNBOUNDED, _ANY),
        "tcd": Sampler("TCDScheduler", _UNBOUNDED, _ANY),
        "edm_euler": Sampler("EDMEulerScheduler", {}, _EDM),
        "edm_dpmpp_2m": Sampler("EDMDPMSolverMultistepScheduler", _solver(), _EDM),
        "edm_dpmpp_2m_sde": Sampler(
            "EDMDPMSolverMultistepScheduler", _solver("sde-dpmsolver++"), _EDM
        ),
        **{
            f"flow_euler{spacing}": Sampler(
                "FlowMatchEulerDiscreteScheduler",
                _sigmas(spacing) | {"invert_sigmas": False, "stochastic_sampling": False},
                _FLOW,
            )
            for spacing in SPACINGS
        },
        "flow_dpmpp_2m": Sampler(
            "DPMSolverMultistepScheduler",
            {
                **_dpmpp_2m().settings,
                "use_flow_sigmas": True,
                "prediction_type": "flow_prediction",
            },
            _FLOW,
        ),
    }
)


_ALIASES: Final[Mapping[str, str]] = {
    alias: name
    for name, sampler in reversed(list(SAMPLERS.items()))  # of a class, the first one is meant
    for alias in (sampler.scheduler.removesuffix("Scheduler").lower(), *sampler.aliases)
}


def sampler_named(shown: str) -> str:
    """The name of the sampler that image clients show so: `DPM++ 2M Karras`, or that libraries call
    so: `EulerDiscreteScheduler`, `K_EULER`. It may be none."""
    name = re.sub(r"[\s_-]+", "_", shown.strip().lower().replace("++", "pp")).removeprefix("k_")
    return _ALIASES.get(name.removesuffix("scheduler"), name)


def prediction_of(scheduler_config: Mapping[str, Any]) -> Prediction | None:
    """What a model with this scheduler config predicts; None: nothing a sampler here can use."""
    known = SCHEDULERS.get(str(scheduler_config.get("_class_name")))
    trained = "variance_preserving" if known is None else known.trained
    if trained == "flow":
        # Inverted sigmas (clean at 1, noise at 0) would divide by a noise level of zero.
        return None if scheduler_config.get("invert_sigmas") else "flow"
    prediction = scheduler_config.get("prediction_type", "epsilon")
    if trained == "edm":
        return _EDM_NAMES.get(str(prediction))
    match prediction:
        case "epsilon" | "v_prediction" | "sample":
            return prediction  # type: ignore[no-any-return]
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


def own_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """The sampler that is the model's own scheduler, with all its settings. Raises `Misconfigured`
    naming what is not honoured."""
    kind = scheduler_config.get("_class_name")
    if kind not in SCHEDULERS:
        served = ", ".join(SCHEDULERS)
        raise Misconfigured(f"its scheduler is a {kind}; served are: {served}")
    usable = samplers_for(scheduler_config)
    for name in usable:
        if _is_own(name, scheduler_config):
            return name
    raise Misconfigured(f"its scheduler, a {kind}, is not honoured: {_foreign(scheduler_config)}")


def refuse_unreadable(scheduler_config: Mapping[str, Any]) -> None:
    """Raises `Misconfigured` if no sampler at all can be trusted with a model of this scheduler
    config, whoever chooses it."""
    kind = scheduler_config.get("_class_name")
    if kind not in SCHEDULERS and kind not in CONVERTIBLE:
        served = ", ".join(SCHEDULERS)
        raise Misconfigured(f"its scheduler is a {kind}; served are: {served}")
    if prediction_of(scheduler_config) is None:
        what = "invert_sigmas" if scheduler_config.get("invert_sigmas") else "prediction_type"
        raise Misconfigured(f"its scheduler's {what} is {scheduler_config.get(what)!r}")
    if (wrong := misread(scheduler_config)) is not None:
        raise Misconfigured(f"its scheduler config is wrong: {wrong}")


def require_sampler(scheduler_config: Mapping[str, Any], name: str) -> Sampler:
    """The entry `name`; raises `InvalidRequest` if this model cannot be sampled with it."""
    allowed = samplers_for(scheduler_config)
    if name not in allowed:
        raise InvalidRequest("sampler", name, ", ".join(allowed) or "none for this model")
    return SAMPLERS[name]


def _cannot_follow(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a class knows nothing of something that the model was trained with, or cannot compute
    with it."""
    kind = SAMPLERS[name].kind
    if SAMPLERS[name].settings.get("use_flow_sigmas"):
        # One of the ways in which a flow's levels may depend on the size.
        dynamic = bool(config.get("use_dynamic_shifting"))
        return dynamic and config.get("time_shift_type", "exponential") != "exponential"
    if config.get("rescale_betas_zero_snr") and _knows("rescale_betas_zero_snr", config):
        # Noise says nothing of the image then: these would divide by alpha = 0.
        divides = kind.levels != "sigmas"
        if kind.update == "heun" or (divides and prediction_of(config) == "epsilon"):
            return True
    continuous = config.get("timestep_type") == "continuous" and _knows("timestep_type", config)
    velocity = prediction_of(config) == "v_prediction"
    return continuous and velocity and "timestep_type" not in kind.read


def _knows(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the model's own class has this setting; else it is some other class's leftover."""
    known = SCHEDULERS.get(str(config.get("_class_name")))
    return known is None or name in known.read


def _is_own(name: str, config: Mapping[str, Any]) -> bool:
    sampler = SAMPLERS[name]
    if sampler.scheduler != config.get("_class_name"):
        return False
    fixed = sampler.kind.fixed
    return all(setting(config, k) == v for k, v in sampler.settings.items() if k in fixed)


def _foreign(config: Mapping[str, Any]) -> str:
    """What keeps every sampler of the config's own class from being the model's own."""
    kind = config["_class_name"]
    same = [sampler for sampler in SAMPLERS.values() if sampler.scheduler == kind]
    for name in SCHEDULERS[kind].fixed:
        honoured = {sampler.settings[name] for sampler in same if name in sampler.settings}
        value = setting(config, name)
        if value not in honoured:
            allowed = " or ".join(sorted(map(repr, honoured)))
            whose = "" if config.get(name) is not None else ", as the class has it by default"
            return f"{name} is {value!r}{whose}; honoured is {allowed}"
    shown = {name: setting(config, name) for name in SCHEDULERS[kind].fixed}
    shown["prediction_type"] = config.get("prediction_type", "epsilon")
    shown["rescale_betas_zero_snr"] = bool(config.get("rescale_betas_zero_snr"))
    return "these settings together: " + ", ".join(f"{k} {v!r}" for k, v in shown.items())
