"""The catalogue of what is served now, followed by every process that knows of models."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from shared import subjects
from shared.bus.base import Bus
from shared.bus.document import follow
from shared.errors import Misconfigured
from shared.messages.components import ServedModels
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue
from shared.models.served import (
    NOTHING,
    Named,
    new_card,
    removable,
    served_models,
    sources_of,
    with_model,
    without_model,
)

log = logging.getLogger(__name__)

Read = Callable[[Sequence[str]], Catalogue]


class ServedCatalogue:
    """`catalogue`: as it is now. `configured`: sources that the fleet was started with. `read`:
    makes a catalogue of sources; may raise `Misconfigured`. `settings_file`: of models; see
    `shared/models/settings.py`."""

    def __init__(
        self, bus: Bus, configured: Sequence[str], read: Read, settings_file: str = ""
    ) -> None:
        self._document = served_models(bus)
        self._configured, self._read = tuple(configured), read
        self._settings_file = settings_file
        self._said = NOTHING
        self._looking = asyncio.Lock()
        self.catalogue = Catalogue(cards={})
        self.changed: list[Callable[[], Awaitable[None]]] = []
        """Called after each change."""

    def __repr__(self) -> str:
        return f"<ServedCatalogue {', '.join(self.catalogue.cards)}>"

    async def begin(self) -> "ServedCatalogue":
        """Itself, read for the first time. Raises `Misconfigured` if none of the models can be
        used."""
        said = await self._document.read() or NOTHING
        self.catalogue = await self._catalogue(said)
        self._said = said
        return self

    @property
    def gone(self) -> tuple[str, ...]:
        """Names of models that were removed lately."""
        return self._said.gone

    async def add(self, source: str) -> ModelCard:
        """Serve the model in `source`, too, everywhere; one that is served already stays. Raises
        `Misconfigured` if it cannot be served beside the others."""
        card = await asyncio.to_thread(new_card, source, self.catalogue, self._settings_file)
        if card.name not in self.catalogue.cards:
            await self._document.change(with_model(card))
            await self.look()
        return card

    async def remove(self, name: str) -> Named:
        """Serve the model that is called so no more, anywhere. Raises `InvalidRequest` if there is
        none, or it is the last one."""
        model = removable(name, self.catalogue)
        await self._document.change(without_model(model))
        await self.look()
        return model

    async def follow(self) -> None:
        """For as long as this runs."""
        await follow(self._document.bus, subjects.CHANGED_MODELS, self.look)

    async def look(self) -> None:
        """See what is served now."""
        async with self._looking:
            said = await self._document.read() or NOTHING
            if said == self._said:
                return
            try:
                found = await self._catalogue(said)
                sources = sources_of(self._configured, said)
                self.catalogue = found.after(self.catalogue, sources)
            except Misconfigured as error:
                log.error("what is served stays as it was: %s", error)
            else:
                log.info("served are %s", ", ".join(self.catalogue.cards))
            self._said = said
            for changed in self.changed:
                await changed()

    async def _catalogue(self, said: ServedModels) -> Catalogue:
        return await asyncio.to_thread(self._read, sources_of(self._configured, said))
