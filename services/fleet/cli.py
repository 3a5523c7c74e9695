"""`darkroom`: the command line. Wiring only; each command's work is in the module of its name."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadgen.cli import load
from services.fleet import lora_option
from services.fleet import status as status_command
from services.fleet import up as up_command
from services.fleet.dead_cli import app as dead_app
from services.fleet.exits import exit_codes, run
from services.fleet.keys import make_keys
from services.fleet.options import Url
from services.fleet.plan import (
    FleetOptions,
    default_controls,
    default_loras,
    default_models,
    parse_replicas,
)
from services.fleet.progress import display
from services.fleet.render import image_format, parse_size
from services.fleet.render import render as render_job
from services.fleet.report import as_json, as_table
from services.gateway.tokens import add_token
from shared.catalogue import Catalogue
from shared.client import new_job_id
from shared.control_files import read_controls
from shared.jobs.validate import (
    MAX_CONTROL_LAG,
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_SEED,
    MAX_STEPS,
)
from shared.messages import GenerationRequest
from shared.permissions import Served

app = typer.Typer(
    help="Image generation as services over NATS, batched step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dead_app, name="dead")

Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        envvar="DARKROOM_KEYS",
        help="What `darkroom keys` made: nobody else may use the bus, or the gateway.",
    ),
]


@app.command()
def render(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    model: Annotated[str | None, typer.Option(help="Name of a served model.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=MAX_GUIDANCE, help="1 and below: none.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="See `darkroom models`.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED - MAX_IMAGES, help="Of the first image.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="In pixels.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar=lora_option.FORM,
            help="A name (see `darkroom models`), a path, hub:OWNER/REPO or a URL; repeat for "
            "several.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=MAX_IMAGES, help="Number of images.")] = 1,
    late: Annotated[
        int,
        typer.Option(
            "--lora-late-steps", min=0, max=MAX_STEPS, help="Begin so far without the LoRAs."
        ),
    ] = 0,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[:SCALE]", help="A picture to steer by; repeat for several."
        ),
    ] = None,
    lag: Annotated[
        int,
        typer.Option(
            "--control-lag",
            min=0,
            max=MAX_CONTROL_LAG,
            help="Steps by which ControlNets may lag behind.",
        ),
    ] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="png, jpg or webp.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: Url = None,
) -> None:
    """Draw a picture, on the running fleet or on one started for it."""
    console, errors = Console(), Console(stderr=True)
    with exit_codes(errors):
        job_id = new_job_id()
        width, height = parse_size(size) if size else (None, None)
        out = out or Path(f"darkroom-{job_id[:8]}.png")
        request = GenerationRequest(
            job_id=job_id,
            prompt=prompt,
            model=model,
            negative_prompt=negative,
            n=n,
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            seed=seed,
            loras=lora_option.parse_loras(lora or []),
            lora_late_steps=late,
            controls=read_controls(control or [], "--control"),
            control_lag=lag,
            output_format=image_format(out),
        )
        with display(errors if json_output else console) as shown:
            rendered = run(render_job(request, out, url, shown))
    if json_output:
        print(as_json(rendered))
        return
    console.print(as_table(rendered))
    for file in rendered.files:
        console.print(str(file), highlight=False, markup=False, soft_wrap=True)


@app.command()
def up(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR_OR_HUB_ID", help="Models to serve; repeat for several."),
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="Processes of a service; repeat for several."),
    ] = None,
    controls_apart: Annotated[
        bool, typer.Option("--controls-apart", help="A process for each ControlNet.")
    ] = False,
    host: Annotated[str, typer.Option(help="Where the gateway listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8080,
    nats_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the bus; else a free one.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the bus keeps its streams.")] = None,
    keys: Keys = None,
    verbose: Annotated[bool, typer.Option("-v", help="Show the services' output.")] = False,
) -> None:
    """Run a fleet on this machine until it is told to stop."""
    console, errors = Console(), Console(stderr=True)
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    with exit_codes(errors):
        options = FleetOptions(
            models=tuple(model or default_models(os.environ)),
            replicas=parse_replicas(replicas or []),
            controls_apart=controls_apart,
            http_host=host,
            http_port=port,
            keys=keys,
            verbose=verbose,
        )
        with display(console) as shown:
            where = data or up_command.data_directory()
            run(up_command.up(options, where, nats_port, console, shown))


@app.command()
def status(url: Url = None) -> None:
    """Which services run, and what waits for them."""
    with exit_codes(Console(stderr=True)):
        run(status_command.show_status(url, Console()))


@app.command()
def models() -> None:
    """What is served, or what a new fleet would serve."""
    with exit_codes(Console(stderr=True)):
        status_command.show_models(Console())


@app.command("calibrate-lora")
def calibrate_lora(
    name: Annotated[str, typer.Argument(help="See `darkroom models`.")],
    model: Annotated[
        str | None, typer.Option(metavar="DIR_OR_HUB_ID", help="The model to measure it on.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="To measure on; repeat for several.")
    ] = None,
) -> None:
    """Measure how many steps may be taken without a LoRA, and note it beside the LoRA."""
    console, errors = Console(), Console(stderr=True)
    with exit_codes(errors):
        from services.fleet import calibrate_lora as command  # brings torch with it

        sources = (model,) if model else default_models(os.environ)
        catalogue = Catalogue.load(sources, default_loras(os.environ))
        path = command.calibrate_to_file(catalogue, name, prompt or (), errors.print)
        console.print(path.read_text(), highlight=False, markup=False, soft_wrap=True)


@app.command()
def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if absent.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR_OR_HUB_ID", help="Models whose queues services may pull from."),
    ] = None,
    tls: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Certificates for this name or address; repeatable."),
    ] = None,
) -> None:
    """Make a key for every service, and say on the bus what each of them may do."""
    console = Console()
    with exit_codes(Console(stderr=True)):
        sources = tuple(model or default_models(os.environ))
        catalogue = Catalogue.load(sources, controls=default_controls(os.environ))
        served = Served(tuple(catalogue.cards), tuple(catalogue.controls))
        for path in make_keys(directory, served, tls or ()):
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Whose it is; replaces an earlier one of that name.")],
    file: Annotated[Path, typer.Argument(help="What DARKROOM_TOKENS names.")],
) -> None:
    """Make a bearer token for the gateway, print it once, and keep its hash in FILE."""
    with exit_codes(Console(stderr=True)):
        print(add_token(file, name))


app.command()(load)


def main() -> None:
    # What goes wrong ends in a message of the command's own; the rest is for `-v`.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    app()
