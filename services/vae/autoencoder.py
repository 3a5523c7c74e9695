"""The autoencoder: pixels to latents and back, as the diffusers pipelines compute them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from shared.model_files import read_json

T = TypeVar("T")


class Posterior(NamedTuple):
    """What an image may be in latents, as the denoiser has them: normally distributed, float32
    (channels, height/8, width/8) each."""

    mean: torch.Tensor
    std: torch.Tensor


class Autoencoder:
    """Loads `vae` of a model, and nothing else of it.

    A model whose config says `force_upcast` (SDXL's overflows in half precision) computes in
    float32 where `dtype` is float16."""

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        config = read_json(source, "vae", "config.json")
        if dtype is torch.float16 and config.get("force_upcast", True):
            dtype = torch.float32
        self._device = device
        self.dtype = dtype
        self._vae: Any = (
            AutoencoderKL.from_pretrained(
                source, subfolder="vae", dtype=dtype, use_safetensors=True
            )
            .to(device, memory_format=torch.channels_last)  # a fifth less CPU time
            .eval()
        )

    @torch.inference_mode()
    def decode(self, latents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each (channels, height/8, width/8), as the denoiser leaves it, to uint8 pixels
        (height, width, 3). Latents of one shape are decoded in one batch."""
        return _by_shape(latents, lambda batch: list(self._decode(batch)))

    @torch.inference_mode()
    def encode(self, images: Sequence[torch.Tensor]) -> list[Posterior]:
        """Each of uint8 pixels (height, width, 3). Images of one shape are encoded in one batch."""
        return _by_shape(images, self._encode)

    def _encode(self, pixels: torch.Tensor) -> list[Posterior]:
        # float32 until here, as diffusers' VaeImageProcessor does
        unit = 2.0 * (pixels.permute(0, 3, 1, 2).float() / 255.0) - 1.0
        found = self._vae.encode(unit.to(self._device, self.dtype), return_dict=False)[0]
        offset, factor = self._scale(found.mean)
        means, stds = (found.mean - offset) * factor, found.std * factor
        pairs = zip(means.float().cpu(), stds.float().cpu(), strict=True)
        return [Posterior(mean, std) for mean, std in pairs]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self._vae.decode(
            self._unscale(latents.to(self._device, self.dtype)), return_dict=False
        )[0]
        unit = (image * 0.5 + 0.5).clamp(0, 1)
        # float before rounding, as diffusers' VaeImageProcessor does
        bytes_ = (unit.permute(0, 2, 3, 1).float().cpu() * 255).round()
        return bytes_.to(torch.uint8)

    def _unscale(self, latents: torch.Tensor) -> torch.Tensor:
        offset, factor = self._scale(latents)
        return latents / factor + offset

    def _scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken from the autoencoder's own latents, and what the rest is multiplied by."""
        config = self._vae.config
        mean, std = config.latents_mean, config.latents_std
        if mean is None or std is None:
            mean, std = [float(config.shift_factor or 0.0)], [1.0]
        shape = (1, -1, 1, 1)
        offset = torch.tensor(mean).view(shape).to(like)
        return offset, float(config.scaling_factor) / torch.tensor(std).view(shape).to(like)


def _by_shape(
    items: Sequence[torch.Tensor], compute: Callable[[torch.Tensor], Sequence[T]]
) -> list[T]:
    """What `compute` makes of the items; each goes into a batch with those of its shape."""
    found: dict[int, T] = {}
    for shape in {tuple(item.shape) for item in items}:
        same = [i for i, item in enumerate(items) if tuple(item.shape) == shape]
        found.update(zip(same, compute(torch.stack([items[i] for i in same])), strict=True))
    return [found[i] for i in range(len(items))]
