"""How far two image files are apart, in steps of 1/255."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class Difference:
    """Of `pixels` pixels, how many have a channel that is off by 1, by 2, by more; no pixel is
    counted twice."""

    max_abs_diff: int
    pixels: int
    off_by_1: int
    off_by_2: int
    off_by_more: int

    def counts(self) -> dict[str, int]:
        return {
            "pixels": self.pixels,
            "off_by_1": self.off_by_1,
            "off_by_2": self.off_by_2,
            "off_by_more": self.off_by_more,
        }


def difference(ours: bytes, theirs: bytes) -> Difference:
    """Raises `ValueError` if the images differ in size."""
    one, other = (rgb(data).astype(np.int16) for data in (ours, theirs))  # to be subtracted
    if one.shape != other.shape:
        raise ValueError(f"images of {one.shape} and {other.shape} cannot be compared")
    off = np.abs(one - other).max(axis=2)
    return Difference(
        max_abs_diff=int(off.max()),
        pixels=off.size,
        off_by_1=int((off == 1).sum()),
        off_by_2=int((off == 2).sum()),
        off_by_more=int((off > 2).sum()),
    )


def total(differences: Sequence[Difference]) -> Difference:
    """Of several pairs of images, as of one."""
    return Difference(
        max_abs_diff=max(d.max_abs_diff for d in differences),
        pixels=sum(d.pixels for d in differences),
        off_by_1=sum(d.off_by_1 for d in differences),
        off_by_2=sum(d.off_by_2 for d in differences),
        off_by_more=sum(d.off_by_more for d in differences),
    )


def png(picture: Image.Image) -> bytes:
    """Its file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def rgb(data: bytes) -> NDArray[np.uint8]:
    """Of an image file: (height, width, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
