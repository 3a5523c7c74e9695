"""Requests with ControlNets, the pictures that they steer by drawn from the captions."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
from PIL import Image

from benchmarks.baselines.pipeline import Guide
from benchmarks.harness.pixels import png
from pocket.captions import parse
from pocket.hints import HINTS
from pocket.render import lay_out, to_bytes
from shared.jobs.validate import validate
from shared.messages import ControlChoice, GenerationRequest
from shared.models.catalogue import Catalogue


def hint(kind: str, caption: str, seed: int = 0) -> bytes:
    """A PNG of `HINTS[kind]`, or of edges if there is no such kind; of a layout of `caption`."""
    layout = lay_out(parse(caption), random.Random(seed))
    drawn = HINTS.get(kind, HINTS["edges"])(layout)
    return png(Image.fromarray(to_bytes(drawn * 255)))


def with_controls(
    request: GenerationRequest, *controls: tuple[str, dict[str, Any]]
) -> GenerationRequest:
    """`request` with ControlNets by name, each with fields of its `ControlChoice`."""
    choices = tuple(
        ControlChoice(model=name, image=hint(name, request.prompt), **fields)
        for name, fields in controls
    )
    return msgspec.structs.replace(request, controls=choices)


def guides(request: GenerationRequest, catalogue: Catalogue) -> Sequence[Guide]:
    """The ControlNet arguments of diffusers' pipeline for the same image."""
    spec = validate(request, catalogue)
    return [
        Guide(catalogue.controls[one.model].source, given.image, one)
        for one, given in zip(spec.controls, request.controls, strict=True)
    ]
