"""Which of diffusers' schedulers a model may come with, and which of their settings are honoured.

No torch here. For each class every setting is in one of three lists. What is `read` may have any
value that the class itself takes: the scheduler that diffusers makes of it is asked for its noise
levels. What is `fixed` may have the values that a sampler of `shared/models/samplers/samplers.py`
stands for. What is `idle` changes nothing as long as those are as they have to be. A setting in
none of them is not the class's own, and diffusers ignores it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

Update = Literal["straight", "ancestral", "multistep", "heun", "consistency"]
Levels = Literal["sigmas", "ddim", "distilled"]
Trained = Literal["variance_preserving", "flow", "edm"]


@dataclass(frozen=True, slots=True)
class SchedulerClass:
    """`fixed`: with the value that diffusers takes where a config does not say."""

    module: str
    read: frozenset[str]
    fixed: Mapping[str, Any]
    idle: frozenset[str] = frozenset()
    update: Update = "straight"
    """How x and x0 become the next x; see `services/denoiser/sampling/updates.py`."""
    levels: Levels = "sigmas"
    """Where its noise levels are read: its `sigmas`, or the shares of the signal's variance at its
    times, which are any (`ddim`) or those that a model was distilled at."""
    trained: Trained = "variance_preserving"
    """Which process the models are of that come with it."""


_BETAS: Final = frozenset({"beta_start", "beta_end", "beta_schedule", "trained_betas"})
_VP: Final = _BETAS | {
    "num_train_timesteps",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
}
_SPACED_SIGMAS: Final = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_CLIPPING: Final = frozenset(
    {"dynamic_thresholding_ratio", "clip_sample_range", "sample_max_value"}
)
_SOLVER: Final = {
    "solver_order": 2,
    "solver_type": "midpoint",
    "algorithm_type": "dpmsolver++",
    "thresholding": False,
}
_EDM: Final = frozenset(
    {
        "sigma_min",
        "sigma_max",
        "sigma_data",
        "sigma_schedule",
        "num_train_timesteps",
        "prediction_type",
        "rho",
        "final_sigmas_type",
    }
)


def _distilled(module: str, update: Update) -> SchedulerClass:
    return SchedulerClass(
        module,
        _VP
        | {
            "original_inference_steps",
            "set_alpha_to_one",
            "timestep_scaling",
            "rescale_betas_zero_snr",
        },
        {"clip_sample": False, "thresholding": False},
        _CLIPPING,
        update,
        levels="distilled",
    )


SCHEDULERS: Final[Mapping[str, SchedulerClass]] = MappingProxyType(
    {
        "EulerDiscreteScheduler": SchedulerClass(
            "scheduling_euler_discrete",
            _VP
            | {
                "interpolation_type",
                "sigma_min",
                "sigma_max",
                "timestep_type",
                "rescale_betas_zero_snr",
                "final_sigmas_type",
            },
            _SPACED_SIGMAS,
        ),
        "EulerAncestralDiscreteScheduler": SchedulerClass(
            "scheduling_euler_ancestral_discrete",
            _VP | {"rescale_betas_zero_snr"},
            {},
            update="ancestral",
        ),
        "DDIMScheduler": SchedulerClass(
            "scheduling_ddim",
            _VP | {"set_alpha_to_one", "rescale_betas_zero_snr"},
            {"clip_sample": True, "thresholding": False},
            _CLIPPING,
            levels="ddim",
        ),
        "DPMSolverMultistepScheduler": SchedulerClass(
            "scheduling_dpmsolver_multistep",
            _VP
            | {
                "lower_order_final",
                "euler_at_final",
                "flow_shift",
                "final_sigmas_type",
                "lambda_min_clipped",
                "rescale_betas_zero_snr",
                "use_dynamic_shifting",
                "time_shift_type",
            },
            _SPACED_SIGMAS
            | _SOLVER
            | {"use_lu_lambdas": False, "use_flow_sigmas": False, "variance_type": None},
            _CLIPPING - {"clip_sample_range"},
            update="multistep",
        ),
        "HeunDiscreteScheduler": SchedulerClass(
            "scheduling_heun_discrete",
            _VP,
            _SPACED_SIGMAS | {"clip_sample": False},
            frozenset({"clip_sample_range"}),
            update="heun",
        ),
        "LCMScheduler": _distilled("scheduling_lcm", "consistency"),
        "TCDScheduler": _distilled("scheduling_tcd", "straight"),
        "EDMEulerScheduler": SchedulerClass("scheduling_edm_euler", _EDM, {}, trained="edm"),
        "EDMDPMSolverMultistepScheduler": SchedulerClass(
            "scheduling_edm_dpmsolver_multistep",
            _EDM | {"lower_order_final", "euler_at_final"},
            _SOLVER,
            _CLIPPING - {"clip_sample_range"},
            update="multistep",
            trained="edm",
        ),
        "FlowMatchEulerDiscreteScheduler": SchedulerClass(
            "scheduling_flow_match_euler_discrete",
            frozenset(
                {
                    "num_train_timesteps",
                    "shift",
                    "use_dynamic_shifting",
                    "base_shift",
                    "max_shift",
                    "base_image_seq_len",
                    "max_image_seq_len",
                    "shift_terminal",
                    "time_shift_type",
                }
            ),
            _SPACED_SIGMAS | {"invert_sigmas": False, "stochastic_sampling": False},
            trained="flow",
        ),
    }
)

CONVERTIBLE: Final = frozenset(
    {
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    }
)
"""Classes that are not drawn with, whose configs say of the noise that a model was trained with the
same as those above: whoever serves such a model may choose another sampler for it."""

VALUES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
        "timestep_spacing": ("linspace", "leading", "trailing"),
        "interpolation_type": ("linear", "log_linear"),
        "timestep_type": ("discrete", "continuous"),
        "final_sigmas_type": ("zero", "sigma_min"),
        "sigma_schedule": ("karras", "exponential"),
        "time_shift_type": ("exponential", "linear"),
    }
)
"""Settings that are read, and are one of a few words."""
NULLABLE: Final = frozenset({"sigma_min", "sigma_max", "shift_terminal", "trained_betas"})
NUMBERS: Final = frozenset(
    {
        "base_image_seq_len",
        "base_shift",
        "beta_end",
        "beta_start",
        "flow_shift",
        "lambda_min_clipped",
        "max_image_seq_len",
        "max_shift",
        "original_inference_steps",
        "rho",
        "shift",
        "shift_terminal",
        "sigma_data",
        "sigma_max",
        "sigma_min",
        "steps_offset",
        "timestep_scaling",
    }
)
"""Settings that are read, and are numbers; `NULLABLE` ones may be `null`."""
SWITCHES: Final = frozenset(
    {
        "euler_at_final",
        "lower_order_final",
        "rescale_betas_zero_snr",
        "set_alpha_to_one",
        "use_dynamic_shifting",
    }
)
"""Settings that are read, and are true or false."""


def misread(config: Mapping[str, Any]) -> str | None:
    """Which setting of a scheduler config its class does not take, in one sentence; None: none is
    known."""
    known = SCHEDULERS.get(str(config.get("_class_name")))
    for name, allowed in VALUES.items():
        own = known is None or name in known.read
        if own and name in config and config[name] not in allowed:
            return f"{name} is {config[name]!r}; allowed: {', '.join(allowed)}"
    for name, value in config.items():
        if (known is not None and name not in known.read) or (value is None and name in NULLABLE):
            continue
        if name in NUMBERS and (not _is_number(value)):
            return f"{name} is {value!r}; allowed: a number"
        if name in SWITCHES and not isinstance(value, bool | None):
            return f"{name} is {value!r}; allowed: true or false"
    shifted = config.get("use_dynamic_shifting") and config.get("time_shift_type") == "linear"
    if shifted and known is not None and "flow_shift" in known.read:
        return "time_shift_type is 'linear'; allowed with use_dynamic_shifting: exponential"
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        return f"num_train_timesteps is {steps!r}; allowed: a whole number above 0"
    betas = config.get("trained_betas")
    if betas is not None and (known is None or "trained_betas" in known.read):
        numbers = isinstance(betas, list) and all(map(_is_number, betas))
        if not numbers or len(betas) != steps:
            return f"trained_betas are no list of {steps} numbers, as num_train_timesteps has it"
    return None


def _is_number(value: Any) -> bool:
    """Any but NaN; one of them may be infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value of a fixed setting, which may be left to its class or to `null`."""
    value = config.get(name)
    return SCHEDULERS[config["_class_name"]].fixed[name] if value is None else value
