"""One served model, as planners and gateways see it: read from the JSON files of its directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import Misconfigured
from shared.models.contracts.family import Family
from shared.models.families.registry import family_of
from shared.models.files.directory import read_json
from shared.models.files.weights import refuse_damaged, weight_bytes
from shared.models.samplers.samplers import (
    own_sampler,
    prediction_of,
    refuse_unreadable,
    sampler_named,
    samplers_for,
)
from shared.models.settings import CARD_FILE, ModelSettings, name_of, settings_of

DEFAULT_STEPS: Final = 30
"""Of a model of which nobody says how many."""


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
    scale: int
    """Pixels, each way, of a latent position."""
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


def read_card(source: str, operators: Mapping[str, ModelSettings] | None = None) -> ModelCard:
    """The card of the model in directory (or hub id) `source`. Raises `Misconfigured` for one that
    cannot be used, or asks for what is not honoured."""
    try:
        return _read_card(source, operators or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Misconfigured(f"the files of model {source!r} do not fit: {reason}") from error


def _read_card(source: str, operators: Mapping[str, ModelSettings]) -> ModelCard:
    family = family_of(source)
    settings = settings_of(source, operators)
    name = name_of(source) if settings.name is None else settings.name
    if not name.isprintable() or not name or " " in name:
        raise Misconfigured(
            f"model {source!r}: its name {name!r} must be printable, without spaces"
        )
    refuse_incomplete(family)
    try:
        family.refuse_unhonoured(read_json(source, "model_index.json"))
        sampler = _default_sampler(family, settings)
        card = _card(name, family, settings, sampler)
        _check_sizes(card)
    except Misconfigured as error:
        raise Misconfigured(f"model {source!r} cannot be served: {error.message}") from error
    return card


def refuse_incomplete(family: Family) -> None:
    """Raises `Misconfigured` if a component has no config, no weights or no whole ones, or a
    tokenizer lacks files; what else than JSON a hub id has is fetched later."""
    root, source = Path(family.source), family.source
    for component in family.components:
        if read_json(source, component, "config.json").get("quantization_config"):
            raise Misconfigured(
                f"{component}/config.json of model {source!r} has a quantization_config; read are "
                "weights that are not quantized"
            )
        if not root.is_dir():
            continue
        if not weight_bytes(root / component):
            raise Misconfigured(f"model {source!r} has no weights (*.safetensors) in {component}/")
        refuse_damaged(source, component)
    for folder, sets in family.tokenizers.items() if root.is_dir() else ():
        if not any(all((root / folder / name).is_file() for name in files) for files in sets):
            allowed = " or ".join(" and ".join(sorted(files)) for files in sets)
            raise Misconfigured(f"model {source!r} has no {allowed} in {folder}/")


def _card(name: str, family: Family, settings: ModelSettings, sampler: str) -> ModelCard:
    source, scale = family.source, family.space.scale
    native = family.native_side * scale
    unit = scale * family.patch
    largest = [
        most - most % unit
        for most in (settings.max_width or 2 * native, settings.max_height or 2 * native)
    ]
    makers = family.wanted((name_of(source), name))
    guidance = settings.guidance
    if guidance is None:
        guidance = makers.guidance if makers else None
    return ModelCard(
        name=name,
        source=source,
        pipeline=family.pipeline,
        samplers=samplers_for(family.scheduler),
        default_sampler=sampler,
        default_steps=settings.steps or (makers.steps if makers else DEFAULT_STEPS),
        default_guidance=family.default_guidance if guidance is None else guidance,
        default_width=settings.width or min(native, largest[0]),
        default_height=settings.height or min(native, largest[1]),
        max_width=largest[0],
        max_height=largest[1],
        scale=scale,
        size_multiple=unit,
        interface=family.control_interface(family.config),
        embedded_guidance=family.embedded_guidance,
        masks=family.masks,
        rounds_up=family.rounds_up,
    )


def _default_sampler(family: Family, settings: ModelSettings) -> str:
    """The one that whoever serves the model chose, else the model's own. Raises `Misconfigured`."""
    scheduler = family.scheduler
    refuse_unreadable(scheduler)
    prediction = prediction_of(scheduler)
    if prediction not in family.predictions:
        raise Misconfigured(
            f"its scheduler, a {scheduler['_class_name']}, is for models that predict "
            f"{prediction}; a {family.pipeline} is drawn with those that predict "
            + " or ".join(sorted(family.predictions))
        )
    usable = samplers_for(scheduler)
    if settings.sampler is None:
        try:
            return own_sampler(scheduler)
        except Misconfigured as error:
            others = f"another may be chosen as the sampler in {CARD_FILE}: {', '.join(usable)}"
            raise Misconfigured(f"{error.message}; {others}") from error
    chosen = sampler_named(settings.sampler)
    if chosen not in usable:
        raise Misconfigured(
            f"{CARD_FILE}: sampler is {settings.sampler!r}; allowed: {', '.join(usable)}"
        )
    return chosen


def _check_sizes(card: ModelCard) -> None:
    """Raises `Misconfigured` if a request that says nothing of its size would be refused."""
    for name, value, most in (
        ("width", card.default_width, card.max_width),
        ("height", card.default_height, card.max_height),
    ):
        unit = card.size_multiple
        if not most:
            raise Misconfigured(f"{CARD_FILE}: max_{name} is too small; allowed: from {unit}")
        if value % unit or value > most:
            raise Misconfigured(
                f"{CARD_FILE}: {name} is {value}; allowed: a multiple of {unit} up to {most}"
            )
