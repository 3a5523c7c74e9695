"""Adapters of a batch whose images want different ones: one low-rank product per layer for all.

Every image has its own set of adapters. Side by side, `down` and `up` of the adapters of a set are
one adapter of the sum of their ranks, which gives `Σ scale · up · down` and no cross terms. Sets of
lower ranks are filled up with zeros, so that one batched product serves them all (Punica, arXiv
2310.18547, does it in a kernel of its own).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from shared.errors import AdapterUnusable
from shared.models.files.layers import CLIP
from shared.models.lowrank.layer_bank import LayerBank, UseSet, add_adapted, stack
from shared.models.lowrank.merged import Layer, merge, products
from shared.models.lowrank.weights import Adapter, LowRank
from shared.models.weights.originals import Originals
from shared.models.weights.pages import FilePages
from shared.residency.item import Pieces

Use = tuple[Adapter, float]
"""An adapter and its scale."""
Products = Mapping[str, Sequence[torch.Tensor]]
"""By layer, what some adapters add to its weights, each for itself."""
_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """`layers`: by name; those that no image's adapters touch are absent."""

    layers: Mapping[str, LayerBank]


class AdaptedNetwork:
    """A network that computes with a bank while one is in use, or with adapters in its weights. Not
    for several threads at once."""

    def __init__(self, part: str, module: nn.Module) -> None:
        """`part` as in `Family.parts`."""
        self._part = part
        self._layers = {
            name: layer for name, layer in module.named_modules() if isinstance(layer, Layer)
        }
        self._hooked: set[str] = set()
        self._bank: Bank | None = None
        self._originals = Originals()
        """Of layers that adapters are merged into."""

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
        touched: dict[str, dict[int, UseSet]] = {}
        for image, uses in enumerate(images):
            for adapter, scale in uses:
                for name, low_rank in adapter.parts.get(self._part, {}).items():
                    sets = touched.setdefault(self._here(name), {})
                    sets[image] = (*sets.get(image, ()), (low_rank, scale))
        if not touched:
            return None
        count = len(images)
        return Bank(
            {name: stack(sets, count, self._layers[name]) for name, sets in touched.items()}
        )

    def product_bytes(self, uses: Sequence[Use]) -> int:
        """Of the products of the adapters `uses`."""
        touched = self._touched(uses)
        return sum(
            4 * len(each) * self._layers[name].weight.numel() for name, each in touched.items()
        )

    def products(self, uses: Sequence[Use]) -> Pieces[Products]:
        """What `merge` has to add for the adapters `uses`, all of them checked, layer by layer. The
        weights are not looked at: they may be changed meanwhile."""
        found = {}
        for name, each in self._touched(uses).items():
            found[name] = products(self._layers[name], each)
            yield 0  # nothing is moved
        return found

    @torch.no_grad()
    def merge(self, uses: Sequence[Use], prepared: Products | None = None) -> None:
        """From now on the weights themselves have the adapters `uses`, all of them checked, and no
        others; for none, they are what they were, bit for bit. Should it fail, so they are too.
        `prepared`: their products, which then need not be computed."""
        self._originals.restore()
        pages = FilePages.mapped()
        try:
            for name, each in self._touched(uses).items():
                layer = self._layers[name]
                self._originals.keep(layer.weight, pages)
                if layer.bias is not None and any(one.bias is not None for one, _ in each):
                    self._originals.keep(layer.bias, pages)
                merge(layer, each, None if prepared is None else prepared[name])
        except BaseException:
            self._originals.restore()
            raise

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

    def _touched(self, uses: Sequence[Use]) -> dict[str, list[tuple[LowRank, float]]]:
        """By layer, what the adapters `uses` have for it, in their order."""
        touched: dict[str, list[tuple[LowRank, float]]] = {}
        for adapter, scale in uses:
            for name, low_rank in adapter.parts.get(self._part, {}).items():
                touched.setdefault(self._here(name), []).append((low_rank, scale))
        return touched

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
                return add_adapted(layer, inputs[0], output, bank)
            part = add_adapted(layer, inputs[0][bank.images], output[bank.images], bank)
            return output.index_copy(0, bank.images, part)

        return add


class AdaptedModule:
    """That part of a `Network` which is about adapters, for one whose module is `adapted`."""

    adapted: AdaptedNetwork

    def check(self, adapter: Adapter) -> None:
        self.adapted.check(adapter)

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return self.adapted.bank(images)

    def product_bytes(self, uses: Sequence[Use]) -> int:
        return self.adapted.product_bytes(uses)

    def products(self, uses: Sequence[Use]) -> Pieces[Products]:
        return self.adapted.products(uses)

    def merge(self, uses: Sequence[Use], prepared: Products | None = None) -> None:
        self.adapted.merge(uses, prepared)
