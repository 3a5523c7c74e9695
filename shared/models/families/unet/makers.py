"""How the makers of distilled UNets want them drawn; see `shared/models/contracts/makers.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.models.contracts.makers import Wanted, in_steps, word_of

BY_WORD: Final[Mapping[str, Wanted]] = {
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
"""Of an LCM network that takes its guidance as a scalar (latent-consistency/lcm-sdxl)."""
MERGED_TURBO: Final = Wanted(6, 2.0)
"""Of a model with "turbo" in its name that keeps the times of its teacher
(Lykon/dreamshaper-xl-v2-turbo)."""
TRAILING: Final = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
BY_CLASS: Final = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}


def wanted(names: Sequence[str], scheduler: Mapping[str, Any], guided: bool) -> Wanted | None:
    """Of a model with these names; None: nobody wants it drawn differently. `guided`: its network
    takes its guidance as a scalar."""
    text = " ".join(names).lower()
    found = _wanted(text, scheduler)
    if found is not None and found == BY_WORD["lcm"] and guided:
        found = GUIDED_LCM
    return in_steps(text, found)


def _wanted(text: str, scheduler: Mapping[str, Any]) -> Wanted | None:
    trailing = scheduler.get("timestep_spacing") == "trailing"
    kind = str(scheduler.get("_class_name"))
    if (word := word_of(text, BY_WORD)) is not None:
        return MERGED_TURBO if word == "turbo" and not trailing else BY_WORD[word]
    if kind in BY_CLASS:
        return BY_WORD[BY_CLASS[kind]]
    epsilon = scheduler.get("prediction_type", "epsilon") == "epsilon"
    # Models of zero terminal SNR have trailing times as well, and are drawn in many steps.
    plain = epsilon and not scheduler.get("rescale_betas_zero_snr")
    return BY_WORD["lightning"] if trailing and plain and kind in TRAILING else None
