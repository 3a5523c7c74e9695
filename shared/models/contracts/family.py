"""What a new architecture must provide: a `Family`, and behind it a `TextEncoder` and a `Network`.

A family is a folder here: `family.py` with a subclass of `Family`, which knows no torch, one module
for its text encoder (`shared.models.contracts.text_encoder.TextEncoder`) and one for its denoising
network (`shared.models.contracts.network.Network`). It is listed in `registry.py`. Nothing else in
the project knows what a model's architecture is: requests, graphs, queues, batching, samplers,
checkpoints, LoRA banks, latent parallelism and decoding are the same for all.

Common to all families: diffusers' directory layout, with the autoencoder in `vae/`; rows of latents
(C, H, W), which only the network packs in patches; a scheduler config from which the samplers
follow (`shared/models/samplers/samplers.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from shared.errors import Misconfigured
from shared.models.contracts.autoencoder import FOLDER, AutoencoderKind, LatentSpace
from shared.models.contracts.makers import Wanted
from shared.models.contracts.options import Options
from shared.models.files.directory import read_json, scheduler_config
from shared.models.files.layers import Piece, biased_layers, layer_shapes
from shared.models.files.safetensors_header import Shapes
from shared.models.samplers.samplers import Prediction

if TYPE_CHECKING:  # planners and gateways, which have no torch, look into families
    import torch

    from shared.models.contracts.controlnet import ControlNet
    from shared.models.contracts.network import Network
    from shared.models.contracts.text_encoder import TextEncoder

LIBRARIES: Final = ("diffusers", "transformers")
"""Whose classes a `model_index.json` may name: others are code that comes with a model."""


Shape = Literal["sequence", "vector"]
"""Of one image's conditioning: (tokens, width), or (width,)."""


class Family(ABC):
    """The architecture of the model in directory or hub id `source`."""

    architecture: str
    """What people call it."""
    pipeline: ClassVar[str]
    """Class in `model_index.json` by which models of this family are known."""
    denoiser: ClassVar[str]
    """Folder of the denoising network."""
    text_encoders: ClassVar[tuple[str, ...]]
    """Folders of the text encoders."""
    tokenizers: ClassVar[Mapping[str, tuple[frozenset[str], ...]]]
    """Folders of the tokenizers; each has the files of one of these sets."""
    lora_encoders: ClassVar[Mapping[str, str]]
    """What text encoders are called in the keys of LoRAs (see `shared/models/loras/keys.py`), and
    the folder of each."""
    control: ClassVar[str | None]
    """Class of the ControlNets that fit; None: there are none."""
    control_options: ClassVar[Options | None]
    """Of those, as far as they are honoured."""
    options: ClassVar[Options]
    """Of the denoising network, as far as they are honoured."""
    autoencoder: ClassVar[AutoencoderKind]
    """What turns pixels into latents, and back."""
    classes: ClassVar[Mapping[str, str]]
    """Of the other components that `model_index.json` may name."""
    predictions: ClassVar[frozenset[Prediction]]
    """What networks may predict for its pipeline to draw with them."""
    conditioning: ClassVar[Mapping[str, Shape]]
    """The tensors that its text encoders give, and its network takes, by name. Records of jobs have
    these names, and messages handles in this order: neither may change while jobs are running."""
    patch: ClassVar[int]
    """Latent positions, each way, that the network sees as one."""
    masks: ClassVar[bool]
    """Whether its network can compute the masked tokens of an image alone (`MaskedNetwork`)."""
    even_sigmas: ClassVar[bool]
    """Whether its pipeline overrules the flow scheduler's noise levels: see `read_schedule`."""
    corrections: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Of settings of its scheduler: what its pipeline sets, whatever the config says."""
    rounds_up: ClassVar[bool]
    """Whether its image-to-image pipeline takes a step that `strength` asks for a part of."""

    def __init__(self, source: str, config: Mapping[str, Any]) -> None:
        """`config`: of the denoising network."""
        self.source, self.config = source, config

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source}>"

    def refuse_unhonoured(self, index: Mapping[str, Any]) -> None:
        """Raises `Misconfigured` naming what the model's config, or its `model_index.json`, asks
        for that is not honoured."""
        for component, served in {FOLDER: self.autoencoder.options.kind, **self.classes}.items():
            named = index.get(component, [LIBRARIES[0], served])
            library, kind = named if isinstance(named, list) and len(named) == 2 else ("", named)
            if kind != served:
                raise Misconfigured(
                    f"model_index.json: {component} is a {kind}; served is {served}"
                )
            if library not in LIBRARIES:
                raise Misconfigured(
                    f"model_index.json: {component} is a {kind} of {library!r}; served are those "
                    f"of {' and '.join(LIBRARIES)}"
                )
        self.options.check(self.denoiser, self.config)
        self.refuse_misfits()
        vae = read_json(self.source, FOLDER, "config.json")
        self.autoencoder.check(vae, self.latent_channels, self.pipeline)

    @abstractmethod
    def refuse_misfits(self) -> None:
        """Raises `Misconfigured` if the network does not fit the text encoders, or itself."""

    @property
    @abstractmethod
    def native_side(self) -> int:
        """Latent positions of the width and height it was trained for."""

    @property
    @abstractmethod
    def latent_channels(self) -> int: ...

    @cached_property
    def space(self) -> LatentSpace:
        """Of its latents. Raises `Misconfigured`."""
        return self.autoencoder.space_of(self.source)

    @cached_property
    def scheduler(self) -> Mapping[str, Any]:
        """The config of its scheduler, as its pipeline takes it. Raises `Misconfigured`."""
        return {**scheduler_config(self.source), **self.corrections}

    @abstractmethod
    def wanted(self, names: Sequence[str]) -> Wanted | None:
        """How a distilled model of these names is drawn by default; None: as all others."""

    def sequence_length(self, rows: int, columns: int) -> int:
        """Tokens that an image of so many latent positions is to the network: the noise levels of
        some schedulers depend on it."""
        return rows * columns // self.patch**2

    @property
    @abstractmethod
    def embedded_guidance(self) -> bool:
        """Whether guidance is one of the network's scalars, and not a second forward."""

    @property
    @abstractmethod
    def default_guidance(self) -> float:
        """Of a model whose files do not say."""

    @property
    @abstractmethod
    def widths(self) -> Mapping[str, int]:
        """Of the tensors of `conditioning`, as the network takes them."""

    @abstractmethod
    def scalars(self, width: int, height: int, guidance: float) -> tuple[float, ...]:
        """The scalars of an image: its size in pixels and its guidance, as far as the network
        takes them. There are equally many for every image."""

    @abstractmethod
    def lora_names(self, part: str) -> Mapping[str, tuple[Piece, ...]]:
        """What else LoRAs call the layers of the network in folder `part`: each name is one layer,
        or several whose outputs are side by side."""

    @cached_property
    def layers(self) -> Mapping[str, Shapes]:
        """The weights that a LoRA may change, of each network whose files are on this host."""
        return {part: layer_shapes(self.source, part) for part in self.parts}

    @cached_property
    def biased(self) -> Mapping[str, frozenset[str]]:
        """Those of `layers` that have a bias."""
        return {part: biased_layers(self.source, part) for part in self.parts}

    @property
    def components(self) -> tuple[str, ...]:
        """Folders of all that has weights."""
        return (self.denoiser, *self.text_encoders, FOLDER)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders of the networks that LoRAs may have weights for."""
        return (self.denoiser, *self.text_encoders)

    @abstractmethod
    def text_encoder(self, device: str, dtype: torch.dtype) -> TextEncoder:
        """Loaded, and nothing else of the model."""

    @abstractmethod
    def network(self, device: str, dtype: torch.dtype) -> Network:
        """The denoising network, loaded, as it runs fastest; and nothing else of the model."""

    @classmethod
    def control_interface(cls, config: Mapping[str, Any]) -> str | None:
        """What a denoising network and a ControlNet with these configs must have in common; None if
        it is no network of this family, or there are no ControlNets."""
        return None

    @classmethod
    def control_network(cls, source: str, device: str, dtype: torch.dtype) -> ControlNet:
        """The ControlNet in directory or hub id `source`, loaded. Raises `Misconfigured`."""
        raise Misconfigured(f"{source!r} is no ControlNet: {cls.architecture} has none")
