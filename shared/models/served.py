"""The models that are served now: those that were configured, and those that an operator added or
removed while fleets ran. That list is in the bus, and outlives fleets."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from shared import subjects
from shared.bus.base import Bus
from shared.bus.document import Document
from shared.errors import InvalidRequest, Misconfigured
from shared.messages.components import ServedModels
from shared.models.cards import ModelCard, read_card
from shared.models.catalogue import Catalogue
from shared.models.settings import of_operator

MOST_ADDED: Final = 256
"""Models that are added, and configured ones that are removed."""
MOST_GONE: Final = 64
"""Names that are remembered so that their jobs end."""

NOTHING: Final = ServedModels()
Change = Callable[[ServedModels | None], ServedModels]


def served_models(bus: Bus) -> Document[ServedModels]:
    return Document(bus, subjects.MODELS, subjects.SERVED, ServedModels, subjects.CHANGED_MODELS)


def sources_of(configured: Sequence[str], said: ServedModels) -> tuple[str, ...]:
    """Directories and hub ids of what is served."""
    kept = [source for source in configured if source not in said.removed]
    return tuple(dict.fromkeys((*kept, *said.added)))


def with_model(card: ModelCard) -> Change:
    """The model of this card, which is not served, is served."""

    def change(before: ServedModels | None) -> ServedModels:
        before = before or NOTHING
        added = before.added
        if card.source not in (*before.removed, *added):
            added = (*added, card.source)
        if len(added) > MOST_ADDED:
            raise InvalidRequest("source", card.source, f"at most {MOST_ADDED} added models")
        return ServedModels(
            added=added,
            removed=_but(before.removed, card.source),
            gone=_but(before.gone, card.name),
        )

    return change


class Named(Protocol):
    """A model, whether or not its files can be read."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...


def without_model(model: Named) -> Change:
    """This model is served no more."""

    def change(before: ServedModels | None) -> ServedModels:
        before = before or NOTHING
        removed = before.removed
        if model.source not in before.added:
            removed = (*_but(removed, model.source), model.source)
        if len(removed) > MOST_ADDED:
            allowed = f"at most {MOST_ADDED} removed ones of those that were configured"
            raise InvalidRequest("model", model.name, allowed)
        return ServedModels(
            added=_but(before.added, model.source),
            removed=removed,
            gone=(*_but(before.gone, model.name), model.name)[-MOST_GONE:],
        )

    return change


def new_card(source: str, catalogue: Catalogue, settings_file: str) -> ModelCard:
    """The card of the model in `source`, which can be served beside those of `catalogue`, or is one
    of them. Reads its files. `settings_file`: see `settings.py`. Raises `Misconfigured`."""
    card = read_card(source, of_operator(settings_file))
    if card.name in catalogue.aliases:
        raise Misconfigured(
            f"model {source!r} is named {card.name}, which is another name of "
            f"{catalogue.aliases[card.name]} here (DARKROOM_MODEL_ALIASES)"
        )
    known = catalogue.cards.get(card.name)
    if known is not None and known.source != source:
        raise Misconfigured(
            f"models {known.source} and {source} are both named {card.name}: remove the one, or "
            "set another name in darkroom.json, or in the file of DARKROOM_MODEL_SETTINGS"
        )
    return card


def named(field: str, name: str, catalogue: Catalogue) -> Named:
    """The model of this name, also one whose files cannot be read (any more): processes may hold
    it. Raises `InvalidRequest` about `field`."""
    unread = {one.name: one for one in catalogue.unusable if one.kind == "model"}
    found = catalogue.find(name) or unread.get(name)
    if found is None:
        raise InvalidRequest(field, name, "one of " + ", ".join((*catalogue.cards, *unread)))
    return found


def removable(name: str, catalogue: Catalogue) -> Named:
    """The model of this name, which may be removed. Raises `InvalidRequest`."""
    found = named("model", name, catalogue)
    if [*catalogue.cards] == [found.name]:
        raise InvalidRequest("model", name, "one that is not the last of those that are served")
    return found


def _but(each: Sequence[str], one: str) -> tuple[str, ...]:
    return tuple(other for other in each if other != one)
