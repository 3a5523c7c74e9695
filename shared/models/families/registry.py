"""The families that are served."""

from collections.abc import Mapping
from typing import Any, Final

from shared.errors import Misconfigured
from shared.models.contracts.family import Family
from shared.models.families.flux.family import Flux
from shared.models.families.sd.family import Sd
from shared.models.families.sdxl.family import Sdxl
from shared.models.files.directory import read_json

FAMILIES: Final[tuple[type[Family], ...]] = (Sdxl, Flux, Sd)


def family_of(source: str) -> Family:
    """Of the model in directory (or hub id) `source`. Raises `Misconfigured` for one that is not
    served."""
    family = family_kind(source)
    return family(source, read_json(source, family.denoiser, "config.json"))


def family_kind(source: str) -> type[Family]:
    """As `family_of`, by the model's `model_index.json` alone."""
    pipeline = read_json(source, "model_index.json").get("_class_name")
    for family in FAMILIES:
        if family.pipeline == pipeline:
            return family
    served = ", ".join(family.pipeline for family in FAMILIES)
    raise Misconfigured(f"model {source!r} is a {pipeline}; served are: {served}")


def control_family(source: str, config: Mapping[str, Any]) -> type[Family]:
    """Whose models the ControlNet in `source` with this config is for. Raises `Misconfigured` if it
    is none of any family's, or asks for what is not honoured."""
    kind = str(config.get("_class_name"))
    fitting = [family for family in FAMILIES if family.control == kind]
    if not fitting:
        served = ", ".join({family.control: None for family in FAMILIES if family.control})
        raise Misconfigured(
            f"{source!r} is no ControlNet that is served, but a {kind}; served are: {served}"
        )
    # One that is nobody's is refused in the words of the first: each has its own options.
    found = next((one for one in fitting if one.control_interface(config) is not None), fitting[0])
    if found.control_options is not None:
        found.control_options.check(source, config)
    return found


def control_interface(source: str, config: Mapping[str, Any]) -> str:
    """What fits the ControlNet in `source` with this config. Raises `Misconfigured` if it is none
    of any family's."""
    found = control_family(source, config).control_interface(config)
    if found is None:
        raise Misconfigured(f"{source!r} is a ControlNet that fits no network that is served")
    return found
