"""`darkroom profile`: what the components of the fleet that runs here cost, for `simulate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadgen.cli.results import check_writable
from loadgen.simulator.profiles.profile import Profile, encoded
from shared.bus.nats import connect
from shared.client import Darkroom, fleet_state
from shared.config import Settings
from shared.errors import InvalidRequest, Misconfigured
from shared.host.command_exits import exit_codes, run


def profile(
    file: Annotated[Path, typer.Argument(help="What `darkroom simulate --profile` reads.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Measure this model only; repeat for several."),
    ] = None,
    users: Annotated[
        str, typer.Option(metavar="N[,…]", help="How many ask at a time, one number after another.")
    ] = "1,2,4,8",
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="For which each number of users ask.")
    ] = 6.0,
) -> None:
    """Measure the fleet that runs here, and write a profile of it. Nobody else should use it."""
    console = Console(stderr=True)
    with exit_codes(console):
        check_writable(file)
        found = run(_measured(tuple(model or ()), _numbers(users), seconds, console))
        file.write_bytes(encoded(found))


async def _measured(
    names: Sequence[str], users: Sequence[int], seconds: float, console: Console
) -> Profile:
    from loadgen.simulator.profiles.measured import Drawn
    from loadgen.simulator.studies.measure import measure
    from shared.models.cards import read_card

    running = fleet_state.running_at(None)
    if running is None:
        raise Misconfigured("no fleet is running here; start one with: darkroom up")
    cards = {card.name: card for card in map(read_card, running.models)}
    for name in names:
        if name not in cards:
            raise InvalidRequest("--model", name, "one of " + ", ".join(cards))
    models = {
        name: Drawn(
            steps=card.default_steps,
            guided=card.default_guidance > 1.0 and not card.embedded_guidance,
            width=card.default_width,
            height=card.default_height,
        )
        for name, card in cards.items()
        if not names or name in names
    }
    url, name = running.nats_url, "darkroom-profile"
    bus = await connect(url, name, credentials=running.credentials("admin"))
    try:
        async with Darkroom.connect(url, name, running.credentials("client")) as client:
            return await measure(
                client,
                bus,
                models,
                f"a fleet on this machine, {max(users)} users at most",
                users=users,
                seconds=seconds,
                max_rows=Settings().max_rows,
                tell=lambda text: console.print(text, highlight=False, markup=False),
            )
    finally:
        await bus.close()


def _numbers(text: str) -> tuple[int, ...]:
    """Ascending, from 1, for what a picture takes alone has to be measured."""
    try:
        found = sorted({1, *(int(word) for word in text.split(","))})
    except ValueError:
        found = [0]
    if found[0] < 1 or found[-1] > 1000:
        raise InvalidRequest("--users", text, "whole numbers from 1 to 1000, such as 1,2,4,8")
    return tuple(found)
