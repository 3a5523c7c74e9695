"""Who may use the bus of a running fleet: as its keys say, for all that it serves at the time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from services.fleet.access.keys import fleet_access
from services.fleet.plan.processes import catalogue_of
from shared.bus.base import Bus
from shared.bus.embedded import ServerAccess
from shared.host.tasks import alongside
from shared.models.catalogue import Catalogue
from shared.process.served import ServedCatalogue
from shared.services import Served


class Renewed(Protocol):
    def renew(self) -> None:
        """Go by what the server's access is now."""


class Admitted:
    """`models`: sources that the fleet was started with. Raises `Misconfigured`."""

    def __init__(self, keys: Path, models: Sequence[str]) -> None:
        self._keys, self._models = keys, tuple(models)
        self.served = _served(catalogue_of(self._models))

    def __repr__(self) -> str:
        return f"<Admitted for {', '.join(self.served.models)}>"

    def access(self) -> ServerAccess:
        """What the server needs. Raises `Misconfigured`."""
        return fleet_access(self._keys, self.served)

    @asynccontextmanager
    async def following(self, bus: Bus, server: Renewed) -> AsyncIterator[None]:
        """Within, and from its beginning, `server` goes by what is served then: models that are
        added while the fleet runs have queues that services may pull from."""
        catalogue = await ServedCatalogue(bus, self._models, catalogue_of).begin()

        async def renew() -> None:
            # Of models that were removed a moment ago nodes are pulled, and ended by name.
            self.served = _served(catalogue.catalogue, catalogue.gone)
            await asyncio.to_thread(server.renew)

        catalogue.changed.append(renew)
        await renew()
        async with alongside(catalogue.follow()):
            yield


def _served(catalogue: Catalogue, gone: Sequence[str] = ()) -> Served:
    models = tuple(dict.fromkeys((*catalogue.cards, *gone)))
    return Served(models, tuple(catalogue.controls))
