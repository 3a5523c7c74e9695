"""A model's own default request, as far as its text encoders: asked once, before they serve."""

import torch

from shared.errors import Misconfigured, NotFinite
from shared.families.base import Family
from shared.families.text import TextEncoder


def asked(family: Family, device: str, dtype: torch.dtype) -> TextEncoder:
    """The family's text encoders, loaded. Raises `Misconfigured` if they do not give what the
    network is told, and `NotFinite` for no numbers in float32: narrower ones are given another
    try when they serve."""
    encoder = family.text_encoder(device, dtype)
    [encoded] = encoder(["a picture"])
    found = (int(encoded.embeds.shape[-1]), int(encoded.pooled.shape[-1]))
    if found != family.told_widths:
        raise Misconfigured(
            f"the text encoders give {found[0]} and {found[1]} numbers, and the network is told "
            f"{family.told_widths[0]} and {family.told_widths[1]}"
        )
    finite = bool(encoded.embeds.isfinite().all()) and bool(encoded.pooled.isfinite().all())
    if not finite and dtype is torch.float32:
        raise NotFinite("what the text encoders make of a prompt is not finite")
    return encoder
