"""The autoencoder's decoder: latents in, pixels out, as the diffusers pipeline computes them."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from shared.model_files import read_json


class LatentDecoder:
    """Loads `vae` of a model, and nothing else of it.

    A model whose config says `force_upcast` (SDXL's overflows in half precision) is decoded in
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
    def __call__(self, latents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each (channels, height/8, width/8), as the denoiser leaves it, to uint8 pixels
        (height, width, 3). Latents of one shape are decoded in one batch."""
        pixels: list[torch.Tensor | None] = [None] * len(latents)
        for shape in {tuple(item.shape) for item in latents}:
            same = [i for i, item in enumerate(latents) if tuple(item.shape) == shape]
            batch = torch.stack([latents[i] for i in same])
            for i, image in zip(same, self._decode(batch), strict=True):
                pixels[i] = image
        return [image for image in pixels if image is not None]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self._vae.decode(
            self._unscale(latents.to(self._device, self.dtype)), return_dict=False
        )[0]
        unit = (image * 0.5 + 0.5).clamp(0, 1)
        # float before rounding, as diffusers' VaeImageProcessor does
        bytes_ = (unit.permute(0, 2, 3, 1).float().cpu() * 255).round()
        return bytes_.to(torch.uint8)

    def _unscale(self, latents: torch.Tensor) -> torch.Tensor:
        config = self._vae.config
        if config.latents_mean is None or config.latents_std is None:
            return latents / float(config.scaling_factor)
        shape = (1, -1, 1, 1)
        mean = torch.tensor(config.latents_mean).view(shape).to(latents)
        std = torch.tensor(config.latents_std).view(shape).to(latents)
        return latents * std / float(config.scaling_factor) + mean
