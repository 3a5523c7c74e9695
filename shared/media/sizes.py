"""Sizes of results: what a model can draw, and what a message can carry in a format."""

import math
from typing import Final, Protocol

import msgspec

from shared.errors import InvalidRequest
from shared.messages import GenerationRequest, ImageFormat

MAX_FILE_BYTES: Final = 8 * 1024 * 1024 - 64 * 1024
"""Of one result: the bus takes 8 MiB in one message."""
MAX_PNG_PIXELS: Final = MAX_FILE_BYTES // 3
"""A noisy image hardly becomes smaller as a png. What is larger in another format is encoded with
less quality (`services/vae/images.py`)."""
ROOMY: Final[ImageFormat] = "jpeg"
"""The default format of what a png may not have room for."""
SHOWN: Final = 2
"""Nearest sizes that an error tells."""

Size = tuple[int, int]


class Limits(Protocol):
    """Which sizes a model draws, in pixels: what a `ModelCard` says, or a `ModelSizes`."""

    @property
    def size_multiple(self) -> int: ...
    @property
    def default_width(self) -> int: ...
    @property
    def default_height(self) -> int: ...
    @property
    def max_width(self) -> int: ...
    @property
    def max_height(self) -> int: ...


class ModelSizes(msgspec.Struct, frozen=True, array_like=True):
    """The same on the wire: planners tell it of each model (`shared/bus/discovery.py`)."""

    size_multiple: int
    default_width: int
    default_height: int
    max_width: int
    max_height: int

    @staticmethod
    def of(card: Limits) -> "ModelSizes":
        return ModelSizes(
            card.size_multiple,
            card.default_width,
            card.default_height,
            card.max_width,
            card.max_height,
        )


def wanted_size(request: GenerationRequest, card: Limits, source: Size | None) -> Size:
    """Of the result. `source`: the size of the image that the request begins from, if there is
    one. Raises `InvalidRequest` if the model cannot draw what the request says."""
    width, height = source or (card.default_width, card.default_height)
    if source is not None or request.output_format == "png":
        width, height = fitted((width, height), card, request.output_format)
    width = width if request.width is None else request.width
    height = height if request.height is None else request.height
    check_size((width, height), card)
    return width, height


def fitted(size: Size, card: Limits, output_format: ImageFormat | None) -> Size:
    """What the model can draw, and its format carry, that is nearest to `size`: its shape first,
    then its size."""
    unit = card.size_multiple
    share = _share(size, card)

    def side(length: float, most: int) -> int:
        return min(max(unit, unit * round(length / unit)), most - most % unit)

    width = side(size[0] * share, card.max_width)
    height = side(size[1] * share, card.max_height)
    if output_format in (None, "png") and width * height > MAX_PNG_PIXELS:
        share *= math.sqrt(MAX_PNG_PIXELS / (width * height))
        # Rounded down, their product is small enough.
        width, height = (max(unit, unit * int(length * share / unit)) for length in size)
    return width, height


def check_size(size: Size, card: Limits) -> None:
    """Raises `InvalidRequest` about the side that the model cannot draw, with the nearest sizes."""
    unit = card.size_multiple
    for name, value, most in (
        ("width", size[0], card.max_width),
        ("height", size[1], card.max_height),
    ):
        if value % unit or not unit <= value <= most:
            sizes = " and ".join("{}x{}".format(*one) for one in nearest(size, card))
            allowed = f"a multiple of {unit} from {unit} to {most}; nearest: {sizes}"
            raise InvalidRequest(name, value, allowed)


def nearest(size: Size, card: Limits) -> list[Size]:
    """Sizes that the model can draw: of those around `size`, made small enough in its own shape,
    the nearest ones."""
    unit = card.size_multiple
    width, height = (max(1, length) for length in size)
    share = _share((width, height), card)
    wanted = (width * share, height * share)

    def around(length: float, most: int) -> set[int]:
        below = unit * math.floor(length / unit)
        last = most - most % unit
        return {min(max(unit, below), last), min(max(unit, unit * math.ceil(length / unit)), last)}

    def distance(one: Size) -> float:
        return math.dist(one, wanted)

    across, down = around(wanted[0], card.max_width), around(wanted[1], card.max_height)
    return sorted(((x, y) for x in across for y in down), key=distance)[:SHOWN]


def format_of(wanted: ImageFormat | None, size: Size, card: Limits) -> ImageFormat:
    """Where the request leaves it open, the one that has room. Raises `InvalidRequest` about a png
    that may have none."""
    large = size[0] * size[1] > MAX_PNG_PIXELS
    if wanted is None:
        return ROOMY if large else "png"
    if wanted == "png" and large:
        smaller = "{}x{}".format(*fitted(size, card, "png"))
        allowed = "jpeg or webp for {}x{} pixels, ".format(*size)
        allowed += f"whose png may exceed the bus's limit; or a smaller size, as {smaller}"
        raise InvalidRequest("output_format", "png", allowed)
    return wanted


def _share(size: Size, card: Limits) -> float:
    """By which a size is made small enough for the model."""
    return min(1.0, card.max_width / size[0], card.max_height / size[1])
