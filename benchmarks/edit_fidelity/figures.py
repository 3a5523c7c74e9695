"""What `benchmarks.edit_fidelity` makes of the pictures it sees. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.harness.edited_scenes import Original, Picture, SceneEdit, outside_difference
from benchmarks.harness.numbers import percentile
from benchmarks.harness.program import Cells, Results
from benchmarks.harness.ssim import ssim, ssim_within
from benchmarks.quality import SHEET_COLUMNS, SHEET_ROWS, contact_sheet
from pocket.scenes import Scene
from pocket.verify import read, score

ATTRIBUTES: Final = ("place", "shape", "colour", "size")
"""Of the edited shape; `place`: it is there at all."""
SHOWN: Final = SHEET_ROWS * SHEET_COLUMNS // 4
"""Edits on a contact sheet, four pictures each."""
CHEQUER: Final = 6
"""Pixels of the pattern that stands for a hole."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """An edit in `exact` mode, in `cached` mode, and in `exact` mode with another seed. `cached`:
    it says so itself; otherwise it was computed in full."""

    original: Original
    edit: SceneEdit
    exact: Picture
    near: Picture
    other: Picture
    cached: bool

    @property
    def pictures(self) -> Mapping[str, Picture]:
        return {"exact": self.exact, "cached": self.near, "other_seed": self.other}


def right(edit: SceneEdit, picture: Picture) -> list[bool]:
    """Which of `ATTRIBUTES` the edited shape has in `picture`."""
    found = score(Scene((edit.item,), edit.scene.background), read(picture))
    return [found[kind][0] for kind in ATTRIBUTES]


def similarity(drawn: Sequence[Drawn], name: str = "cached") -> list[float]:
    """SSIM within the mask of each exact picture and the one of that name."""
    return [ssim_within(one.exact, one.pictures[name], one.edit.mask) for one in drawn]


def summary(drawn: Sequence[Drawn]) -> Results:
    """Of the edits that were cached; `ssim_noise` is of the others, `outside_max_abs_diff` of all.
    `accuracy_drop`: what is lost of the accuracy of the exact edits, negative where there is a
    gain; `lost` and `gained`: attributes that only the exact edit, or only the cached one, has."""
    cached = [one for one in drawn if one.cached]
    full = [one for one in drawn if not one.cached]
    likeness = similarity(cached)
    said = {
        name: [right(one.edit, one.pictures[name]) for one in cached]
        for name in ("exact", "cached", "other_seed")
    }
    accuracy = {name: fmean(map(fmean, each)) for name, each in said.items()}
    pairs = [
        pair
        for exact, near in zip(said["exact"], said["cached"], strict=True)
        for pair in zip(exact, near, strict=True)
    ]
    ratios = [one.edit.ratio for one in cached]
    return {
        "ssim": round(fmean(likeness), 4),
        "accuracy_drop": round(accuracy["exact"] - accuracy["cached"], 4),
        "outside_max_abs_diff": max(map(_outside, drawn)),
        "edits": len(cached),
        "edits_in_full": len(full),
        "ssim_p5": round(percentile(likeness, 5), 4),
        "ssim_picture": round(fmean(ssim(one.exact, one.near) for one in cached), 4),
        "ssim_other_seed": round(fmean(similarity(cached, "other_seed")), 4),
        "ssim_noise": round(fmean(similarity(full)), 4) if full else None,
        "accuracy": {name: round(share, 4) for name, share in accuracy.items()},
        "lost": pairs.count((True, False)),
        "gained": pairs.count((False, True)),
        "attributes": len(pairs),
        "mask": {
            "mean": round(fmean(ratios), 3),
            "p50": round(percentile(ratios, 50), 3),
            "p95": round(percentile(ratios, 95), 3),
        },
    }


def sheet(drawn: Sequence[Drawn]) -> Image.Image:
    """Two edits in a row: the original, the mask over it, the exact edit, and the cached one."""
    pictures, captions = [], []
    for one, likeness in zip(drawn, similarity(drawn), strict=True):
        edit = one.edit
        pictures += [one.original.picture, _holed(one.original.picture, edit), one.exact, one.near]
        captions += [
            f"original: {one.original.scene}",
            f"mask: {edit.ratio:.2f} of the picture",
            f"exact: {edit.prompt}",
            f"cached: SSIM {likeness:.3f} in the mask",
        ]
    return contact_sheet(pictures, captions)


def rows(report: Results) -> Cells:
    accuracy = report["accuracy"]
    edits = report["edits"]
    likeness = [report[name] for name in ("ssim", "ssim_other_seed", "ssim_noise")]
    return [
        ["", "cached", "exact, other seed", "other noise outside"],
        ["SSIM to the exact edit, in the mask", *likeness],
        ["SSIM, whole picture", report["ssim_picture"]],
        ["SSIM in the mask, 5th percentile", report["ssim_p5"]],
        [f"accuracy (exact: {accuracy['exact']})", accuracy["cached"], accuracy["other_seed"]],
        ["accuracy drop", report["accuracy_drop"]],
        ["largest difference outside, of 255", report["outside_max_abs_diff"]],
        ["edits", edits, edits, report["edits_in_full"]],
    ]


def _outside(drawn: Drawn) -> int:
    original, mask = drawn.original.picture, drawn.edit.mask
    return max(outside_difference(original, each, mask) for each in drawn.pictures.values())


def _holed(picture: Picture, edit: SceneEdit) -> Picture:
    """Chequered where it is drawn anew."""
    shown, (y, x) = picture.copy(), np.nonzero(edit.mask)
    shown[edit.mask] = np.where((x // CHEQUER + y // CHEQUER) % 2, 255, 190)[:, None]
    return shown
