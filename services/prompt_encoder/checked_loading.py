"""Loads text encoders, and asks them for a prompt once before they serve."""

from collections.abc import Mapping

import torch

from shared.errors import Misconfigured, NotFinite
from shared.models.contracts.family import Family
from shared.models.contracts.text_encoder import TextEncoder


def load_checked(family: Family, device: str, dtype: torch.dtype) -> TextEncoder:
    """The family's text encoders, loaded. Raises `Misconfigured` if they do not give what the
    network takes, and `NotFinite` if what they give in float32 is not finite. In a narrower dtype
    that is no error: such a prompt is encoded once more in float32 when they serve."""
    encoder = family.text_encoder(device, dtype)
    [encoded] = encoder(["an image"])
    found = {name: int(tensor.shape[-1]) for name, tensor in encoded.tensors.items()}
    if found != family.widths:
        raise Misconfigured(
            f"the text encoders give {_numbers(found)}, and the network takes "
            f"{_numbers(family.widths)}"
        )
    if not encoded.finite and dtype is torch.float32:
        raise NotFinite("what the text encoders make of a prompt is not finite")
    return encoder


def _numbers(widths: Mapping[str, int]) -> str:
    return " and ".join(f"{width} numbers ({name})" for name, width in widths.items())
