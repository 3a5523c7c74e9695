"""`darkroom render` and `darkroom edit`: from options to a request, from its images to files."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from services.fleet.cli import lora_option, options
from services.fleet.cli.progress import display
from services.fleet.cli.render import image_format, parse_size
from services.fleet.cli.render import render as render_job
from services.fleet.cli.report import approximations, as_json, as_table, warnings
from shared.client import new_job_id
from shared.host.command_exits import exit_codes, run
from shared.media.control_files import read_controls, read_picture
from shared.messages import GenerationRequest


def render(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    model: options.Model = None,
    negative: options.Negative = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    size: options.Size = None,
    lora: options.Lora = None,
    n: options.Count = 1,
    late: options.Late = 0,
    control: options.Control = None,
    lag: options.Lag = 0,
    out: options.Out = None,
    json_output: options.Json = False,
    url: options.Url = None,
) -> None:
    """Draw a picture, on the running fleet or on one started for it."""
    with exit_codes(Console(stderr=True)):
        _draw(
            out,
            url,
            json_output,
            prompt=prompt,
            model=model,
            negative_prompt=negative,
            n=n,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            seed=seed,
            lora_late_steps=late,
            control_lag=lag,
            **_read(size, lora, control),
        )


def edit(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="png, jpg or webp.")],
    prompt: Annotated[str, typer.Argument(help="What the result shows.")],
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of the image's size, fully transparent, or without transparency white, where it "
            "is drawn anew; else the image's own alpha channel; without either, all of it is.",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much of the image is given up; 1: all of it."),
    ] = None,
    mask_mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="exact, or cached: what the mask keeps may be taken from an earlier edit of "
            "IMAGE, which is faster and not exact.",
        ),
    ] = "exact",
    model: options.Model = None,
    negative: options.Negative = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    size: options.Size = None,
    lora: options.Lora = None,
    n: options.Count = 1,
    late: options.Late = 0,
    control: options.Control = None,
    lag: options.Lag = 0,
    out: options.Out = None,
    json_output: options.Json = False,
    url: options.Url = None,
) -> None:
    """Draw a picture that begins from IMAGE, and keeps what its mask does not show."""
    with exit_codes(Console(stderr=True)):
        _draw(
            out,
            url,
            json_output,
            prompt=prompt,
            image=read_picture(image, "IMAGE"),
            mask=None if mask is None else read_picture(mask, "--mask"),
            strength=strength,
            mask_mode=mask_mode,
            model=model,
            negative_prompt=negative,
            n=n,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            seed=seed,
            lora_late_steps=late,
            control_lag=lag,
            **_read(size, lora, control),
        )


def _read(size: str | None, lora: list[str] | None, control: list[str] | None) -> dict[str, Any]:
    """Fields of a request whose options need reading. Raises `InvalidRequest` about the option."""
    width, height = parse_size(size) if size else (None, None)
    return {
        "width": width,
        "height": height,
        "loras": lora_option.parse_loras(lora or []),
        "controls": read_controls(control or [], "--control"),
    }


def _draw(out: Path | None, url: str | None, json_output: bool, **fields: Any) -> None:
    """Run the job with these fields of a request, save its images, and report."""
    console, errors = Console(), Console(stderr=True)
    job_id = new_job_id()
    wanted = None if out is None else image_format(out)
    out = out or Path(f"darkroom-{job_id[:8]}.png")
    request = GenerationRequest(job_id=job_id, output_format=wanted, **fields)
    with display(errors if json_output else console) as shown:
        rendered = run(render_job(request, out, url, shown))
    if json_output:
        print(as_json(rendered))
        return
    console.print(as_table(rendered))
    for line in (*approximations(request, rendered.done), *warnings(rendered.done)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for file in rendered.files:
        console.print(str(file), highlight=False, markup=False, soft_wrap=True)
