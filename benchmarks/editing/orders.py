"""Who asks for which edit, and when: the same in every run. Pure, but for the encoding of files.

Masks are those of production (`edits.py`), but not by lot: of many that were drawn, equally spaced
ones in the order of their sizes, so that a short list has the mean and the tails of a long one.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import torch
from PIL import Image

from benchmarks.harness.pixels import png
from benchmarks.masked_step import ellipse
from loadgen.simulator.edit_mix import arrivals, mixed, zipf
from pocket.captions import sample_captions
from pocket.render import render
from pocket.scenes import held_out_scenes
from shared.client import new_job_id
from shared.messages import GenerationRequest

MANY: Final = 200
"""Masks that are drawn for each one that is taken."""


@dataclass(frozen=True, slots=True)
class Order:
    """An edit of template `template` with a mask that shows `mask` of it. `at`: when, in units of
    the mean time between two of them."""

    template: int
    mask: float
    seed: int
    at: float


@dataclass(frozen=True, slots=True)
class Format:
    """Of pictures: `side` tokens each way, `patch` pixels each; and the steps that edits take."""

    side: int
    patch: int
    steps: int

    @property
    def pixels(self) -> int:
        return self.side * self.patch


def masks(
    count: int, lot: random.Random, mix: Callable[[random.Random], float] = mixed
) -> list[float]:
    """Shares of a picture, distributed as `mix`, in the order of a lot."""
    drawn = sorted(mix(lot) for _ in range(count * MANY))
    taken = drawn[MANY // 2 :: MANY]
    lot.shuffle(taken)
    return taken


def poisson(count: int, templates: int, seed: int) -> list[Order]:
    """`count` edits of so many templates; neither arrivals nor templates depend on each other."""
    lot = random.Random(seed)
    asked = lot.choices(range(templates), zipf(templates), k=count)
    edits = arrivals(masks(count, lot), 1.0, lot)
    return [
        Order(template, edit.mask, lot.randrange(1 << 31), edit.at)
        for template, edit in zip(asked, edits, strict=True)
    ]


def first_edits(templates: int, seed: int) -> list[Order]:
    """One of each template, all at once."""
    lot = random.Random(seed)
    return [
        Order(template, mask, lot.randrange(1 << 31), 0.0)
        for template, mask in enumerate(masks(templates, lot))
    ]


def template_files(count: int, pixels: int) -> list[bytes]:
    """Held-out scenes, as large as that."""
    pictures = [
        Image.fromarray(render(scene, random.Random(number)))
        for number, scene in enumerate(held_out_scenes(count))
    ]
    return [png(picture.resize((pixels, pixels), Image.Resampling.LANCZOS)) for picture in pictures]


def mask_file(tokens: torch.Tensor, form: Format) -> bytes:
    """Fully transparent where the `tokens` (M,) are, opaque elsewhere."""
    alpha = np.full(form.side**2, 255, np.uint8)
    alpha[tokens.numpy()] = 0
    holes = Image.fromarray(alpha.reshape(form.side, form.side)).resize(
        (form.pixels, form.pixels), Image.Resampling.NEAREST
    )
    picture = Image.new("RGBA", holes.size)
    picture.putalpha(holes)
    return png(picture)


def requests_of(
    orders: Sequence[Order], templates: Sequence[bytes], form: Format
) -> list[GenerationRequest]:
    """Each with another prompt; `exact`."""
    return [
        GenerationRequest(
            job_id=new_job_id(),
            prompt=prompt,
            steps=form.steps,
            seed=order.seed,
            image=templates[order.template],
            mask=mask_file(ellipse(form.side, order.mask, order.seed), form),
        )
        for order, prompt in zip(orders, sample_captions(len(orders)), strict=True)
    ]


def in_mode(request: GenerationRequest, mode: str) -> GenerationRequest:
    """The same under a new job id, with this `mask_mode`."""
    return msgspec.structs.replace(request, job_id=new_job_id(), mask_mode=mode)
