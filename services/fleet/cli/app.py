"""`darkroom`: the command line. Wiring only; each command's work is in the module of its name."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadgen.cli.app import load
from loadgen.cli.profile import profile
from loadgen.cli.simulate import simulate
from services.fleet.access.keys import make_keys
from services.fleet.cli import status as status_command
from services.fleet.cli import up as up_command
from services.fleet.cli.dead import app as dead_app
from services.fleet.cli.draw import edit, render
from services.fleet.cli.models import app as models_app
from services.fleet.cli.options import Url
from services.fleet.cli.progress import display
from services.fleet.cli.up import NATS_PORT
from services.fleet.plan.processes import (
    FleetOptions,
    catalogue_of,
    given_twice,
    parse_most,
    parse_replicas,
    served_models,
)
from shared.host.command_exits import exit_codes, run
from shared.security.tokens import add_token
from shared.services import Served

app = typer.Typer(
    help="Image generation as services over NATS, batched step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dead_app, name="dead")
app.add_typer(models_app, name="models")

Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        envvar="DARKROOM_KEYS",
        help="What `darkroom keys` made: nobody else may use the bus, or the gateway.",
    ),
]


app.command()(render)
app.command()(edit)


@app.command()
def up(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Directory, hub id, or name of a model that ships; repeat for several.",
        ),
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="Processes of a service; repeat for several."),
    ] = None,
    max_processes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=N",
            help="Let placement start and stop processes of a service, N at most; repeat for "
            "several.",
        ),
    ] = None,
    controls_apart: Annotated[
        bool, typer.Option("--controls-apart", help="A process for each ControlNet.")
    ] = False,
    host: Annotated[str, typer.Option(help="Where the gateway listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="DARKROOM_HTTP_PORT", help="0: a free one.")
    ] = 8080,
    nats_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            envvar="DARKROOM_NATS_PORT",
            help=f"Of the bus; 0: a free one. Else {NATS_PORT}, or a free one if that is taken.",
        ),
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
        counts = parse_replicas(replicas or [])
        options = FleetOptions(
            models=served_models(model or (), os.environ),
            replicas=counts,
            most=parse_most(max_processes or [], counts, controls_apart),
            controls_apart=controls_apart,
            http_host=host,
            http_port=port,
            keys=keys,
            verbose=verbose,
        )
        for line in given_twice(model or (), os.environ):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        with display(console) as shown:
            where = data or up_command.data_directory()
            run(up_command.up(options, where, nats_port, console, shown))


@app.command()
def status(url: Url = None) -> None:
    """Which services run, and what waits for them."""
    with exit_codes(Console(stderr=True)):
        run(status_command.show_status(url, Console()))


@app.command("calibrate-lora")
def calibrate_lora(
    name: Annotated[str, typer.Argument(help="See `darkroom models`.")],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model to measure it on.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="To measure on; repeat for several.")
    ] = None,
) -> None:
    """Measure how many steps may be taken without a LoRA, and note it beside the LoRA."""
    console, errors = Console(), Console(stderr=True)
    with exit_codes(errors):
        from services.denoiser.loras import calibrate as command  # brings torch with it

        sources = served_models((model,) if model else (), os.environ)
        catalogue = catalogue_of(sources)
        path = command.calibrate_to_file(catalogue, name, prompt or (), errors.print)
        console.print(path.read_text(), highlight=False, markup=False, soft_wrap=True)


@app.command()
def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if absent.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Models whose queues services may pull from."),
    ] = None,
    tls: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Certificates for this name or address; repeatable."),
    ] = None,
) -> None:
    """Make a key for every service, and say on the bus what each of them may do."""
    console = Console()
    with exit_codes(Console(stderr=True)):
        sources = served_models(model or (), os.environ)
        catalogue = catalogue_of(sources)
        served = Served(tuple(catalogue.cards), tuple(catalogue.controls))
        for path in make_keys(directory, served, tls or ()):
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Whose it is; replaces an earlier one of that name.")],
    file: Annotated[Path, typer.Argument(help="What DARKROOM_TOKENS names.")],
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Its jobs may go before those of all others.")
    ] = False,
    operator: Annotated[
        bool, typer.Option("--operator", help="It may add and remove models.")
    ] = False,
) -> None:
    """Make a bearer token for the gateway, print it once, and keep its hash in FILE."""
    with exit_codes(Console(stderr=True)):
        print(add_token(file, name, interactive, operator))


app.command()(load)
app.command()(simulate)
app.command()(profile)


def main() -> None:
    # What goes wrong ends in a message of the command's own; the rest is for `-v`.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    app()
