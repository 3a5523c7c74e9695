"""`darkroom render` and `darkroom edit`: from options to a request, from its images to files."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from services.fleet.cli.options import DrawOptions, EditOptions, OutputOptions
from services.fleet.cli.progress import display
from services.fleet.cli.render import image_format
from services.fleet.cli.render import render as render_job
from services.fleet.cli.report import approximations, as_json, as_table, warnings
from shared.client import new_job_id
from shared.host.command_exits import exit_codes, run
from shared.host.command_options import with_option_groups
from shared.media.control_files import read_image
from shared.messages import GenerationRequest


@with_option_groups
def render(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    drawing: DrawOptions,
    output: OutputOptions,
) -> None:
    """Draw an image, on the running fleet or on one started for it."""
    with exit_codes(Console(stderr=True)):
        _draw(output, prompt=prompt, **drawing.fields())


@with_option_groups
def edit(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A png, jpg or webp file.")],
    prompt: Annotated[str, typer.Argument(help="What the result shows.")],
    editing: EditOptions,
    drawing: DrawOptions,
    output: OutputOptions,
) -> None:
    """Draw an image that begins from IMAGE, and keeps what its mask does not show."""
    with exit_codes(Console(stderr=True)):
        fields = editing.fields() | drawing.fields()
        _draw(output, prompt=prompt, image=read_image(image, "IMAGE"), **fields)


def _draw(output: OutputOptions, **fields: Any) -> None:
    """Run the job with these fields of a request, save its images, and report."""
    console, errors = Console(), Console(stderr=True)
    job_id = new_job_id()
    wanted = None if output.out is None else image_format(output.out)
    out = output.out or Path(f"darkroom-{job_id[:8]}.png")
    request = GenerationRequest(job_id=job_id, output_format=wanted, **fields)
    with display(errors if output.json_output else console) as shown:
        rendered = run(render_job(request, out, output.url, shown))
    if output.json_output:
        print(as_json(rendered))
        return
    console.print(as_table(rendered))
    for line in (*approximations(request, rendered.done), *warnings(rendered.done)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for file in rendered.files:
        console.print(str(file), highlight=False, markup=False, soft_wrap=True)
