"""The autoencoder: pixels to latents and back, as the diffusers pipelines compute them.

Numbers that are not finite never become an image. Where that comes of too narrow a dtype, what is
concerned is computed once more in float32, and says so.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final, NamedTuple, TypeVar

import torch

from shared.errors import NotFinite
from shared.models.contracts.vae import AutoencoderNetwork
from shared.models.families.registry import family_kind

T = TypeVar("T")
WIDENED: Final = (
    "the autoencoder computed in float32, for its own dtype gave numbers that are not finite"
)
"""What the result of such a job says."""


class Posterior(NamedTuple):
    """What an image may be in latents, as the denoiser has them: normally distributed, float32
    (channels, height/8, width/8) each."""

    mean: torch.Tensor
    std: torch.Tensor
    widened: bool = False
    """It was computed in float32, for the model's own dtype was too narrow."""


class Decoded(NamedTuple):
    """uint8 pixels (height, width, 3)."""

    pixels: torch.Tensor
    widened: bool = False
    """As of `Posterior`."""


class Autoencoder:
    """Loads the autoencoder of a model, as its family has it, and nothing else of it."""

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        kind = family_kind(source).autoencoder
        self._network = AutoencoderNetwork.load(kind, source, device, dtype)
        self.dtype = self._network.dtype

    def decode(self, latents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As `decode_each`, the pixels alone. Raises `NotFinite`."""
        return [found.pixels for found in map(_or_raise, self.decode_each(latents))]

    def encode(self, images: Sequence[torch.Tensor]) -> list[Posterior]:
        """As `encode_each`. Raises `NotFinite`."""
        return list(map(_or_raise, self.encode_each(images)))

    @torch.inference_mode()
    def decode_each(self, latents: Sequence[torch.Tensor]) -> list[Decoded | NotFinite]:
        """Each (channels, height/8, width/8), as the denoiser leaves it. Latents of one shape are
        decoded in one batch. Of those that come to no finite pixels, the error."""
        return _by_shape(latents, self._decoded)

    @torch.inference_mode()
    def encode_each(self, images: Sequence[torch.Tensor]) -> list[Posterior | NotFinite]:
        """Each of uint8 pixels (height, width, 3). Images of one shape are encoded in one batch. Of
        those that come to no finite latents, the error."""
        return _by_shape(images, self._encoded)

    def ask(self, width: int, height: int) -> None:
        """Decode latents of so many positions. Raises `NotFinite`, or whatever else decoding
        does."""
        shape = (self._network.space.channels, height, width)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.decode([noise])

    def _decoded(self, latents: torch.Tensor) -> list[Decoded | NotFinite]:
        image = self._network.decode(latents)
        found: list[Decoded | NotFinite] = []
        for number, fine in enumerate(_finite(image)):
            own, widened = image[number : number + 1], not fine
            if widened and self.dtype is not torch.float32:
                own = self._wide.decode(latents[number : number + 1])
            if widened and not all(_finite(own)):
                found.append(NotFinite("the autoencoder's image of the latents is not finite"))
            else:
                found.append(Decoded(_pixels(own)[0], widened))
        return found

    def _encoded(self, pixels: torch.Tensor) -> list[Posterior | NotFinite]:
        # float32 until here, as diffusers' VaeImageProcessor does
        unit = 2.0 * (pixels.permute(0, 3, 1, 2).float() / 255.0) - 1.0
        means, stds = self._network.encode(unit)
        found: list[Posterior | NotFinite] = []
        for number, fine in enumerate(_finite(means + stds)):
            here = slice(number, number + 1)
            mean, std, widened = means[here], stds[here], not fine
            if widened and self.dtype is not torch.float32:
                mean, std = self._wide.encode(unit[here])
            if widened and not all(_finite(mean + std)):
                found.append(NotFinite("the autoencoder's latents of the image are not finite"))
            else:
                found.append(Posterior(mean[0].float().cpu(), std[0].float().cpu(), widened))
        return found

    @cached_property
    def _wide(self) -> AutoencoderNetwork:
        """The same in float32."""
        return self._network.wide()


def _pixels(image: torch.Tensor) -> torch.Tensor:
    unit = (image * 0.5 + 0.5).clamp(0, 1)
    # float before rounding, as diffusers' VaeImageProcessor does
    bytes_ = (unit.permute(0, 2, 3, 1).float().cpu() * 255).round()
    return bytes_.to(torch.uint8)


def _or_raise(found: T | NotFinite) -> T:
    if isinstance(found, NotFinite):
        raise found
    return found


def _finite(batch: torch.Tensor) -> list[bool]:
    found: list[bool] = batch.flatten(1).isfinite().all(1).tolist()
    return found


def _by_shape(
    items: Sequence[torch.Tensor], compute: Callable[[torch.Tensor], Sequence[T]]
) -> list[T]:
    """What `compute` makes of the items; each goes into a batch with those of its shape."""
    found: dict[int, T] = {}
    for shape in {tuple(item.shape) for item in items}:
        same = [i for i, item in enumerate(items) if tuple(item.shape) == shape]
        found.update(zip(same, compute(torch.stack([items[i] for i in same])), strict=True))
    return [found[i] for i in range(len(items))]
