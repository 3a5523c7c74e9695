"""Which models are served, and what each allows: read from the JSON files of a diffusers directory.

No torch here: planners and gateways read catalogues. A name that is not a directory is a hub id;
only its small JSON files are fetched for the catalogue.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shared.adapters.hosts import Hosts
from shared.adapters.shelf import Shelf
from shared.config import Settings
from shared.errors import Misconfigured
from shared.families.registry import control_interface, family_of
from shared.model_files import is_hub_id, local_directory, read_json
from shared.model_names import VARIABLE, named_by_source, parse_aliases
from shared.samplers import samplers_for

CARD_FILE: Final = "darkroom.json"
"""Optional, beside `model_index.json`: this model's defaults, where they differ from ours."""

_DEFAULT_SAMPLERS: Final = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "FlowMatchEulerDiscreteScheduler": "flow_euler",
}


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """`darkroom.json`: what a request gets that does not say. None: derived from the model."""

    name: str | None = None
    steps: int = 30
    guidance: float | None = None
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    max_width: int | None = None
    max_height: int | None = None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One served model."""

    name: str
    """What users call it, and the model token in subjects."""
    source: str
    """Directory or hub id to load components from."""
    pipeline: str
    """Class name in `model_index.json`."""
    samplers: tuple[str, ...]
    default_sampler: str
    default_steps: int
    default_guidance: float
    default_width: int
    default_height: int
    max_width: int
    max_height: int
    size_multiple: int
    """Width and height must be multiples of this many pixels (the autoencoder's scale, times the
    network's patch)."""
    interface: str | None
    """Of its denoising network; see `Family.control_interface`."""
    embedded_guidance: bool
    """See `Family.embedded_guidance`."""
    masks: bool
    """See `Family.masks`."""
    rounds_up: bool
    """See `Family.rounds_up`."""


class ControlCard(msgspec.Struct, frozen=True, kw_only=True):
    """One ControlNet. It fits the models that have its `interface`."""

    name: str
    source: str
    """Directory or hub id to load it from."""
    interface: str


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All served models by name, the first one being the default, and the add-ons for them."""

    cards: dict[str, ModelCard]
    shelf: Shelf = Shelf()
    lora_hosts: Hosts = Hosts()
    """That LoRAs may be fetched from."""
    controls: dict[str, ControlCard] = {}
    """ControlNets by name."""
    aliases: dict[str, str] = {}
    """Names of models by what the operator also calls them."""

    @property
    def default(self) -> ModelCard:
        return next(iter(self.cards.values()))

    @staticmethod
    def load(
        sources: Sequence[str],
        loras: Sequence[str] = (),
        controls: Sequence[str] = (),
        lora_hosts: Hosts | None = None,
    ) -> "Catalogue":
        """Of the models `sources`, the LoRAs in directories `loras` and on `lora_hosts`, and the
        ControlNets `controls` (see `read_controls`). Raises `Misconfigured` if a source is no
        diffusers model, or two share a name."""
        cards: dict[str, ModelCard] = {}
        for source in sources:
            card = read_card(source)
            if card.name in cards:
                raise Misconfigured(
                    f"models {cards[card.name].source} and {source} are both named {card.name}: "
                    f"set another name in {CARD_FILE}"
                )
            cards[card.name] = card
        if not cards:
            raise Misconfigured("no model is given: set DARKROOM_MODELS or use --model")
        return Catalogue(
            cards=cards,
            shelf=Shelf(tuple(loras)),
            lora_hosts=lora_hosts or Hosts(),
            controls=read_controls(controls),
        )

    @staticmethod
    def of(settings: Settings) -> "Catalogue":
        """Of what the settings name; raises as `load` does."""
        hosts = Hosts.parse(settings.lora_origins, settings.lora_hub)
        loaded = Catalogue.load(settings.sources, settings.shelf, settings.control_sources, hosts)
        return loaded.with_aliases(parse_aliases(settings.model_aliases))

    def with_aliases(self, wanted: Mapping[str, str]) -> "Catalogue":
        """With these other names. Raises `Misconfigured` if one is no use."""
        aliases: dict[str, str] = {}
        for alias, model in wanted.items():
            card = self.find(model)
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
        return None if name is None else self.cards[name]

    def also_called(self, name: str) -> tuple[str, ...]:
        """What else than `name` this model may be called."""
        aliases = (alias for alias, model in self.aliases.items() if model == name)
        return (*aliases, self.cards[name].source)

    def controls_for(self, model: str) -> dict[str, ControlCard]:
        """The ControlNets that fit model `model`."""
        wanted = self.cards[model].interface
        return {name: card for name, card in self.controls.items() if card.interface == wanted}


def read_card(source: str) -> ModelCard:
    """The card of the model in directory (or hub id) `source`. Raises `Misconfigured`."""
    try:
        return _read_card(source)
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Misconfigured(f"the files of model {source!r} do not fit: {reason}") from error


def _read_card(source: str) -> ModelCard:
    family, root = family_of(source), local_directory(source)
    scheduler = read_json(source, "scheduler", "scheduler_config.json")
    vae = read_json(source, "vae", "config.json")
    defaults, name = Defaults(), Path(source).name
    if (root / CARD_FILE).is_file():
        defaults = msgspec.json.decode((root / CARD_FILE).read_bytes(), type=Defaults)
    name = defaults.name or name
    if not name.isprintable() or not name or " " in name:
        raise Misconfigured(
            f"model {source!r}: its name {name!r} must be printable, without spaces"
        )
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    native = family.native_side * scale
    width, height = defaults.width or native, defaults.height or native
    default_sampler = _DEFAULT_SAMPLERS.get(scheduler.get("_class_name", ""), "euler")
    return ModelCard(
        name=name,
        source=source,
        pipeline=family.pipeline,
        samplers=samplers_for(scheduler),
        default_sampler=defaults.sampler or default_sampler,
        default_steps=defaults.steps,
        default_guidance=(
            family.default_guidance if defaults.guidance is None else defaults.guidance
        ),
        default_width=width,
        default_height=height,
        max_width=defaults.max_width or 2 * native,
        max_height=defaults.max_height or 2 * native,
        size_multiple=scale * family.patch,
        interface=family.control_interface(family.config),
        embedded_guidance=family.embedded_guidance,
        masks=family.masks,
        rounds_up=family.rounds_up,
    )


def read_controls(sources: Sequence[str]) -> dict[str, ControlCard]:
    """ControlNets by name. A source is a ControlNet's directory or hub id, or a folder of such
    directories; a folder that is not there holds none. Raises `Misconfigured` if one is no
    ControlNet, or two share a name."""
    cards: dict[str, ControlCard] = {}
    for source in (one for given in sources for one in control_sources(given)):
        interface = control_interface(source, read_json(source, "config.json"))
        name = Path(source).name
        if name in cards:
            raise Misconfigured(
                f"ControlNets {cards[name].source} and {source} are both named {name}"
            )
        cards[name] = ControlCard(name=name, source=source, interface=interface)
    return cards


def control_sources(source: str) -> list[str]:
    """The ControlNets' own directories, or hub id, that are meant by a source of `read_controls`;
    nothing is fetched."""
    folder = Path(source)
    fetched = not folder.is_dir() and is_hub_id(source)
    if (folder / "config.json").is_file() or fetched:
        return [source]
    return [str(path.parent) for path in sorted(folder.glob("*/config.json"))]
