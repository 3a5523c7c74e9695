"""How large an image is asked to be, in all the ways in which clients say it. Pure."""

import math
import re
from typing import Final

from services.gateway.openai.fields import ALLOWED, ImagesRequest
from services.gateway.openai.kinds.objects import ImageSize
from services.gateway.openai.refusals import InvalidField, in_json
from shared.errors import InvalidRequest
from shared.media.sizes import fitted
from shared.models.cards import ModelCard

Side = int | None
SIDES: Final = ("width", "height")
NAMES: Final = ("size", "image_size", "aspect_ratio", "megapixels", "resolution")
"""Fields that say both sides."""
_IN_PIXELS: Final = ("size", "image_size", "resolution")
"""Fields that may say them exactly."""

PRESETS: Final = {
    "square": (512, 512),
    "square_hd": (1024, 1024),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""Sizes by name, as fal.ai's clients send them."""
MEGAPIXEL: Final = 1024 * 1024
"""Of those who say `1 MP` and mean 1024 x 1024."""
_OPEN: Final = frozenset({"auto", "match_input_image", "match_input", "custom"})
"""What leaves it to the image that is edited, to the model, or to width and height."""
_RATIO: Final = re.compile(
    r"(?:aspect_)?(\d{1,5}(?:\.\d+)?) ?[:x×/_] ?(\d{1,5}(?:\.\d+)?)", re.ASCII
)
TOLERANCE: Final = 0.05
"""Share by which the pixels of a size may differ from `megapixels`, which is a round number."""


def size_of(wanted: ImagesRequest, card: ModelCard) -> tuple[Side, Side]:
    """Width and height; None: the model's own, or the edited image's. Raises `InvalidRequest` if
    two fields say different things, or one says nothing that can be drawn."""
    width, height = _exact(wanted)
    ratio, area = ratio_of(wanted), _area(wanted)
    if ratio is None and area is None:
        return width, height
    if width is None and height is None:
        return _drawn(wanted, card, ratio, area)
    if ratio is not None:
        unit = card.size_multiple
        width = width or max(unit, unit * round((height or 0) * ratio / unit))
        height = height or max(unit, unit * round(width / ratio / unit))
    _refuse_others(wanted, (width, height), card)
    return width, height


def ratio_of(wanted: ImagesRequest) -> float | None:
    """Width by height. Raises `InvalidRequest`."""
    text = wanted.aspect_ratio
    if text is None or text.lower() in _OPEN:
        return None
    found = _RATIO.fullmatch(text.lower())
    across, down = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not across or not down:
        raise InvalidRequest("aspect_ratio", text, ALLOWED["aspect_ratio"])
    return across / down


def said_as(wanted: ImagesRequest) -> str:
    """The field that says both sides."""
    return next((name for name in NAMES if getattr(wanted, name) is not None), "size")


def _exact(wanted: ImagesRequest) -> tuple[Side, Side]:
    """The sides that are said in pixels."""
    stated = {name: pixels for name in _IN_PIXELS if (pixels := _pixels(wanted, name)) is not None}
    if not stated:
        return wanted.width, wanted.height
    first, (width, height) = next(iter(stated.items()))
    for name, pixels in stated.items():
        if pixels != (width, height):
            allowed = f"{width}x{height}, as {first} says, or one of the two"
            raise InvalidField(name, in_json(getattr(wanted, name)), allowed)
    for side, pixels_said in zip(SIDES, (width, height), strict=True):
        if getattr(wanted, side) not in (None, pixels_said):
            allowed = f"{pixels_said}, as {first} says, or one of the two"
            raise InvalidField(side, getattr(wanted, side), allowed)
    return width, height


def _pixels(wanted: ImagesRequest, name: str) -> tuple[int, int] | None:
    """What the field `name` says exactly. Raises `InvalidRequest` for what is no size at all."""
    value = getattr(wanted, name)
    if isinstance(value, ImageSize):
        return value.width, value.height
    if value is None or value.lower() in _OPEN:
        return None
    match = re.fullmatch(r"([0-9]{1,5}) ?[xX×*] ?([0-9]{1,5})", value)
    if match is not None:
        return int(match[1]), int(match[2])
    if name == "image_size" and value.lower() in PRESETS:
        return PRESETS[value.lower()]
    if name != "size" and _megapixels(value) is not None:
        return None
    raise InvalidRequest(name, value, ALLOWED[name])


def _area(wanted: ImagesRequest) -> tuple[str, float] | None:
    """A number of pixels, and the field that says it."""
    found: list[tuple[str, float]] = []
    for name in ("megapixels", "resolution", "image_size"):
        value = getattr(wanted, name)
        if value is None or isinstance(value, ImageSize) or value.lower() in _OPEN:
            continue
        text = f"{value} mp" if name == "megapixels" and _is_number(value) else value
        megapixels = _megapixels(text)
        if megapixels is not None:
            found.append((name, megapixels * MEGAPIXEL))
        elif name == "megapixels":
            raise InvalidRequest(name, value, ALLOWED[name])
    for name, area in found[1:]:
        if area != found[0][1]:
            allowed = f"what {found[0][0]} says, or one of the two"
            raise InvalidField(name, getattr(wanted, name), allowed)
    return found[0] if found else None


def _megapixels(text: str) -> float | None:
    """Of `0.5 MP`, or of `2K`, which is a square of 2 x 1024 pixels each way; None: neither."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?(mp|k)", text.lower())
    number = float(match[1]) if match else 0.0
    if not match or not number:
        return None
    return number**2 if match[2] == "k" else number


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) is not None


def _drawn(
    wanted: ImagesRequest, card: ModelCard, ratio: float | None, area: tuple[str, float] | None
) -> tuple[Side, Side]:
    """Of this shape, of this many pixels, or both; what is left open is as the model has it."""
    unit = card.size_multiple
    native = card.default_width, card.default_height
    shape = native[0] / native[1] if ratio is None else ratio
    pixels = native[0] * native[1] if area is None else area[1]
    across, down = math.sqrt(pixels * shape), math.sqrt(pixels / shape)
    if area is None:
        across, down = max(1.0, across), max(1.0, down)
        return fitted((round(across), round(down)), card, "jpeg")
    width, height = (max(unit, unit * round(side / unit)) for side in (across, down))
    if width > card.max_width or height > card.max_height:
        allowed = (
            f"an area that this model can draw, in sides of at most {card.max_width} and "
            f"{card.max_height} pixels; this one is {width}x{height}"
        )
        raise InvalidField(area[0], getattr(wanted, area[0]), allowed)
    return width, height


def _refuse_others(wanted: ImagesRequest, sides: tuple[Side, Side], card: ModelCard) -> None:
    """Raises `InvalidField` if a size in pixels is not of the shape or of the area that is asked
    for beside it, as nearly as the model can draw it."""
    width, height = sides
    ratio, area = ratio_of(wanted), _area(wanted)
    if width is None or height is None:
        assert area is not None
        raise InvalidField(area[0], getattr(wanted, area[0]), "nothing beside one side alone")
    if ratio is not None:
        unit = card.size_multiple
        if abs(width - height * ratio) > unit and abs(height - width / ratio) > unit:
            allowed = f"the shape of {width}x{height}, or one of the two"
            raise InvalidField("aspect_ratio", wanted.aspect_ratio, allowed)
    if area is not None and abs(width * height - area[1]) > TOLERANCE * area[1]:
        stated = in_json(getattr(wanted, area[0]))
        raise InvalidField(area[0], stated, f"the area of {width}x{height}, or one of the two")
