"""An autoencoder behind one contract: pixels to latents as the network has them, and back."""

from __future__ import annotations

import copy
import importlib
from typing import Any, Final

import torch

from shared.models.contracts.autoencoder import FOLDER, AutoencoderKind, LatentSpace
from shared.models.files.directory import read_json
from shared.models.weights.layout import Layout
from shared.models.weights.load import load

CHANNELS_LAST: Final = Layout(
    "channels_last",
    changes=lambda shape: len(shape) == 4,
    apply=lambda module: module.to(memory_format=torch.channels_last),
)
"""A fifth less CPU time, of convolutions in two dimensions."""


class AutoencoderNetwork:
    """Pixels are RGB (F, 3, H, W) from -1 to 1, latents (F, channels, H/scale, W/scale)."""

    def __init__(self, vae: Any, space: LatentSpace, frames: bool) -> None:
        """`frames`: see `AutoencoderKind`."""
        self.module = vae.eval()
        self.space = space
        self._frames = frames

    @classmethod
    def load(
        cls, kind: AutoencoderKind, source: str, device: str, dtype: torch.dtype
    ) -> AutoencoderNetwork:
        """Of the model in directory or hub id `source`, safetensors only. One that overflows in
        float16 computes in float32 instead."""
        config = read_json(source, FOLDER, "config.json")
        if dtype is torch.float16 and kind.upcasts(config):
            dtype = torch.float32
        own = getattr(importlib.import_module(kind.module), kind.options.kind)
        vae = load(own, source, FOLDER, dtype, None if kind.frames else CHANNELS_LAST)
        return cls(vae.to(device), kind.space(config), kind.frames)

    @property
    def device(self) -> torch.device:
        return self.module.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype  # type: ignore[no-any-return]

    def wide(self) -> AutoencoderNetwork:
        """The same in float32, with weights of its own."""
        return AutoencoderNetwork(copy.deepcopy(self.module).float(), self.space, self._frames)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of what the images may be in latents."""
        seen = pixels.to(self.device, self.dtype)
        found = self.module.encode(seen[:, :, None] if self._frames else seen, return_dict=False)[0]
        mean, std = (self._image(part) for part in (found.mean, found.std))
        offset, factor = self._scale(mean)
        return (mean - offset) * factor, std * factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        own = latents.to(self.device, self.dtype)
        offset, factor = self._scale(own)
        own = own / factor + offset
        return self._image(
            self.module.decode(own[:, :, None] if self._frames else own, return_dict=False)[0]
        )

    def _image(self, found: torch.Tensor) -> torch.Tensor:
        """Without the frame, if there are any."""
        return found[:, :, 0] if self._frames else found

    def _scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken from the autoencoder's own latents, and what the rest is multiplied by."""
        offset, deviation = (
            torch.tensor(numbers).view(1, -1, 1, 1).to(like)
            for numbers in (self.space.mean, self.space.deviation)
        )
        return offset, self.space.scaling / deviation
