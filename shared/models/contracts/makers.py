"""How the makers of distilled models want them drawn: in few steps, and mostly without guidance.

A model is known to be one by a word of its name, by its scheduler's class, or by the spacing of its
scheduler's times. What an operator says goes before all of it (`shared/models/settings.py`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple


class Wanted(NamedTuple):
    """Steps, and guidance; None: as other models of the family."""

    steps: int
    guidance: float | None


UNET: Final[Mapping[str, Wanted]] = {
    "turbo": Wanted(1, 0.0),  # arXiv 2311.17042; stabilityai/sdxl-turbo
    "lightning": Wanted(4, 0.0),  # arXiv 2402.13929; ByteDance/SDXL-Lightning
    "lcm": Wanted(4, 1.0),  # arXiv 2311.05556; latent-consistency/lcm-lora-sdxl
    "hyper": Wanted(4, 0.0),  # arXiv 2404.13686; ByteDance/Hyper-SD
    "tcd": Wanted(4, 0.0),  # arXiv 2402.19159; h1t/TCD-SDXL-LoRA
    "dmd2": Wanted(4, 0.0),  # arXiv 2405.14867; tianweiy/DMD2
    "flash": Wanted(4, 0.0),  # arXiv 2406.02347; jasperai/flash-sdxl
}
"""By words of their names."""
GUIDED_LCM: Final = Wanted(4, 8.0)
"""Of an LCM network that is told its guidance (latent-consistency/lcm-sdxl)."""
MERGED_TURBO: Final = Wanted(6, 2.0)
"""Of a model with "turbo" in its name that keeps the times of its teacher
(Lykon/dreamshaper-xl-v2-turbo)."""
FLUX: Final[Mapping[str, Wanted]] = {
    "schnell": Wanted(4, 0.0),  # black-forest-labs/FLUX.1-schnell
    "turbo": Wanted(8, None),  # alimama-creative/FLUX.1-Turbo-Alpha
    "hyper": Wanted(8, None),  # ByteDance/Hyper-SD
}
TRAILING: Final = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
BY_CLASS: Final = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}
_ANYWHERE: Final = ("turbo", "lightning", "schnell")
"""Words that mean nothing else within a longer one."""
_STEPS: Final = re.compile(r"(\d+)[ _-]?steps?(?![a-z])")


def wanted_of_unet(
    names: Sequence[str], scheduler: Mapping[str, Any], guidance_embedded: bool
) -> Wanted | None:
    """Of a model of a UNet with these names; None: nobody wants it drawn differently."""
    text = " ".join(names).lower()
    found = _unet(text, scheduler)
    if found is not None and found == UNET["lcm"] and guidance_embedded:
        found = GUIDED_LCM
    return _in_steps(text, found)


def wanted_of_flux(
    names: Sequence[str], scheduler: Mapping[str, Any], guidance_embedded: bool
) -> Wanted | None:
    """Of a FLUX with these names; None: nobody wants it drawn differently."""
    text = " ".join(names).lower()
    return _in_steps(text, _flux(text, scheduler, guidance_embedded))


def _in_steps(text: str, found: Wanted | None) -> Wanted | None:
    """`found`, in as many steps as the name says."""
    told = _STEPS.search(text)
    return found and found._replace(steps=int(told[1])) if told and int(told[1]) else found


def _says(text: str, word: str) -> bool:
    edges = ("", "") if word in _ANYWHERE else ("(?<![a-z])", "(?![a-z])")
    return re.search(word.join(edges), text) is not None


def _unet(text: str, scheduler: Mapping[str, Any]) -> Wanted | None:
    trailing = scheduler.get("timestep_spacing") == "trailing"
    kind = str(scheduler.get("_class_name"))
    for word, wanted in UNET.items():
        if _says(text, word):
            return MERGED_TURBO if word == "turbo" and not trailing else wanted
    if kind in BY_CLASS:
        return UNET[BY_CLASS[kind]]
    epsilon = scheduler.get("prediction_type", "epsilon") == "epsilon"
    # Models of zero terminal SNR have trailing times as well, and are drawn in many steps.
    plain = epsilon and not scheduler.get("rescale_betas_zero_snr")
    return UNET["lightning"] if trailing and plain and kind in TRAILING else None


def _flux(text: str, scheduler: Mapping[str, Any], guidance_embedded: bool) -> Wanted | None:
    for word, wanted in FLUX.items():
        if _says(text, word):
            return wanted
    unshifted = scheduler.get("shift", 1.0) == 1.0 and not scheduler.get("use_dynamic_shifting")
    return FLUX["schnell"] if unshifted and not guidance_embedded else None
