"""`darkroom status`: what runs, and what it holds."""

import asyncio
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.fleet.access.admin_bus import bus_at
from services.fleet.plan.processes import catalogue_of
from shared import subjects
from shared.bus.discovery import Service, services, unusable_of
from shared.bus.model_states import ModelState
from shared.bus.unusable import Unusable
from shared.client import fleet_state
from shared.errors import Misconfigured
from shared.messages.components import ComponentState
from shared.models.loras import fits

ANSWER_SECONDS: Final = 0.5
"""How long the services of a fleet get to answer."""


async def show_status(url: str | None, console: Console) -> None:
    """Raises `Misconfigured` if there is no fleet, `BusUnavailable` if its bus does not answer."""
    async with bus_at(url, "darkroom-status") as bus:
        found = await services(bus, ANSWER_SECONDS)
        submitted = await bus.depth(subjects.JOBS, subjects.ALL_SUBMITS)
        queued = await bus.depth(subjects.WORK, subjects.ALL_WORK)
    running = fleet_state.running_at(url)
    console.print(f"NATS  {url or (running.nats_url if running else '')}", highlight=False)
    if running and running.http:
        console.print(f"HTTP  {running.http_url or f'http://{running.http}'}", highlight=False)
    console.print(f"jobs without a planner: {submitted}; nodes waiting or running: {queued}")
    console.print(table(found, running.members if running else ()))
    loras = await asyncio.to_thread(_unfit_loras, running) if running else []
    for line in [*unusable_lines(found), *map(line_of, loras)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _unfit_loras(running: fleet_state.FleetState) -> list[Unusable]:
    """As the fleet that runs here finds them, which reads the same directories."""
    try:
        catalogue = catalogue_of(running.models)
    except Misconfigured:
        return []
    return fits.unusable(
        catalogue.lora_directory, [card.source for card in catalogue.cards.values()]
    )


def unusable_lines(found: Sequence[Service]) -> list[str]:
    """Of what some service was to serve and cannot."""
    return list(map(line_of, unusable_of(found)))


def line_of(one: Unusable) -> str:
    return f"not served: the {one.kind} {one.name}: {one.reason}"


def table(found: Sequence[Service], members: Sequence[fleet_state.Member]) -> Table:
    """Who answers, and who should: supervised processes that do not answer are listed too. What is
    not ready says why, and what works says what should be put right."""
    shown = Table("service", "pid", "state", "restarts", "models", "why")
    known = {member.pid: member for member in members}
    for service in found:
        member = known.get(service.pid)
        restarts = str(member.restarts) if member else ""
        shown.add_row(
            member.name if member else service.service,
            str(service.pid),
            "ready" if service.refusal is None else "not ready",
            restarts,
            ", ".join(_held(service)),
            _why(service),
        )
    answering = {service.pid for service in found}
    for member in members:
        if member.pid not in answering:
            pid = "" if member.pid is None else str(member.pid)
            shown.add_row(member.name, pid, member.state, str(member.restarts), "", member.why)
    return shown


def _held(service: Service) -> list[str]:
    """The names of what it holds; and of what it is to hold, with how that stands."""
    moving = [one for one in service.components if one.state not in ("loaded", "on disk")]
    waiting = [one for one in service.components if one.state == "on disk"]
    return [
        *service.models,
        *(escape(f"{one.name} ({in_words(one)})") for one in (*moving, *waiting)),
    ]


def in_words(one: ComponentState | ModelState) -> str:
    """Such as `loading, about 4 s`, or why it is not loaded."""
    again = "again in" if one.state == "failed" else "about"
    known = one.seconds is not None and one.state in ("loading", "failed")
    seconds = f", {again} {one.seconds:.0f} s" if known else ""
    reason = f": {one.reason}" if one.reason else ""
    return f"{one.state}{seconds}{reason}"


def _why(service: Service) -> str:
    refused = [service.refusal.reason] if service.refusal else []
    return escape("; ".join([*refused, *service.warnings]))
