"""A fleet has as many processes as placement wants, within what its options allow."""

from collections.abc import Mapping

from services.fleet.supervisor.supervisor import Supervisor
from shared import subjects
from shared.bus.base import Bus
from shared.bus.document import follow
from shared.bus.placement import wanted_of


async def follow_wanted(
    bus: Bus, fleet: str, supervisor: Supervisor, limits: Mapping[str, tuple[int, int]]
) -> None:
    """For as long as this runs. `fleet`: its name in what its processes answer. `limits`: the
    fewest and the most processes of each service that is scaled. Nothing changes while nobody says
    what is wanted."""

    async def look() -> None:
        wanted = await wanted_of(bus, fleet).read()
        if wanted is None:
            return
        for service, (least, most) in limits.items():
            if (count := wanted.processes.get(service)) is not None:
                supervisor.resize(service, max(least, min(most, count)))

    if limits:
        await follow(bus, subjects.PLACED, look)
