"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from services.fleet.cli import lora_option
from shared.jobs.validate import MAX_CONTROL_LAG, MAX_IMAGES, MAX_SEED, RANDOM_SEED
from shared.models.settings import MAX_GUIDANCE, MAX_STEPS

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="NATS_URL", help="The fleet's bus; else the one running here."),
]
Model = Annotated[str | None, typer.Option(help="Name, alias, hub id or path of a served model.")]
Negative = Annotated[str | None, typer.Option(help="What not to draw.")]
Steps = Annotated[int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(min=0, max=MAX_GUIDANCE, help="1 and below: none.")]
Sampler = Annotated[str | None, typer.Option(help="See `darkroom models`.")]
Seed = Annotated[
    int | None,
    typer.Option(
        min=RANDOM_SEED, max=MAX_SEED - MAX_IMAGES, help="Of the first image; -1: a random one."
    ),
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="In pixels.")]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        metavar=lora_option.FORM,
        help="A name (see `darkroom models`), a path, hub:OWNER/REPO or a URL; repeat for several.",
    ),
]
Count = Annotated[int, typer.Option("-n", min=1, max=MAX_IMAGES, help="Number of images.")]
Late = Annotated[
    int,
    typer.Option("--lora-late-steps", min=0, max=MAX_STEPS, help="Begin so far without the LoRAs."),
]
Control = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE[:SCALE]", help="A picture to steer by; repeat for several."),
]
Lag = Annotated[
    int,
    typer.Option(
        "--control-lag",
        min=0,
        max=MAX_CONTROL_LAG,
        help="Steps by which ControlNets may lag behind.",
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="png, jpg or webp.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
