"""Fields that only an edit has."""

from typing import Annotated, Literal

from services.gateway.openai.kinds.meta import described
from shared.jobs.edits import IMAGE_STRENGTH, MASK_MODES, MASKED_STRENGTH

Strength = Annotated[
    float,
    described(
        "How much of the image is given up: the share of the steps that are taken. Default: "
        f"{MASKED_STRENGTH:g} with a mask, {IMAGE_STRENGTH:g} without one.",
        "a number above 0, up to 1",
    ),
]
MaskModes = Annotated[
    str,
    described(
        "How what the mask keeps is computed. cached: it may be taken from an earlier edit of the "
        "same image, which is faster and not exact. Default: exact.",
        "one of " + ", ".join(MASK_MODES),
    ),
]
Fidelity = Annotated[
    Literal["high", "low"],
    described("For clients that send it; strength says how much is kept.", '"high" or "low"'),
]
