"""What adapters make of one layer's weights."""

from collections.abc import Sequence

import torch
from torch import nn

from shared.models.lowrank.weights import LowRank

Layer = nn.Linear | nn.Conv2d


def product(low_rank: LowRank, weight: torch.Tensor) -> torch.Tensor:
    """`up · down`, in the shape of `weight`."""
    down, up = low_rank.down.to(weight.device), low_rank.up.to(weight.device)
    return (up.flatten(1) @ down.flatten(1)).view_as(weight)


def dora_factor(low_rank: LowRank, weight: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """`m / ‖W + added‖`, which DoRA multiplies `W + added` by (arXiv 2402.09353, equation 5): one
    for each output, or for each input; `view_as_weight` brings it into the shape of the weights.
    Weights without a length stay as they are."""
    assert low_rank.magnitude is not None
    changed = weight + added
    if low_rank.by_input:
        changed = changed.transpose(0, 1)
    lengths = torch.linalg.vector_norm(changed.flatten(1), dim=1)
    return torch.where(lengths > 0, low_rank.magnitude.to(lengths) / lengths, 1.0)


def view_as_weight(factor: torch.Tensor, weight: torch.Tensor, by_input: bool) -> torch.Tensor:
    kernel = [1] * (weight.dim() - 2)
    return factor.view(1, -1, *kernel) if by_input else factor.view(-1, 1, *kernel)


@torch.no_grad()
def products(layer: Layer, uses: Sequence[tuple[LowRank, float]]) -> tuple[torch.Tensor, ...]:
    """What `merge` adds to the weights of `layer` for each of these adapters, in float32."""
    return tuple(scale * product(low_rank, layer.weight) for low_rank, scale in uses)


def _plain(low_rank: LowRank) -> bool:
    """Whether its product is all that it adds."""
    return low_rank.bias is None and low_rank.magnitude is None


@torch.no_grad()
def merge(
    layer: Layer,
    uses: Sequence[tuple[LowRank, float]],
    prepared: Sequence[torch.Tensor] | None = None,
) -> None:
    """Change the weights of `layer` to what a bank of these adapters computes; `prepared`: their
    `products`."""
    each = products(layer, uses) if prepared is None else prepared
    if layer.weight.dtype is torch.float32 and all(_plain(low_rank) for low_rank, _ in uses):
        for added in each:  # as below, with less to move
            layer.weight += added
        return
    changed = weight = layer.weight.float()
    bias = weight.new_zeros(len(weight))
    for (low_rank, scale), added in zip(uses, each, strict=True):
        if low_rank.bias is not None:
            bias = bias + scale * low_rank.bias.to(bias)
        if low_rank.magnitude is None:
            changed = changed + added
            continue
        factor = dora_factor(low_rank, weight, added)
        shaped = view_as_weight(factor, weight, low_rank.by_input)
        if low_rank.by_input:
            changed = changed + shaped * (weight + added) - weight
        else:
            changed, bias = shaped * (changed + added), factor * bias
    layer.weight.copy_(changed)
    if layer.bias is not None and any(low_rank.bias is not None for low_rank, _ in uses):
        layer.bias += bias.to(layer.bias)
