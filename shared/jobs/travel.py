"""Images on the bus: those that one message has no room for are brought to the size of the result
before they travel. What is drawn from them is the same."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import msgspec
from PIL import Image

from shared.errors import InvalidRequest
from shared.jobs.edits import check_mask
from shared.media.masks import drawn_anew, mask_of
from shared.media.reader import DecodedImage, read_image
from shared.media.sizes import Limits, Size, fitted, wanted_size
from shared.messages import GenerationRequest

MAX_IMAGE_BYTES: Final = 7 * 1024 * 1024 + 512 * 1024
"""Of all images of a request, as files, on the bus: it takes 8 MiB in one message, and the two
longest prompts need their part of it."""
MAX_UPLOAD_BYTES: Final = 64 * 1024 * 1024
"""Of all images of a request, as files, before they are fitted."""
TRIES: Final = 4
"""Sizes that are tried until an image that decides on the size can travel."""
_SPARE: Final = 0.97
"""Of each side: a smaller image takes more bytes for a pixel."""

Pixels = tuple[Image.Image, bytes | None]
"""An image, and the profile of its colours."""


def travels(request: GenerationRequest) -> bool:
    """Whether one message has room for its images."""
    return _bytes(request) <= MAX_IMAGE_BYTES


def check_bytes(request: GenerationRequest, most: int) -> None:
    """Of all images, before any of them is looked at. Raises `InvalidRequest`."""
    for name, own in (("image", request.image), ("mask", request.mask)):
        if own is not None and len(own) > most:
            raise InvalidRequest(name, f"{len(own)} bytes", f"at most {most} bytes")
    if (found := _bytes(request)) > most:
        allowed = f"images of at most {most} bytes together"
        raise InvalidRequest("controls" if request.controls else "mask", found, allowed)


def fitted_to_travel(request: GenerationRequest, limits: Limits) -> GenerationRequest:
    """The same request if its images can travel as they are. Else one whose images have the
    size of the result, without loss, so that the same is drawn; this decodes them, one megapixel in
    4 MB. `limits`: of the model. Raises `InvalidRequest`."""
    if travels(request):
        return request
    check_bytes(request, MAX_UPLOAD_BYTES)
    image = None if request.image is None else read_image("image", request.image)
    size = wanted_size(request, limits, None if image is None else image.size)
    for _ in range(TRIES):
        smaller = _fitted(request, image, size)
        if travels(smaller):
            return smaller
        found, tried = _bytes(smaller), size
        size = _less(request, limits, size, MAX_IMAGE_BYTES / found)
        if size == tried:
            break
    raise InvalidRequest(
        "controls" if image is None else "image",
        "images of {} bytes at {}x{} pixels".format(found, *tried),
        f"images that take at most {MAX_IMAGE_BYTES} bytes together, once they are brought to "
        "the size of the result without loss; a smaller size takes less",
    )


def _bytes(request: GenerationRequest) -> int:
    controls = sum(len(choice.image) for choice in request.controls)
    return len(request.image or b"") + len(request.mask or b"") + controls


def _less(request: GenerationRequest, limits: Limits, size: Size, share: float) -> Size:
    """A size with that share of the pixels, if the request leaves its size to its image."""
    if request.image is None or (request.width, request.height) != (None, None):
        return size
    side = _SPARE * math.sqrt(share)
    width, height = (max(1, int(side * length)) for length in size)
    return fitted((width, height), limits, request.output_format)


def _fitted(
    request: GenerationRequest, image: DecodedImage | None, size: Size
) -> GenerationRequest:
    """With images of that size. A mask that the image has in itself becomes a file."""
    found: list[Pixels] = [
        (read_image("controls", choice.image).shown(size), None) for choice in request.controls
    ]
    fields: dict[str, Any] = {}
    if image is not None:
        found.append(image.kept(size))
        mask = _mask(request, image, size)
        fields["mask"] = None if mask is None else _file((mask, None), "PNG")
    allowed = MAX_IMAGE_BYTES - len(fields.get("mask") or request.mask or b"")
    files = _files(found, allowed)
    if image is not None:
        fields["image"] = files.pop()
    controls = tuple(
        msgspec.structs.replace(choice, image=file)
        for choice, file in zip(request.controls, files, strict=True)
    )
    width, height = size
    return msgspec.structs.replace(request, controls=controls, width=width, height=height, **fields)


def _mask(request: GenerationRequest, image: DecodedImage, size: Size) -> Image.Image | None:
    """Raises `InvalidRequest` about one that shows nothing at that size."""
    own = request.mask is None
    said = mask_of(image) if request.mask is None else check_mask(request.mask, image.size)
    if said is None:
        return None
    found = drawn_anew(said, size)
    if found.getbbox() is None:
        allowed = "areas to draw anew that are wide enough to be seen in {}x{} pixels"
        raise InvalidRequest(
            "image" if own else "mask", "a mask that shows next to nothing", allowed.format(*size)
        )
    return found


def _files(images: Sequence[Pixels], most: int) -> list[bytes]:
    """Files without loss, of `most` bytes together if they can be."""
    files = [_file(one, "PNG") for one in images]
    if sum(map(len, files)) <= most:
        return files
    # A webp is a third smaller, and takes several times as long.
    tighter = [_file(one, "WEBP") for one in images]
    return [min(pair, key=len) for pair in zip(files, tighter, strict=True)]


def _file(pixels: Pixels, form: str) -> bytes:
    image, profile = pixels
    file = BytesIO()
    options: dict[str, Any] = {"compress_level": 4}
    if form == "WEBP":
        options = {"lossless": True, "quality": 30, "method": 1}
    image.save(file, form, icc_profile=profile, **options)
    return file.getvalue()
