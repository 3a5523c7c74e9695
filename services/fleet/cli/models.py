"""`darkroom models`: what is served and how it stands; and what shall be held of it."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final

import typer
from rich.console import Console

from services.fleet.access.admin_bus import bus_at
from services.fleet.cli.options import Url
from services.fleet.cli.status import ANSWER_SECONDS, in_words, line_of
from services.fleet.plan.processes import catalogue_of, served_models
from shared.bus.base import Bus
from shared.bus.discovery import services
from shared.bus.model_states import HOLDERS, ModelState, model_states
from shared.bus.placement import placement, within, without
from shared.client import fleet_state
from shared.config import Settings
from shared.errors import BusUnavailable
from shared.host.command_exits import exit_codes, run
from shared.models.catalogue import Catalogue
from shared.models.loras import fits
from shared.models.served import Named, named
from shared.process.served import ServedCatalogue

app = typer.Typer(help="What is served; and which models processes hold.")

KEYS_ELSEWHERE: Final = (
    "If the bus of that fleet asks for keys, and `darkroom up` does not run it, services may not "
    "pull its jobs until the keys say so: run `darkroom keys DIR` with a --model for every "
    "model, and have nats-server read DIR/nats/authorization.conf again (nats-server --signal "
    "reload)"
)

Name = Annotated[str, typer.Argument(metavar="MODEL", help="See `darkroom models`.")]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context) -> None:
    """What is served and how it stands, or what a new fleet would serve."""
    if context.invoked_subcommand is None:
        with exit_codes(Console(stderr=True)):
            show_models(Console())


@app.command()
def add(
    model: Annotated[
        str, typer.Argument(metavar="DIR_OR_HUB_ID", help="As of --model of `darkroom up`.")
    ],
    url: Url = None,
) -> None:
    """Serve a model more in the running fleet, and in later ones here."""
    with exit_codes(Console(stderr=True)):
        [source] = served_models((model,), os.environ)
        name = run(change(url, lambda served: served.add(source)))
        running = fleet_state.running_at(url)
    print(f"{name} is served; see `darkroom models` for how it is loaded")
    if running is None:
        print(KEYS_ELSEWHERE)


@app.command()
def remove(model: Name, url: Url = None) -> None:
    """Serve a model no more: what waits of its jobs, or runs, ends as `model_removed`."""
    with exit_codes(Console(stderr=True)):
        name = run(change(url, lambda served: served.remove(model)))
    print(f"{name} is served no more")


@app.command()
def load(model: Name, url: Url = None) -> None:
    """Have the processes of the running fleet hold a model again."""
    with exit_codes(Console(stderr=True)):
        run(place(url, model, held=True))
    print(f"{model} is being loaded; see `darkroom models`")


@app.command()
def unload(model: Name, url: Url = None) -> None:
    """Have the processes of the running fleet let a model go: what they have in hand of it is
    finished or handed over. The next job that wants it brings it back."""
    with exit_codes(Console(stderr=True)):
        run(place(url, model, held=False))
    print(f"{model} is being let go, until a job wants it or `darkroom models load {model}`")


async def change(url: str | None, what: Callable[[ServedCatalogue], Awaitable[Named]]) -> str:
    """The name of the model that `what` adds or removes. Raises as `ServedCatalogue` does."""
    async with bus_at(url, "darkroom-models") as bus:
        served = await _served(bus, fleet_state.running_at(url))
        return (await what(served)).name


async def _served(bus: Bus, running: fleet_state.FleetState | None) -> ServedCatalogue:
    """Of the fleet that runs here, or of one elsewhere that has our settings."""
    models = running.models if running else served_models((), os.environ)
    settings = Settings.from_env()
    served = ServedCatalogue(bus, models, catalogue_of, settings.model_settings)
    return await served.begin()


async def place(url: str | None, model: str, held: bool) -> None:
    """Raises `InvalidRequest` if the model is not served."""
    async with bus_at(url, "darkroom-models") as bus:
        catalogue = (await _served(bus, fleet_state.running_at(url))).catalogue
        name = named("MODEL", model, catalogue).name
        change = (within if held else without)((name,))
        for service in HOLDERS:
            await placement(bus, service).change(change)


async def _now(running: fleet_state.FleetState) -> tuple[Catalogue, Mapping[str, ModelState]]:
    """What the fleet that runs here serves, and how that stands; as it was started, if its bus does
    not answer."""
    try:
        async with bus_at(None, "darkroom-models") as bus:
            served = await _served(bus, running)
            return served.catalogue, model_states(await services(bus, ANSWER_SECONDS))
    except BusUnavailable:
        return catalogue_of(running.models), {}


def show_models(console: Console) -> None:
    """The models of the running fleet, else those that a new one would serve."""
    running = fleet_state.read(fleet_state.state_directory())
    states: Mapping[str, ModelState] = {}
    if running:
        catalogue, states = run(_now(running))
    else:
        catalogue = catalogue_of(served_models((), os.environ))
    for card in catalogue.cards.values():
        lines = (
            card.name,
            f"  from      {card.source}",
            *([f"  state     {in_words(states[card.name])}"] if card.name in states else []),
            f"  size      {card.default_width}x{card.default_height}, "
            f"up to {card.max_width}x{card.max_height}, in multiples of {card.size_multiple}",
            f"  steps     {card.default_steps}",
            f"  guidance  {card.default_guidance:g}",
            f"  sampler   {card.default_sampler}",
            f"  samplers  {', '.join(card.samplers)}",
            f"  controls  {', '.join(catalogue.controls_for(card.name)) or 'none'}",
        )
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    for one in catalogue.unusable:
        said = line_of(one)
        if one.kind == "model" and one.name in states:  # processes know it from before
            state = in_words(states[one.name])
            lines = one.name, f"from      {one.source}", f"state     {state}"
            said = "\n  ".join((*lines, f"files     {one.reason}"))
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    if loras := catalogue.lora_directory.names():
        console.print(f"LoRAs: {', '.join(loras)}", highlight=False, markup=False, soft_wrap=True)
    sources = [card.source for card in catalogue.cards.values()]
    for one in fits.unusable(catalogue.lora_directory, sources):
        console.print(line_of(one), highlight=False, markup=False, soft_wrap=True)
