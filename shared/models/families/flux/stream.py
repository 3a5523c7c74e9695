"""What passes through FLUX's blocks, and how it is made of latents and made into them again."""

from typing import Final, NamedTuple

import torch

PATCH: Final = 2
Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines (L + N, head width) of the places of all tokens, the text's first."""


class Stream(NamedTuple):
    """What passes through the blocks, of F images: both parts attend to each other in each."""

    image: torch.Tensor
    """(F, N, D): the latents, a token for each patch."""
    text: torch.Tensor
    """(F, L, D)"""


class Context(NamedTuple):
    """What every block takes beside the stream."""

    temb: torch.Tensor
    """(F, D): time, guidance and the pooled prompt."""
    rotary: Rotary


def packed(x: torch.Tensor) -> torch.Tensor:
    """Latents (F, C, H, W) as tokens (F, H/2 · W/2, 4C): one for each 2x2 patch."""
    images, channels, height, width = x.shape
    x = x.view(images, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(images, -1, channels * PATCH**2)


def unpacked(tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The latents of `shape` (F, C, H, W) that `packed` made `tokens` of."""
    images, channels, height, width = shape
    tokens = tokens.view(images, height // PATCH, width // PATCH, channels, PATCH, PATCH)
    return tokens.permute(0, 3, 1, 4, 2, 5).reshape(shape)
