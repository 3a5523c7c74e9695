"""Tokens of several images, packed one behind the other, and what a FLUX block does to them.

All images have the same number of prompt tokens, and any number of their own. What is the same for
all of them is done at once; what differs from image to image is done on views, image by image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from shared.families.flux.transformer import Rotary


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Some tokens of F images, packed (T,): of each image its prompt's, then its own."""

    prompt: int
    """Tokens of each prompt."""
    counts: tuple[int, ...]
    """Tokens of each image, those of its prompt among them."""
    places: torch.Tensor
    """(T,), int64: where each is among all tokens of its image."""
    turns: torch.Tensor
    """(T, 1, width / 2), complex: what its place multiplies each pair of channels by."""

    @classmethod
    def of(cls, own: Sequence[torch.Tensor], prompt: int, rotary: Rotary) -> "Tokens":
        """`own`: of each image, the places of its own tokens among its own."""
        first = torch.arange(prompt, device=rotary[0].device)
        places = torch.cat([part for each in own for part in (first, each + prompt)])
        cos, sin = (table[:, ::2].float()[places, None] for table in rotary)  # alike in pairs
        counts = tuple(prompt + len(each) for each in own)
        return cls(prompt, counts, places, torch.complex(cos, sin))

    def split(self, packed: torch.Tensor) -> Sequence[torch.Tensor]:
        """What is each image's."""
        return split(packed, self.counts)

    def own(self, packed: torch.Tensor) -> torch.Tensor:
        """Images' own tokens."""
        return joined([each[self.prompt :] for each in self.split(packed)])

    def prompts(self, packed: torch.Tensor) -> torch.Tensor:
        return joined([each[: self.prompt] for each in self.split(packed)])

    def together(self, prompts: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """What `prompts` and `own` made these of."""
        each = zip(split(prompts, self.prompt_counts), split(own, self.own_counts), strict=True)
        return torch.cat([part for pair in each for part in pair])

    @property
    def own_counts(self) -> list[int]:
        return [count - self.prompt for count in self.counts]

    @property
    def prompt_counts(self) -> list[int]:
        return [self.prompt] * len(self.counts)


def split(packed: torch.Tensor, counts: Sequence[int]) -> Sequence[torch.Tensor]:
    return torch.split(packed, list(counts))


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """One behind the other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def modulated(
    norm: Any, x: torch.Tensor, told: Sequence[torch.Tensor], counts: Sequence[int]
) -> torch.Tensor:
    """x (T, D), `counts` of each image, normed, and shifted and scaled as `told` (F, D) first says
    of each image."""
    shift, scale = told[:2]
    each = zip(split(x, counts), 1 + scale, shift, strict=True)
    return joined([layer_norm(part, norm.normalized_shape, s, b, norm.eps) for part, s, b in each])


def gated(
    x: torch.Tensor, gate: torch.Tensor, update: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """x + gate · update, by what is each image's gate (F, D); written to `update`."""
    for part, own, out in zip(split(x, counts), gate, split(update, counts), strict=True):
        torch.addcmul(part, own, out, out=out)
    return update


def heads(packed: torch.Tensor, width: int) -> torch.Tensor:
    """(T, D) as (T, heads, width)."""
    return packed.view(len(packed), -1, width)


def normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """`RMSNorm` of heads x (T, heads, width): torch's takes twice as many passes on a CPU."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = length.square_().div_(x.shape[-1]).add_(norm.eps).rsqrt_()
    scaled: torch.Tensor = (x * scale).mul_(norm.weight)
    return scaled.to(x.dtype)


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Heads x (T, heads, width) by the rotary embedding of their places."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Of one image: q (Q, heads, width), k and v (heads, K, width). Returns (Q, D)."""
    found = scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None])
    return found[0].transpose(0, 1).flatten(1)
