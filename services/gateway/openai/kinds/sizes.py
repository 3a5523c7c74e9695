"""Fields that say a size, in the words of one client or another."""

from typing import Annotated, Final

from services.gateway.openai.kinds.meta import described, number
from services.gateway.openai.kinds.objects import ImageSize

Size = Annotated[
    str,
    described("Default: the model's own.", '"auto" or "WIDTHxHEIGHT" within the model\'s limits'),
]
MAX_SIDE: Final = 65_535
Width = Annotated[
    int,
    number(
        "In pixels; beside size, it has to say the same. Default: the model's own.", 1, MAX_SIDE
    ),
]
Height = Annotated[
    int,
    number(
        "In pixels; beside size, it has to say the same. Default: the model's own.", 1, MAX_SIDE
    ),
]
ImageSizes = Annotated[
    str | ImageSize,
    described(
        "The size, as other clients send it.",
        'as size, or an object {"width": ..., "height": ...}, a name such as "landscape_4_3" or '
        '"square_hd", or "1K", "2K", "4K" for as many pixels as a square of 1024 times that has',
    ),
]
AspectRatio = Annotated[
    str,
    described(
        "The image's shape; without a size, it has about as many pixels as the model's own.",
        'WIDTH:HEIGHT such as "16:9", or "auto"',
    ),
]
Megapixels = Annotated[
    str,
    described(
        "How many pixels, in units of 1024 x 1024; the shape is aspect_ratio's or the model's own.",
        'a number above 0 such as 0.25 or "1", or "match_input"',
    ),
]
Resolution = Annotated[
    str,
    described(
        "How many pixels; the shape is aspect_ratio's or the model's own.",
        '"WIDTHxHEIGHT", or an area such as "0.5 MP", "1K" or "2K", or "auto"',
    ),
]
