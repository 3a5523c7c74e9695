"""Adapters of a batch whose images want different ones: one low-rank product per layer for all.

Every image has its own set of adapters. Side by side, `down` and `up` of the adapters of a set are
one adapter of the sum of their ranks, which gives `Σ scale · up · down` and no cross terms. Sets of
lower ranks are filled up with zeros, so that one batched product serves them all (Punica, arXiv
2310.18547, does it in a kernel of its own).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from shared.adapters.adapter import Adapter, LowRank
from shared.errors import AdapterUnusable

Use = tuple[Adapter, float]
"""An adapter and its scale."""
EXPANDED_BYTES: Final = 4 * 1024 * 1024
"""A layer's share is stored for each image instead of each set, if it takes no more than this: it
need not be gathered in every step then."""
_CLIP: Final = "text_model."
_Set = tuple[tuple[LowRank, float], ...]
_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LayerBank:
    """One layer's share of a bank: S different sets of adapters, for I images of the batch.

    `down` (S, R, in, ...), `up` (S, out, R), R being the highest sum of ranks; `images` (I,) are
    those that have any, None: all; `sets` (I,) which one, None: the i-th image the i-th."""

    down: torch.Tensor
    up: torch.Tensor
    images: torch.Tensor | None
    sets: torch.Tensor | None

    def of_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`down` and `up` for each image."""
        if self.sets is None:
            return self.down, self.up
        return self.down[self.sets], self.up[self.sets]


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
            name: layer
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._hooked: set[str] = set()
        self._bank: Bank | None = None
        self._originals: dict[str, torch.Tensor] = {}
        """Weights as they were, of layers that adapters are merged into."""

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
                weight = self._weight(name)
                self._originals[name] = weight.clone()
                changed = weight.float()
                for low_rank, scale in each:
                    down, up = low_rank.down.to(weight.device), low_rank.up.to(weight.device)
                    changed = changed + scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)
                weight.copy_(changed)
        except BaseException:
            self._restore()
            raise

    def _restore(self) -> None:
        for name, original in self._originals.items():
            self._weight(name).copy_(original)
        self._originals.clear()

    def _weight(self, name: str) -> torch.Tensor:
        return self._layers[name].weight

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
        bare = name.removeprefix(_CLIP)
        return bare if bare in self._layers else _CLIP + name

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


def _stacked(wanted: Mapping[int, _Set], images: int, layer: nn.Module) -> LayerBank:
    """Of a layer in which those of the `images` that are keys of `wanted` have adapters."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    sets = list(dict.fromkeys(wanted.values()))
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
    number = {each: i for i, each in enumerate(sets)}
    which = torch.tensor([number[each] for each in wanted.values()], device=weight.device)
    own = torch.tensor(list(wanted), device=weight.device)
    bank = LayerBank(down, up, None if len(wanted) == images else own, which)
    if len(sets) > 1 and len(wanted) * (down[0].nbytes + up[0].nbytes) <= EXPANDED_BYTES:
        return LayerBank(*bank.of_images(), bank.images, None)
    return bank


def _added(
    layer: nn.Module, x: torch.Tensor, output: torch.Tensor, bank: LayerBank
) -> torch.Tensor:
    """`output`, the layer's answer to `x` for the bank's images, with what their adapters add."""
    if isinstance(layer, nn.Conv2d):
        return output + _convolved(layer, x, bank)
    if len(bank.down) == 1:
        inner = x.reshape(-1, x.shape[-1]) @ bank.down[0].T
        return torch.addmm(output.view(len(inner), -1), inner, bank.up[0].T).view_as(output)
    down, up = bank.of_images()
    inner = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), down.transpose(1, 2))
    flat = output.view(*inner.shape[:2], -1)
    return torch.baddbmm(flat, inner, up.transpose(1, 2)).view_as(output)


def _convolved(layer: nn.Conv2d, x: torch.Tensor, bank: LayerBank) -> torch.Tensor:
    """Every image with its own kernels: a convolution with a group for each."""
    down, up = bank.of_images()
    images, rank = len(x), down.shape[1]
    inner = nn.functional.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        down.expand(images, *down.shape[1:]).flatten(0, 1),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=images,
    )
    height, width = inner.shape[-2:]
    added = torch.bmm(up.expand(images, *up.shape[1:]), inner.view(images, rank, -1))
    return added.view(images, -1, height, width)
