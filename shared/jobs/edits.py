"""What a request with an image asks for: an edit of what its mask shows, or image-to-image."""

from dataclasses import dataclass
from typing import Final

from PIL import Image

from shared.errors import InvalidRequest
from shared.media.masks import mask_of, read_mask
from shared.media.reader import read_image
from shared.messages import EditSpec, GenerationRequest, MaskSource
from shared.messages.nodes import Denoise
from shared.models.cards import ModelCard

MASK_MODES: Final = ("exact", "cached")
MASKED_STRENGTH: Final = 1.0
"""What the mask shows begins as pure noise, unless the request says otherwise;"""
IMAGE_STRENGTH: Final = 0.75
"""without a mask, something of the image has to be left."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that a request brings: its size in pixels, and where its mask is."""

    size: tuple[int, int]
    mask: MaskSource


def read_source_image(request: GenerationRequest) -> SourceImage | None:
    """Of a request; None: it brings no image. Raises `InvalidRequest` if it cannot be worked with,
    which takes decoding it."""
    if request.image is None:
        _refuse_what_needs_an_image(request)
        return None
    image = read_image("image", request.image)
    if request.mask is not None:
        check_mask(request.mask, image.size)
        return SourceImage(image.size, "file")
    return SourceImage(image.size, "none" if mask_of(image) is None else "alpha")


def check_mask(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The mask in a file (see `read_mask`), for an image of that size. Raises `InvalidRequest`."""
    mask = read_image("mask", data)
    if mask.size != size:
        found = "{}x{} pixels".format(*mask.size)
        raise InvalidRequest("mask", found, "{}x{} pixels, as the image has".format(*size))
    return read_mask(mask)


def edit_spec(
    request: GenerationRequest, source: SourceImage, steps: int, card: ModelCard
) -> EditSpec:
    """Raises `InvalidRequest` if it is not to be had in so many steps, or of this model."""
    _check_mask_mode(request.mask_mode, source, card)
    default = IMAGE_STRENGTH if source.mask == "none" else MASKED_STRENGTH
    strength = default if request.strength is None else request.strength
    if not 0.0 < strength <= 1.0:  # also refuses NaN
        raise InvalidRequest("strength", strength, "a number above 0, up to 1")
    if taken(steps, strength, card.rounds_up) < 1:
        allowed = f"at least {1 / steps:.4g} with {steps} steps, or more steps"
        raise InvalidRequest("strength", strength, allowed)
    return EditSpec(strength=strength, mask=source.mask, mask_mode=request.mask_mode)


def taken(steps: int, strength: float, rounds_up: bool) -> int:
    """The last of `steps` steps that are taken, as diffusers' pipelines count them; `rounds_up`:
    see `Family.rounds_up`."""
    wanted = min(steps * strength, steps)
    return steps - int(steps - wanted) if rounds_up else int(wanted)


def left_out(asked: Denoise, rounds_up: bool) -> int:
    """The first of a row's steps that are not taken."""
    if asked.beginning is None or asked.start > 0.0:
        return 0
    return asked.steps - taken(asked.steps, asked.beginning.strength, rounds_up)


def _refuse_what_needs_an_image(request: GenerationRequest) -> None:
    if request.mask is not None:
        raise InvalidRequest("mask", f"{len(request.mask)} bytes", "none without an image")
    if request.strength is not None:
        raise InvalidRequest("strength", request.strength, "none without an image")
    if request.mask_mode != "exact":
        raise InvalidRequest("mask_mode", request.mask_mode, "none without an image")


def _check_mask_mode(mode: str, source: SourceImage, card: ModelCard) -> None:
    allowed = "one of " + ", ".join(MASK_MODES)
    if mode == "cached" and not card.masks:
        allowed = f"exact, for the model {card.name} ({card.pipeline}) computes whole images only"
    elif mode == "cached" and source.mask == "none":
        allowed = "exact, for there is no mask"
    elif mode in MASK_MODES:
        return
    raise InvalidRequest("mask_mode", mode, allowed)
