"""Options of the commands that draw, in groups that they share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.fleet.cli.lora_option import FORM, parse_loras
from shared.errors import InvalidRequest
from shared.jobs.validate import MAX_CONTROL_LAG, MAX_IMAGES, MAX_SEED, RANDOM_SEED
from shared.media.control_files import read_controls, read_image
from shared.models.settings import MAX_GUIDANCE, MAX_STEPS

MOST_DIGITS: Final = 6
"""Of a width or height; what a model allows is far below."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="NATS_URL", help="The fleet's bus. Default: the fleet that runs here."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOptions:
    """What is drawn, and how."""

    model: Annotated[
        str | None, typer.Option(help="Name, alias, hub id or path of a served model.")
    ] = None
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None
    steps: Annotated[int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps.")] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_GUIDANCE, help="Scale of classifier-free guidance; 1 and below: none."
        ),
    ] = None
    sampler: Annotated[
        str | None, typer.Option(help="See `darkroom models`; or as clients show it.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=RANDOM_SEED,
            max=MAX_SEED - MAX_IMAGES,
            help="The seed of the first image; -1: a random one.",
        ),
    ] = None
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height in pixels.")] = (
        None
    )
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar=FORM,
            help="A LoRA: a name (see `darkroom models`), a path, hub:OWNER/REPO or a URL; "
            "repeat for several.",
        ),
    ] = None
    n: Annotated[int, typer.Option("-n", min=1, max=MAX_IMAGES, help="Number of images.")] = 1
    late: Annotated[
        int,
        typer.Option(
            "--lora-late-steps",
            min=0,
            max=MAX_STEPS,
            help="Steps that may be taken before the LoRAs are loaded: sooner done, not exact.",
        ),
    ] = 0
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[:SCALE]",
            help="A ControlNet and its control image; repeat for several.",
        ),
    ] = None
    lag: Annotated[
        int,
        typer.Option(
            "--control-lag",
            min=0,
            max=MAX_CONTROL_LAG,
            help="Steps by which ControlNets may lag behind: sooner done, not exact.",
        ),
    ] = 0

    def fields(self) -> dict[str, Any]:
        """Of a request. Raises `InvalidRequest` about the option."""
        width, height = parse_size(self.size) if self.size else (None, None)
        return {
            "model": self.model,
            "negative_prompt": self.negative,
            "steps": self.steps,
            "guidance": self.guidance,
            "sampler": self.sampler,
            "seed": self.seed,
            "width": width,
            "height": height,
            "loras": parse_loras(self.lora or []),
            "n": self.n,
            "lora_late_steps": self.late,
            "controls": read_controls(self.control or [], "--control"),
            "control_lag": self.lag,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions:
    """What of an image is drawn anew."""

    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of the image's size. It is drawn anew where the mask is fully transparent "
            "or, if the mask has no transparency, white. Default: the image's own alpha channel; "
            "without one, all of it is drawn anew.",
        ),
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much of the image is given up; 1: all of it."),
    ] = None
    mask_mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="exact, or cached: what the mask keeps may be taken from an earlier edit of "
            "IMAGE, which is faster and not exact.",
        ),
    ] = "exact"

    def fields(self) -> dict[str, Any]:
        """Of a request. Raises `InvalidRequest` about the option."""
        return {
            "mask": None if self.mask is None else read_image(self.mask, "--mask"),
            "strength": self.strength,
            "mask_mode": self.mask_mode,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where images come from, and where they go."""

    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write; its suffix (png, jpg, webp) decides."
        ),
    ] = None
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False
    url: Url = None


def parse_size(text: str) -> tuple[int, int]:
    """`512x768` as width and height. Raises `InvalidRequest`."""
    width, _, height = text.lower().partition("x")
    if not all(side.isdecimal() and len(side) <= MOST_DIGITS for side in (width, height)):
        raise InvalidRequest("--size", text, "WIDTHxHEIGHT in pixels, such as 512x512")
    return int(width), int(height)
