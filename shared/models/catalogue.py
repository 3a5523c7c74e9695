"""Which models are served, and what each allows: read from the JSON files of a diffusers directory.

No torch here: planners and gateways read catalogues. A name that is not a directory is a hub id;
only its small JSON files are fetched for the catalogue. A model or a ControlNet that cannot be used
is listed with the reason, and keeps nobody from the others.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from shared.bus.unusable import Unusable
from shared.config import Settings
from shared.errors import DarkroomError, Misconfigured
from shared.media.sizes import ModelSizes
from shared.models.cards import ModelCard, read_card
from shared.models.families.registry import control_interface
from shared.models.files.directory import is_hub_id, read_json
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.hosts import Hosts
from shared.models.names import VARIABLE, named_by_source, parse_aliases
from shared.models.settings import (
    CARD_FILE,
    ModelSettings,
    name_of,
    of_operator,
    settings_of,
    warn_of_strangers,
)

log = logging.getLogger(__name__)


class ControlCard(msgspec.Struct, frozen=True, kw_only=True):
    """One ControlNet. It fits the models that have its `interface`."""

    name: str
    source: str
    """Directory or hub id to load it from."""
    interface: str
    scale: int
    """Pixels, each way, of the control image that one latent position stands for."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All served models by name, and the add-ons for them."""

    cards: dict[str, ModelCard]
    lora_directory: LoraDirectory = LoraDirectory()
    lora_hosts: Hosts = Hosts()
    """That LoRAs may be fetched from."""
    controls: dict[str, ControlCard] = {}
    """ControlNets by name."""
    aliases: dict[str, str] = {}
    """Names of models by what the operator also calls them."""
    unusable: tuple[Unusable, ...] = ()
    unloadable: frozenset[str] = frozenset()
    """Names of models that services could not load."""
    removed: dict[str, ModelCard] = {}
    """Those that were served, and of which some jobs may be about to end."""

    @property
    def default(self) -> ModelCard:
        """The first one that can be drawn with, as far as is known."""
        first = next(iter(self.cards.values()))
        return next((one for one in self.cards.values() if one.name not in self.unloadable), first)

    @property
    def sources(self) -> dict[str, str]:
        """Directories or hub ids by the names of the models."""
        return {name: card.source for name, card in self.cards.items()}

    def after(self, earlier: "Catalogue", sources: Sequence[str] = ()) -> "Catalogue":
        """This one, which takes the place of `earlier`. A model whose files cannot be read any more
        stays as it was, in its place among `sources`: who holds it goes on."""
        unread = {one.source for one in self.unusable if one.kind == "model"}
        kept = [card for card in earlier.cards.values() if card.source in unread]
        order = {source: number for number, source in enumerate(sources)}
        every = {card.name: card for card in (*kept, *self.cards.values())}.values()
        served = sorted(every, key=lambda card: order.get(card.source, len(order)))
        held = {card.source for card in served}
        known = {**earlier.removed, **earlier.cards}
        cards = {card.name: card for card in served}
        return msgspec.structs.replace(
            self,
            cards=cards,
            unusable=tuple(one for one in self.unusable if one.source not in held),
            removed={name: card for name, card in known.items() if name not in cards},
        ).without(earlier.unloadable)

    def without(self, unloadable: Collection[str]) -> "Catalogue":
        """With these models, of which services said that they could not load them."""
        return msgspec.structs.replace(
            self, unloadable=frozenset(self.cards).intersection(unloadable)
        )

    @staticmethod
    def load(
        sources: Sequence[str],
        loras: Sequence[str] = (),
        controls: Sequence[str] = (),
        lora_hosts: Hosts | None = None,
        settings_file: str = "",
    ) -> "Catalogue":
        """Of the models `sources`, the LoRAs in directories `loras` and on `lora_hosts`, and the
        ControlNets `controls` (see `sort_controls`). `settings_file`: see `settings.py`.
        Raises `Misconfigured` if none of the models can be used."""
        cards, unusable = read_cards(sources, of_operator(settings_file))
        if not cards and unusable:
            raise Misconfigured("; ".join(one.reason for one in unusable))
        if not cards:
            raise Misconfigured("no model is given: set DARKROOM_MODELS or use --model")
        found, unfit = sort_controls(controls)
        for one in (*unusable, *unfit):
            log.warning("the %s %s is not served: %s", one.kind, one.name, one.reason)
        return Catalogue(
            cards=cards,
            lora_directory=LoraDirectory(tuple(loras)),
            lora_hosts=lora_hosts or Hosts(),
            controls=found,
            unusable=(*unusable, *unfit),
        )

    @staticmethod
    def of(settings: Settings, sources: Sequence[str] | None = None) -> "Catalogue":
        """Of what the settings name, or these models instead of theirs; raises as `load` does."""
        hosts = Hosts.parse(settings.lora_origins, settings.lora_hub)
        loaded = Catalogue.load(
            settings.sources if sources is None else sources,
            settings.lora_directories,
            settings.control_sources,
            hosts,
            settings.model_settings,
        )
        wanted = parse_aliases(settings.model_aliases)
        if sources is not None and not set(settings.sources) <= set(sources):
            # A model that was removed takes its other names with it.
            wanted = {alias: name for alias, name in wanted.items() if loaded.knows(name)}
        return loaded.with_aliases(wanted)

    def with_aliases(self, wanted: Mapping[str, str]) -> "Catalogue":
        """With these other names. Raises `Misconfigured` if one is no use."""
        aliases: dict[str, str] = {}
        for alias, model in wanted.items():
            card = self.find(model)
            if card is None and (unusable := self._unusable("model", model)) is not None:
                aliases[alias] = unusable.name
                continue
            if card is None or alias in self.cards:
                reason = f"{model} is not served" if card is None else f"{alias} is itself a model"
                raise Misconfigured(
                    f"{VARIABLE}: {alias}={model} is not allowed, for {reason}; served are "
                    + ", ".join(self.cards)
                )
            aliases[alias] = card.name
        return msgspec.structs.replace(self, aliases=aliases)

    def find(self, model: str) -> ModelCard | None:
        """The model that users call so: by its name, an alias, or the hub id or path that it was
        given as."""
        name = model if model in self.cards else self.aliases.get(model)
        if name is None:
            sources = {card.source: card.name for card in self.cards.values()}
            name = named_by_source(sources, model)
        return None if name is None else self.cards.get(name)

    def knows(self, model: str) -> bool:
        """Whether it is served, or would be if it could be used."""
        return self.find(model) is not None or self._unusable("model", model) is not None

    def wanted(self, model: str | None) -> ModelCard | None:
        """As `find`; None is the default."""
        return self.default if model is None else self.find(model)

    def also_called(self, name: str) -> tuple[str, ...]:
        """What else than `name` this model may be called."""
        aliases = (alias for alias, model in self.aliases.items() if model == name)
        return (*aliases, self.cards[name].source)

    def sizes(self) -> dict[str, ModelSizes]:
        """What the models draw, by all that they may be called."""
        return {
            called: ModelSizes.of(card)
            for name, card in self.cards.items()
            for called in (name, *self.also_called(name))
        }

    def reason(self, kind: str, wanted: str) -> str | None:
        """Why this model or ControlNet is not served; None: it is, or nobody asked for it."""
        name = self.aliases.get(wanted, wanted) if kind == "model" else wanted
        found = self._unusable(kind, name)
        return None if found is None else found.reason

    def _unusable(self, kind: str, wanted: str) -> Unusable | None:
        found = (one for one in self.unusable if one.kind == kind)
        return next((one for one in found if wanted in (one.name, one.source)), None)

    def controls_for(self, model: str) -> dict[str, ControlCard]:
        """The ControlNets that fit model `model`."""
        card = self.cards[model]
        wanted = (card.interface, card.scale)
        return {n: one for n, one in self.controls.items() if (one.interface, one.scale) == wanted}


def read_cards(
    sources: Sequence[str], operators: Mapping[str, ModelSettings]
) -> tuple[dict[str, ModelCard], tuple[Unusable, ...]]:
    """The cards of those models that can be used, by name, and the others; of two that share a
    name the first is the one that is served. One that is given twice is served once."""
    cards: dict[str, ModelCard] = {}
    unusable: list[Unusable] = []
    for source in sources:
        try:
            card = read_card(source, operators)
            known = cards.setdefault(card.name, card)
            if card != known:
                raise Misconfigured(
                    f"models {known.source} and {source} are both named {card.name}: "
                    f"set another name in {CARD_FILE}, or in the file of DARKROOM_MODEL_SETTINGS"
                )
        except DarkroomError as error:
            name = _called(source, operators)
            unusable.append(Unusable(name=name, source=source, kind="model", reason=error.message))
    warn_of_strangers(operators, {*sources, *cards})
    return cards, tuple(unusable)


def _called(source: str, operators: Mapping[str, ModelSettings]) -> str:
    """The name of a model that may not even have files."""
    try:
        return settings_of(source, operators).name or name_of(source)
    except DarkroomError:
        return name_of(source)


def read_controls(sources: Sequence[str]) -> dict[str, ControlCard]:
    """Those of `sort_controls` that can be used."""
    return sort_controls(sources)[0]


def sort_controls(
    sources: Sequence[str],
) -> tuple[dict[str, ControlCard], tuple[Unusable, ...]]:
    """ControlNets by name, and those that cannot be used. A source is a ControlNet's directory or
    hub id, or a folder of such directories; a folder that is not there holds none. Of two that
    share a name the first is the one that is served."""
    cards: dict[str, ControlCard] = {}
    unusable: list[Unusable] = []
    for source in (one for given in sources for one in control_sources(given)):
        name = name_of(source)
        try:
            card = read_control(source)
            if name in cards:
                raise Misconfigured(
                    f"ControlNets {cards[name].source} and {source} are both named {name}"
                )
            cards[name] = card
        except DarkroomError as error:
            unusable.append(
                Unusable(name=name, source=source, kind="controlnet", reason=error.message)
            )
    return cards, tuple(unusable)


def read_control(source: str) -> ControlCard:
    """The card of the ControlNet in directory (or hub id) `source`. Raises `Misconfigured`."""
    config = read_json(source, "config.json")
    try:
        interface = control_interface(source, config)
        levels = config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
        scale = 2 ** (len(levels) - 1)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Misconfigured(f"the files of {source!r} do not fit: {reason}") from error
    return ControlCard(name=name_of(source), source=source, interface=interface, scale=scale)


def control_sources(source: str) -> list[str]:
    """The ControlNets' own directories, or hub id, that are meant by a source of `sort_controls`;
    nothing is fetched."""
    folder = Path(source)
    fetched = not folder.is_dir() and is_hub_id(source)
    if (folder / "config.json").is_file() or fetched:
        return [source]
    return [str(path.parent) for path in sorted(folder.glob("*/config.json"))]
