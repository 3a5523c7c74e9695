"""Images to edit, and their masks, in the size of the result."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from shared.errors import InvalidRequest
from shared.jobs.edits import check_mask
from shared.media.masks import drawn_anew, mask_of
from shared.media.profiles import to_srgb
from shared.media.reader import read_image
from shared.messages.nodes import EncodeImage


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image in uint8 pixels (height, width, 3)."""

    pixels: torch.Tensor
    """In sRGB, as networks see it."""
    mask: torch.Tensor | None
    """Which of them are to be drawn anew, bool (height, width); None: all."""
    own_colours: torch.Tensor
    """What a result has elsewhere: the image's own colours,"""
    profile: bytes | None
    """which this says; None: they are `pixels`."""

    def latent_mask(self, scale: int) -> torch.Tensor | None:
        """`mask` for latents, float32 (1, height/scale, width/scale), of 0 and 1: what the pixel
        in a position's corner says, as diffusers' inpaint pipelines have it."""
        return None if self.mask is None else self.mask[None, ::scale, ::scale].float()


def read_source_image(asked: EncodeImage, image: bytes, mask: bytes | None) -> SourceImage:
    """The files of an edit, brought to size as diffusers' inpaint pipelines do it. Raises
    `InvalidRequest`."""
    size = (asked.width, asked.height)
    opened = read_image("image", image)
    own, profile = opened.kept(size)
    own_colours = _pixels(own)
    pixels = own_colours if profile is None else _pixels(to_srgb(own, profile))
    if not asked.masked:
        return SourceImage(pixels, None, pixels, None)
    said = mask_of(opened) if mask is None else check_mask(mask, opened.size)
    if said is None:
        raise InvalidRequest("image", "an opaque image", "one with a mask of its own")
    anew = _pixels(drawn_anew(said, size)) > 0
    return SourceImage(pixels, anew, own_colours, profile)


def _pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def refuse_nothing(mask: torch.Tensor, asked: EncodeImage, scale: int) -> None:
    """Raises `InvalidRequest` about a mask that shows nothing at the latents' resolution."""
    if mask.any():
        return
    field = "mask" if asked.mask == "file" else "image"
    allowed = f"transparent areas that are at least {scale} pixels wide in a result of "
    allowed += f"{asked.width}x{asked.height} pixels"
    raise InvalidRequest(field, "a mask that shows next to nothing", allowed)
