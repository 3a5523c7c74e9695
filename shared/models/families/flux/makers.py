"""How the makers of distilled FLUXes want them drawn; see `shared/models/contracts/makers.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.models.contracts.makers import Wanted, in_steps, word_of

BY_WORD: Final[Mapping[str, Wanted]] = {
    "schnell": Wanted(4, 0.0),  # black-forest-labs/FLUX.1-schnell
    "turbo": Wanted(8, None),  # alimama-creative/FLUX.1-Turbo-Alpha
    "hyper": Wanted(8, None),  # ByteDance/Hyper-SD
}


def wanted(names: Sequence[str], scheduler: Mapping[str, Any], guided: bool) -> Wanted | None:
    """Of a model with these names; None: nobody wants it drawn differently. `guided`: its network
    takes its guidance as a scalar."""
    text = " ".join(names).lower()
    if (word := word_of(text, BY_WORD)) is not None:
        return in_steps(text, BY_WORD[word])
    unshifted = scheduler.get("shift", 1.0) == 1.0 and not scheduler.get("use_dynamic_shifting")
    return in_steps(text, BY_WORD["schnell"] if unshifted and not guided else None)
