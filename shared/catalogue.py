"""Which models are served, and what each allows: read from the JSON files of a diffusers directory.

No torch here: planners and gateways read catalogues. A name that is not a directory is a hub id;
only its small JSON files are fetched for the catalogue.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.adapters.shelf import Shelf
from shared.errors import Misconfigured
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
    guidance: float = 5.0
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
    """Width and height must be multiples of this many pixels (the autoencoder's scale)."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All served models by name, the first one being the default, and the LoRAs for them."""

    cards: dict[str, ModelCard]
    shelf: Shelf = Shelf()

    @property
    def default(self) -> ModelCard:
        return next(iter(self.cards.values()))

    @staticmethod
    def load(sources: Sequence[str], loras: Sequence[str] = ()) -> "Catalogue":
        """Of the models `sources` and the LoRAs in directories `loras`. Raises `Misconfigured` if a
        source is no diffusers model, or two share a name."""
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
        return Catalogue(cards=cards, shelf=Shelf(tuple(loras)))


def read_card(source: str) -> ModelCard:
    """The card of the model in directory (or hub id) `source`."""
    root = local_directory(source)
    index = _json(root / "model_index.json", source)
    scheduler = _json(root / "scheduler" / "scheduler_config.json", source)
    unet = unet_config(source)
    vae = _json(root / "vae" / "config.json", source)
    defaults, name = Defaults(), Path(source).name
    if (root / CARD_FILE).is_file():
        defaults = msgspec.json.decode((root / CARD_FILE).read_bytes(), type=Defaults)
    name = defaults.name or name
    if not name.isprintable() or not name or " " in name:
        raise Misconfigured(
            f"model {source!r}: its name {name!r} must be printable, without spaces"
        )
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    native = int(unet["sample_size"]) * scale
    width, height = defaults.width or native, defaults.height or native
    default_sampler = _DEFAULT_SAMPLERS.get(scheduler.get("_class_name", ""), "euler")
    return ModelCard(
        name=name,
        source=source,
        pipeline=str(index["_class_name"]),
        samplers=samplers_for(scheduler),
        default_sampler=defaults.sampler or default_sampler,
        default_steps=defaults.steps,
        default_guidance=defaults.guidance,
        default_width=width,
        default_height=height,
        max_width=defaults.max_width or 2 * native,
        max_height=defaults.max_height or 2 * native,
        size_multiple=scale,
    )


def unet_config(source: str) -> dict[str, Any]:
    """How the UNet of the model in directory (or hub id) `source` is configured."""
    return _json(local_directory(source) / "unet" / "config.json", source)


def local_directory(source: str) -> Path:
    """Where the small JSON files of the model `source` lie: itself, or the hub's local copy."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*/*.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise Misconfigured(
            f"model {source!r} is neither a directory nor a hub id that can be fetched: {error}"
        ) from error


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"model {source!r} is not a diffusers directory: {path.name}: {error}"
        ) from error
    return content
