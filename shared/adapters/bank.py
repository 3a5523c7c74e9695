"""Adapters of a batch whose images want different ones: one low-rank product per layer for all.

Every image has its own set of adapters. Side by side, `down` and `up` of the adapters of a set are
one adapter of the sum of their ranks, which gives `Σ scale · up · down` and no cross terms. Sets of
lower ranks are filled up with zeros, so that one batched product serves them all (Punica, arXiv
2310.18547, does it in a kernel of its own).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from shared.adapters.adapter import Adapter, LowRank
from shared.errors import AdapterUnusable
from shared.families.layers import CLIP

Use = tuple[Adapter, float]
"""An adapter and its scale."""
EXPANDED_BYTES: Final = 4 * 1024 * 1024
"""A layer's share is stored for each image instead of each set, if it takes no more than this: it
need not be gathered in every step then."""
Layer = nn.Linear | nn.Conv2d
_Set = tuple[tuple[LowRank, float], ...]
_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LayerBank:
    """One layer's share of a bank: S different sets of adapters, for I images of the batch.

    `down` (S, R, in, ...), `up` (S, out, R), R being the highest sum of ranks; `images` (I,) are
    those that have any, None: all; `sets` (I,) which one, None: the i-th image the i-th. `factor`,
    `offset` (S, out): what the layer's own output is multiplied by, and what is added then; None:
    by one, and nothing."""

    down: torch.Tensor
    up: torch.Tensor
    images: torch.Tensor | None
    sets: torch.Tensor | None
    factor: torch.Tensor | None = None
    offset: torch.Tensor | None = None

    def of_images(self) -> "LayerBank":
        """With a set of its own for each image."""
        if self.sets is None:
            return self
        sets, factor, offset = self.sets, self.factor, self.offset
        return LayerBank(
            self.down[sets],
            self.up[sets],
            self.images,
            None,
            None if factor is None else factor[sets],
            None if offset is None else offset[sets],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """`layers`: by name; those that no image's adapters touch are absent."""

    layers: Mapping[str, LayerBank]


class AdaptedNetwork:
    """A network that computes with a bank while one is in use, or with adapters in its weights. Not
    for several threads at once."""

    def __init__(self, part: str, module: nn.Module) -> None:
        """`part` as in `Family.lora_keys`."""
        self._part = part
        self._layers = {
            name: layer for name, layer in module.named_modules() if isinstance(layer, Layer)
        }
        self._hooked: set[str] = set()
        self._bank: Bank | None = None
        self._originals: dict[torch.Tensor, torch.Tensor] = {}
        """Weights and biases as they were, of layers that adapters are merged into."""

    def check(self, adapter: Adapter) -> None:
        """Raises `AdapterUnusable` if `adapter` has weights for a layer that is not here, or is of
        another shape."""
        for name, low_rank in adapter.parts.get(self._part, {}).items():
            layer = self._layers.get(self._here(name))
            if layer is None:
                raise AdapterUnusable(adapter.name, f"this model has no layer {self._part}.{name}")
            if not low_rank.fits(layer.weight):
                found = f"{tuple(low_rank.down.shape)} and {tuple(low_rank.up.shape)}"
                raise AdapterUnusable(
                    adapter.name,
                    f"{self._part}.{name} is {tuple(layer.weight.shape)} in this model, and the "
                    f"adapter's matrices are {found}",
                )
            if low_rank.bias is not None and layer.bias is None:
                raise AdapterUnusable(
                    adapter.name, f"{self._part}.{name} has no bias in this model, the adapter has"
                )

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        """The bank for a batch in which image i has the adapters `images[i]`, all of them checked;
        None if nothing changes."""
        touched: dict[str, dict[int, _Set]] = {}
        for image, uses in enumerate(images):
            for adapter, scale in uses:
                for name, low_rank in adapter.parts.get(self._part, {}).items():
                    sets = touched.setdefault(self._here(name), {})
                    sets[image] = (*sets.get(image, ()), (low_rank, scale))
        if not touched:
            return None
        count = len(images)
        return Bank(
            {name: _stacked(sets, count, self._layers[name]) for name, sets in touched.items()}
        )

    @torch.no_grad()
    def merge(self, uses: Sequence[Use]) -> None:
        """From now on the weights themselves have the adapters `uses`, all of them checked, and no
        others; for none, they are what they were, bit for bit. Should it fail, so they are too."""
        self._restore()
        touched: dict[str, list[tuple[LowRank, float]]] = {}
        for adapter, scale in uses:
            for name, low_rank in adapter.parts.get(self._part, {}).items():
                touched.setdefault(self._here(name), []).append((low_rank, scale))
        try:
            for name, each in touched.items():
                layer = self._layers[name]
                biased = any(low_rank.bias is not None for low_rank, _ in each)
                self._originals[layer.weight] = layer.weight.clone()
                if biased and layer.bias is not None:
                    self._originals[layer.bias] = layer.bias.clone()
                _merge(layer, each)
        except BaseException:
            self._restore()
            raise

    def _restore(self) -> None:
        for parameter, original in self._originals.items():
            parameter.copy_(original)
        self._originals.clear()

    @contextlib.contextmanager
    def using(self, bank: Bank | None) -> Iterator[None]:
        """Within, forwards of the network compute with `bank`, whose images they must have."""
        if bank is not None:
            self._hook(bank)
        self._bank = bank
        try:
            yield
        finally:
            self._bank = None

    def _here(self, name: str) -> str:
        """The layer's name in this network: CLIP's once stood in a `text_model` of its own."""
        if name in self._layers:
            return name
        bare = name.removeprefix(CLIP)
        return bare if bare in self._layers else CLIP + name

    def _hook(self, bank: Bank) -> None:
        for name in bank.layers.keys() - self._hooked:
            self._layers[name].register_forward_hook(self._adding(name))
            self._hooked.add(name)

    def _adding(self, name: str) -> _Hook:
        def add(
            layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            bank = None if self._bank is None else self._bank.layers.get(name)
            if bank is None:
                return output
            if bank.images is None:
                return _added(layer, inputs[0], output, bank)
            part = _added(layer, inputs[0][bank.images], output[bank.images], bank)
            return output.index_copy(0, bank.images, part)

        return add


def _gain(low_rank: LowRank, scale: float, layer: Layer) -> torch.Tensor | None:
    """(out,): how much more the layer's own weights count; None for a plain adapter."""
    if low_rank.magnitude is None:
        return None
    weight = layer.weight.float()
    factor = _dora_factor(low_rank.magnitude, weight, scale * _product(low_rank, weight))
    return (factor - 1).to(layer.weight.dtype)


def _merge(layer: Layer, uses: Sequence[tuple[LowRank, float]]) -> None:
    """Change the weights of `layer` for good."""
    changed = weight = layer.weight.float()
    for low_rank, scale in uses:
        product = scale * _product(low_rank, weight)
        if low_rank.magnitude is None:
            changed = changed + product
        else:
            factor = _dora_factor(low_rank.magnitude, weight, product)
            changed = changed + _over_outputs(factor, weight) * (weight + product) - weight
        if low_rank.bias is not None and layer.bias is not None:
            layer.bias += scale * low_rank.bias.to(layer.bias)
    layer.weight.copy_(changed)


def _product(low_rank: LowRank, weight: torch.Tensor) -> torch.Tensor:
    down, up = low_rank.down.to(weight.device), low_rank.up.to(weight.device)
    return (up.flatten(1) @ down.flatten(1)).view_as(weight)


def _dora_factor(
    magnitude: torch.Tensor, weight: torch.Tensor, product: torch.Tensor
) -> torch.Tensor:
    """(out,): `m / ‖W + product‖`, which DoRA multiplies `W + product` by (arXiv 2402.09353,
    equation 5)."""
    lengths = torch.linalg.vector_norm((weight + product).flatten(1), dim=1)
    return magnitude.to(weight.device) / lengths


def _over_outputs(vector: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return vector.view(-1, *[1] * (weight.dim() - 1))


def _stacked(wanted: Mapping[int, _Set], images: int, layer: Layer) -> LayerBank:
    """Of a layer in which those of the `images` that are keys of `wanted` have adapters."""
    weight = layer.weight
    sets = list(dict.fromkeys(wanted.values()))
    rank = max(sum(low_rank.rank for low_rank, _ in each) for each in sets)
    down = weight.new_zeros(len(sets), rank, *weight.shape[1:])
    up = weight.new_zeros(len(sets), weight.shape[0], rank)
    factor, offset = weight.new_ones(up.shape[:2]), weight.new_zeros(up.shape[:2])
    affine = False
    for i, each in enumerate(sets):
        at = 0
        for low_rank, scale in each:
            end = at + low_rank.rank
            gain = _gain(low_rank, scale, layer)
            down[i, at:end] = low_rank.down
            up[i, :, at:end] = scale * low_rank.up.flatten(1)
            if gain is not None:
                up[i, :, at:end] *= 1 + gain[:, None]
                factor[i] += gain
                offset[i] -= 0 if layer.bias is None else gain * layer.bias
            if low_rank.bias is not None:
                offset[i] += scale * low_rank.bias.to(offset)
            affine = affine or gain is not None or low_rank.bias is not None
            at = end
    number = {each: i for i, each in enumerate(sets)}
    which = torch.tensor([number[each] for each in wanted.values()], device=weight.device)
    own = torch.tensor(list(wanted), device=weight.device)
    bank = LayerBank(down, up, None if len(wanted) == images else own, which)
    if affine:
        bank = dataclasses.replace(bank, factor=factor, offset=offset)
    if len(sets) > 1 and len(wanted) * (down[0].nbytes + up[0].nbytes) <= EXPANDED_BYTES:
        return bank.of_images()
    return bank


def _added(
    layer: nn.Module, x: torch.Tensor, output: torch.Tensor, bank: LayerBank
) -> torch.Tensor:
    """`output`, the layer's answer to `x` for the bank's images, with what their adapters add."""
    if len(bank.down) > 1:
        bank = bank.of_images()
    if bank.factor is not None and bank.offset is not None:
        factor, offset = (_for_outputs(each, output, layer) for each in (bank.factor, bank.offset))
        output = output * factor + offset
    if isinstance(layer, nn.Conv2d):
        return output + _convolved(layer, x, bank)
    if len(bank.down) == 1:
        inner = x.reshape(-1, x.shape[-1]) @ bank.down[0].T
        return torch.addmm(output.view(len(inner), -1), inner, bank.up[0].T).view_as(output)
    inner = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), bank.down.transpose(1, 2))
    flat = output.view(*inner.shape[:2], -1)
    return torch.baddbmm(flat, inner, bank.up.transpose(1, 2)).view_as(output)


def _for_outputs(each: torch.Tensor, output: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """(S, out) in the dimensions of `output`."""
    inner = [1] * (output.dim() - 2)
    shape = (*each.shape, *inner) if isinstance(layer, nn.Conv2d) else (len(each), *inner, -1)
    return each.view(shape)


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
