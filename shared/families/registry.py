"""The families that are served."""

from collections.abc import Mapping
from typing import Any, Final

from shared.errors import Misconfigured
from shared.families.base import Family
from shared.families.flux.family import Flux
from shared.families.sdxl.family import Sdxl
from shared.model_files import read_json

FAMILIES: Final[tuple[type[Family], ...]] = (Sdxl, Flux)


def family_of(source: str) -> Family:
    """Of the model in directory (or hub id) `source`, by its `model_index.json`. Raises
    `Misconfigured` for one that is not served."""
    pipeline = read_json(source, "model_index.json").get("_class_name")
    for family in FAMILIES:
        if family.pipeline == pipeline:
            return family(source, read_json(source, family.denoiser, "config.json"))
    served = ", ".join(family.pipeline for family in FAMILIES)
    raise Misconfigured(f"model {source!r} is a {pipeline}; served are: {served}")


def control_interface(source: str, config: Mapping[str, Any]) -> str:
    """What fits the ControlNet in `source` with this config. Raises `Misconfigured` if it is none
    of any family's."""
    kind = str(config.get("_class_name"))
    for family in FAMILIES:
        if family.control == kind and (found := family.control_interface(config)) is not None:
            if family.control_options is not None:
                family.control_options.check(source, config)
            return found
    served = ", ".join(family.control for family in FAMILIES if family.control is not None)
    raise Misconfigured(
        f"{source!r} is no ControlNet that is served, but a {kind}; served are: {served}"
    )
