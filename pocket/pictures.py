"""Pictures to edit: a caption's scene, and a mask that shows one of its places.

`python -m pocket.pictures CAPTION --out photo.png --mask mask.png --at left` draws both.
"""

import argparse
import random
from pathlib import Path
from typing import Final

from PIL import Image

from pocket.captions import parse
from pocket.render import render
from pocket.scenes import CENTRES, SIDE

HALF: Final = 24  # half the side of what a mask shows, pixels; more than any shape's extent


def mask_of(place: str) -> Image.Image:
    """Fully transparent around a place, where an edit draws anew; opaque elsewhere."""
    mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    x, y = (int(at) for at in CENTRES[place])
    mask.paste((0, 0, 0, 0), (x - HALF, y - HALF, x + HALF, y + HALF))
    return mask


def main() -> None:
    """Write the picture of a caption; the seed says where exactly its shapes are."""
    parser = argparse.ArgumentParser(prog="python -m pocket.pictures", description=main.__doc__)
    parser.add_argument("caption", help="such as: a large red circle left on white")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="png, jpg or webp")
    parser.add_argument("--mask", type=Path, help="also write a mask, a png")
    parser.add_argument("--at", choices=CENTRES, default="center", help="what the mask shows")
    options = parser.parse_args()
    try:
        picture = render(parse(options.caption), random.Random(options.seed))
        Image.fromarray(picture).save(options.out)
        if options.mask:
            mask_of(options.at).save(options.mask, "PNG")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
