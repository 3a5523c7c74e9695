"""One layer's share of a bank: what the adapters of each image add to the layer's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from shared.models.lowrank.merged import Layer, dora_factor, product, view_as_weight
from shared.models.lowrank.weights import LowRank

EXPANDED_BYTES: Final = 4 * 1024 * 1024
"""A layer's share is stored for each image instead of each set, if it takes no more than this: it
need not be gathered in every step then."""
UseSet = tuple[tuple[LowRank, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class LayerBank:
    """S different sets of adapters, for I images of the batch.

    `down` (S, R, in, ...), `up` (S, out, R), R being the highest sum of ranks; `images` (I,) are
    those that have any, None: all; `sets` (I,) which one, None: the i-th image the i-th. Where a
    set has more than products: `factor`, `offset` (S, out), what the layer's own output is
    multiplied by, and what is added then; `inputs` (S, in), of which share of its inputs the
    layer's own weights count once more."""

    down: torch.Tensor
    up: torch.Tensor
    images: torch.Tensor | None
    sets: torch.Tensor | None
    factor: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    inputs: torch.Tensor | None = None

    def of_images(self) -> "LayerBank":
        """With a set of its own for each image."""
        sets = self.sets
        if sets is None:
            return self
        factor, offset, inputs = (
            None if each is None else each[sets] for each in (self.factor, self.offset, self.inputs)
        )
        return LayerBank(self.down[sets], self.up[sets], self.images, None, factor, offset, inputs)


def stack(wanted: Mapping[int, UseSet], images: int, layer: Layer) -> LayerBank:
    """Of a layer in which those of the `images` that are keys of `wanted` have adapters."""
    weight = layer.weight
    sets = list(dict.fromkeys(wanted.values()))
    number = {each: i for i, each in enumerate(sets)}
    which = torch.tensor([number[each] for each in wanted.values()], device=weight.device)
    own = torch.tensor(list(wanted), device=weight.device)
    bank = _products(sets, layer, None if len(wanted) == images else own, which)
    if len(sets) > 1 and len(wanted) * (bank.down[0].nbytes + bank.up[0].nbytes) <= EXPANDED_BYTES:
        return bank.of_images()
    return bank


def _products(
    sets: Sequence[UseSet], layer: Layer, images: torch.Tensor | None, which: torch.Tensor
) -> LayerBank:
    weight = layer.weight
    rank = max(sum(low_rank.rank for low_rank, _ in each) for each in sets)
    down = weight.new_zeros(len(sets), rank, *weight.shape[1:])
    up = weight.new_zeros(len(sets), weight.shape[0], rank)
    for i, each in enumerate(sets):
        at = 0
        for low_rank, scale in each:
            end = at + low_rank.rank
            down[i, at:end] = low_rank.down
            up[i, :, at:end] = scale * low_rank.up.flatten(1)
            at = end
    bank = LayerBank(down, up, images, which)
    plain = all(low.magnitude is None and low.bias is None for each in sets for low, _ in each)
    return bank if plain else _with_more(bank, sets, layer)


def _with_more(bank: LayerBank, sets: Sequence[UseSet], layer: Layer) -> LayerBank:
    """`bank` with the biases and magnitudes of the `sets`. With DoRA by output the weights so far
    and the adapter's own product count `g` times, as in PEFT: those of earlier adapters too. By
    input, `(W + P) g = W + W (g - 1) + P g`."""
    weight = layer.weight.float()
    factor = weight.new_ones(bank.up.shape[:2])
    offset = torch.zeros_like(factor)
    inputs = weight.new_zeros(len(sets), weight.shape[1])
    for i, each in enumerate(sets):
        at = 0
        for low_rank, scale in each:
            rows = slice(at, at := at + low_rank.rank)
            if low_rank.bias is not None:
                offset[i] += scale * low_rank.bias.to(offset)
            if low_rank.magnitude is None:
                continue
            gain = dora_factor(low_rank, weight, scale * product(low_rank, weight))
            if low_rank.by_input:
                inputs[i] += gain - 1
                bank.down[i, rows] *= view_as_weight(gain, weight, by_input=True)
            else:
                factor[i] *= gain
                offset[i] *= gain
                bank.up[i, :, :at] *= gain[:, None]
    if layer.bias is not None:
        offset -= (factor - 1) * layer.bias
    kind = layer.weight.dtype
    by_input = any(low.by_input for each in sets for low, _ in each)
    return replace(
        bank,
        factor=factor.to(kind),
        offset=offset.to(kind),
        inputs=inputs.to(kind) if by_input else None,
    )


def add_adapted(
    layer: nn.Module, x: torch.Tensor, output: torch.Tensor, bank: LayerBank
) -> torch.Tensor:
    """`output`, the layer's answer to `x` for the bank's images, with what their adapters add."""
    if len(bank.down) > 1:
        bank = bank.of_images()
    if bank.factor is not None and bank.offset is not None:
        output = output * _channels(bank.factor, output, layer)
        output = output + _channels(bank.offset, output, layer)
    if bank.inputs is not None:
        output = output + _unbiased(layer, x * _channels(bank.inputs, x, layer))
    if isinstance(layer, nn.Conv2d):
        return output + _convolved(layer, x, bank)
    if len(bank.down) == 1:
        inner = x.reshape(-1, x.shape[-1]) @ bank.down[0].T
        return torch.addmm(output.view(len(inner), -1), inner, bank.up[0].T).view_as(output)
    inner = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), bank.down.transpose(1, 2))
    flat = output.view(*inner.shape[:2], -1)
    return torch.baddbmm(flat, inner, bank.up.transpose(1, 2)).view_as(output)


def _channels(each: torch.Tensor, like: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """(S, channels) in the dimensions of `like`, an input or output of `layer`."""
    inner = [1] * (like.dim() - 2)
    shape = (*each.shape, *inner) if isinstance(layer, nn.Conv2d) else (len(each), *inner, -1)
    return each.view(shape)


def _unbiased(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the layer's own weights make of `x`."""
    if isinstance(layer, nn.Conv2d):
        return nn.functional.conv2d(
            x,
            layer.weight,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
        )
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return nn.functional.linear(x, weight)


def _convolved(layer: nn.Conv2d, x: torch.Tensor, bank: LayerBank) -> torch.Tensor:
    """Every image with its own kernels: a convolution with a group for each."""
    images, rank = len(x), bank.down.shape[1]
    inner = nn.functional.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        bank.down.expand(images, *bank.down.shape[1:]).flatten(0, 1),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=images,
    )
    height, width = inner.shape[-2:]
    up = bank.up.expand(images, *bank.up.shape[1:])
    added = torch.bmm(up, inner.view(images, rank, -1))
    return added.view(images, -1, height, width)
