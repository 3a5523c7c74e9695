"""Tokens of several images, packed one behind the other, and what differs from image to image.

All images have the same number of prompt tokens, and any number of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import layer_norm

from shared.models.families.flux.stream import Rotary


@dataclass(frozen=True, eq=False)
class Tokens:
    """Some tokens of F images, packed (T,): of each image its prompt's, then its own."""

    prompt: int
    """Tokens of each prompt."""
    counts: tuple[int, ...]
    """Tokens of each image, those of its prompt among them."""
    places: torch.Tensor
    """(T,), int64: where each is among all tokens of its image."""
    rotations: torch.Tensor
    """(T, 1, width / 2), complex: what its place multiplies each pair of channels by."""

    @classmethod
    def of(cls, own: Sequence[torch.Tensor], prompt: int, rotary: Rotary) -> "Tokens":
        """`own`: of each image, the places of its own tokens among its own."""
        first = torch.arange(prompt, device=rotary[0].device)
        places = torch.cat([part for each in own for part in (first, each + prompt)])
        cos, sin = (table[:, ::2].float()[places, None] for table in rotary)  # alike in pairs
        rotations = torch.complex(cos, sin)
        return cls(prompt, tuple(prompt + len(each) for each in own), places, rotations)

    @cached_property
    def prompt_rotations(self) -> torch.Tensor:
        return self.prompts(self.rotations)

    @cached_property
    def own_rotations(self) -> torch.Tensor:
        return self.own(self.rotations)

    @cached_property
    def prompt_counts(self) -> tuple[int, ...]:
        return (self.prompt,) * len(self.counts)

    @cached_property
    def own_counts(self) -> tuple[int, ...]:
        return tuple(count - self.prompt for count in self.counts)

    def split(self, packed: torch.Tensor) -> Sequence[torch.Tensor]:
        """What is each image's."""
        return split(packed, self.counts)

    def prompts(self, packed: torch.Tensor) -> torch.Tensor:
        """Those of prompts, packed."""
        return joined([each[: self.prompt] for each in self.split(packed)])

    def own(self, packed: torch.Tensor) -> torch.Tensor:
        """Those of images, packed."""
        return joined([each[self.prompt :] for each in self.split(packed)])

    def together(self, prompts: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """What was made into `prompts` and `own`."""
        each = zip(split(prompts, self.prompt_counts), split(own, self.own_counts), strict=True)
        return torch.cat([part for pair in each for part in pair])


def split(packed: torch.Tensor, counts: Sequence[int]) -> Sequence[torch.Tensor]:
    return (packed,) if len(counts) == 1 else torch.split(packed, list(counts))


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """One behind the other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def modulated(
    norm: Any, x: torch.Tensor, modulation: Sequence[torch.Tensor], counts: Sequence[int]
) -> torch.Tensor:
    """x (T, D), `counts` of each image, normalised, then shifted and scaled by the first two of
    `modulation` (F, D)."""
    shift, scale = modulation[:2]
    each = zip(split(x, counts), 1 + scale, shift, strict=True)
    return joined([layer_norm(part, norm.normalized_shape, s, b, norm.eps) for part, s, b in each])


def gated(
    x: torch.Tensor, gate: torch.Tensor, update: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """x + gate · update, by what is each image's gate (F, D); written to `update`."""
    for part, own, out in zip(split(x, counts), gate, split(update, counts), strict=True):
        torch.addcmul(part, own, out, out=out)
    return update
