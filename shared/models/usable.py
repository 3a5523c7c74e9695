"""Which models of a catalogue can be drawn with, as the services say that were to load them: one
that nobody could load is not the default."""

import logging
from collections.abc import Collection

from shared.bus.discovery import Service, unusable_of
from shared.models.catalogue import Catalogue
from shared.services import NEEDED

log = logging.getLogger(__name__)


def as_found(catalogue: Catalogue, found: Collection[Service]) -> Catalogue:
    """`catalogue` as those that answer now know it. A model that somebody could not load stays
    unloadable until every service holds it: who said so may be away for a moment."""
    now = {one.name for one in unusable_of(found) if one.kind == "model"}
    usable = catalogue.without(
        now.union(one for one in catalogue.unloadable if not _held(one, found))
    )
    if usable.default.name != catalogue.default.name:
        log.warning("the default model is %s now", usable.default.name)
    return usable


def _held(model: str, found: Collection[Service]) -> bool:
    return all(
        any(one.service == service and model in one.models for one in found) for service in NEEDED
    )
