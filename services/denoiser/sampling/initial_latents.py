"""What a row begins as: noise, or an image with noise over it, of which a mask may keep a part.

As diffusers' `StableDiffusionXLImg2ImgPipeline` and `StableDiffusionXLInpaintPipeline` (with a
network of as many channels as latents have) draw and mix; see `Noise` for the order of draws.

If masks are cached, only what lies inside the mask is drawn from the row's seed. What lies outside,
the image's place in its distribution and its noise, is drawn from the image's own content, so that
it is the same in all edits of the image, and with it what the network makes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, Self

import torch

from services.denoiser.sampling.noise import Noise
from services.denoiser.sampling.step_table import StepTable

SEED_DIGITS: Final = 15
"""Of a digest: a seed has 63 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image to begin from, as the autoencoder has it: float32 `mean` and `std` (1, C, H, W), and
    `mask` (1, 1, H, W), 1 where it is drawn anew, 0 where it is kept; None: nothing is kept."""

    mean: torch.Tensor
    std: torch.Tensor | None
    """None: `mean` are latents that another row ended with; these have no mask."""
    mask: torch.Tensor | None = None
    pure: bool = False
    """What is drawn anew begins as pure noise, and has nothing of the image."""
    digest: str | None = None
    """Of `mean` and `std`, in hexadecimal digits, if masks are cached: what lies outside the mask
    is drawn from it. None: from the row's seed."""
    noised: bool = True
    """Noise is drawn over it. False: it is as noisy already as the first step takes it."""

    @property
    def draws(self) -> int:
        """Before the first step: the image's place in its distribution, the noise and, of no use
        but drawn by the inpaint pipeline, the place of the image without what the mask shows."""
        return int(self.std is not None) + int(self.noised) + int(self.mask is not None)


def content_digest(mean: torch.Tensor, std: torch.Tensor) -> str:
    """What `SourceImage.digest` is of an image."""
    return sha256(torch.cat([mean, std]).numpy().tobytes()).hexdigest()


class MaskBlend(NamedTuple):
    """For B rows: the mask (B, 1, H, W), and the image with its noise (B, C, H, W)."""

    mask: torch.Tensor
    image: torch.Tensor
    noise: torch.Tensor

    def to(self, device: torch.device) -> "MaskBlend":
        return MaskBlend(*(tensor.to(device) for tensor in self))

    def over(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """`x` where the mask shows it, else `kept`."""
        return self.mask * x + (1.0 - self.mask) * kept

    @classmethod
    def join(
        cls, each: Sequence["MaskBlend | None"], latents: Sequence[torch.Tensor]
    ) -> "Self | None":
        """Of all rows with these latents; a row that keeps nothing shows everything. None: none
        keeps anything."""
        if all(one is None for one in each):
            return None
        pairs = zip(each, latents, strict=True)
        rows = [_all_shown(x) if kept is None else kept for kept, x in pairs]
        return cls(*(torch.cat(tensors) for tensors in zip(*rows, strict=True)))


def _all_shown(x: torch.Tensor) -> MaskBlend:
    return MaskBlend(torch.ones_like(x[:, :1]), torch.zeros_like(x), torch.zeros_like(x))


def begin(
    image: SourceImage | None, table: StepTable, noise: Noise
) -> tuple[torch.Tensor, MaskBlend | None]:
    """The first latents (1, C, H, W), and what is kept of the image from step to step."""
    if image is None:
        return noise.initial() * table.init_scale, None
    if not image.noised:
        return image.mean, None
    if image.std is None:
        alpha, sigma = table.first
        return alpha * image.mean + sigma * noise.initial(0), None
    place, drawn = noise.initial(0), noise.initial(1)
    if image.digest is not None and image.mask is not None:
        _, channels, height, width = image.mean.shape
        seed = int(image.digest[:SEED_DIGITS], 16)
        others = Noise(seed, (channels, height, width), ahead=2)
        place, drawn = (
            torch.where(image.mask > 0, own, others.initial(k))
            for k, own in enumerate((place, drawn))
        )
    clean = image.mean + image.std * place
    alpha, sigma = table.first
    latents = drawn * table.init_scale if image.pure else alpha * clean + sigma * drawn
    return latents, None if image.mask is None else MaskBlend(image.mask, clean, drawn)
