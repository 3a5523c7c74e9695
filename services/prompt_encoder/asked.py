"""A model's own default request, as far as its text encoders: asked once, before they serve."""

from collections.abc import Mapping

import torch

from shared.errors import Misconfigured, NotFinite
from shared.models.contracts.family import Family
from shared.models.contracts.text_encoder import TextEncoder


def asked(family: Family, device: str, dtype: torch.dtype) -> TextEncoder:
    """The family's text encoders, loaded. Raises `Misconfigured` if they do not give what the
    network is told, and `NotFinite` for no numbers in float32: narrower ones are given another
    try when they serve."""
    encoder = family.text_encoder(device, dtype)
    [encoded] = encoder(["a picture"])
    found = {name: int(tensor.shape[-1]) for name, tensor in encoded.tensors.items()}
    if found != family.widths:
        raise Misconfigured(
            f"the text encoders give {_numbers(found)}, and the network is told "
            f"{_numbers(family.widths)}"
        )
    if not encoded.finite and dtype is torch.float32:
        raise NotFinite("what the text encoders make of a prompt is not finite")
    return encoder


def _numbers(widths: Mapping[str, int]) -> str:
    return " and ".join(f"{width} numbers ({name})" for name, width in widths.items())
