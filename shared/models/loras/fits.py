"""Whether a LoRA fits a model, said when a job is submitted: by the headers of their files."""

import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from shared.bus.unusable import Unusable
from shared.errors import AdapterUnusable, InvalidRequest, Misconfigured
from shared.messages import LoraChoice
from shared.models.contracts.family import Family
from shared.models.families.registry import family_of
from shared.models.files.safetensors_header import NotSafetensors, read_header
from shared.models.loras.files import Version, version
from shared.models.loras.layout import layout
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.origins import label

ABSENT_SECONDS: Final = 600.0
"""For so long files of a model that were not on this host are not looked for again."""
MAX_VERDICTS: Final = 1024


def check_fits(choice: LoraChoice, lora_directory: LoraDirectory, source: str) -> None:
    """Raises `AdapterUnusable` if `choice`, a file on this host, does not fit the model `source`.
    What is elsewhere is looked at once it is fetched; and so is every file in the services, where
    the files of the model are not on this host."""
    if choice.name is None and choice.path is None:
        return
    name = label(choice)
    path = (
        lora_directory.find(choice.name)
        if choice.name is not None
        else lora_directory.below(choice.path or "")
    )
    family = _family(source, int(time.monotonic() / ABSENT_SECONDS))
    if family is None:
        return
    try:
        reason = _reason(version(path), family, choice.partial)
    except OSError as error:
        reason = f"{path.name} cannot be read: {error.strerror}"
    if reason:
        raise AdapterUnusable(name, reason)


def unfit(lora_directory: LoraDirectory, sources: Iterable[str]) -> dict[str, str]:
    """The LoRAs in the LoRA directories that fit none of the models `sources`, and why not the
    first."""
    models = tuple(sources)
    found = {}
    for name in lora_directory.names():
        reasons = [_refusal(LoraChoice(name=name), lora_directory, source) for source in models]
        if reasons and all(reasons):
            found[name] = reasons[0]
    return found


def unusable(lora_directory: LoraDirectory, sources: Iterable[str]) -> list[Unusable]:
    """As `unfit`, as they are listed."""
    return [
        Unusable(name=name, source=name, kind="lora", reason=reason)
        for name, reason in unfit(lora_directory, sources).items()
    ]


def _refusal(choice: LoraChoice, lora_directory: LoraDirectory, source: str) -> str:
    try:
        check_fits(choice, lora_directory, source)
    except AdapterUnusable as error:
        return str(error.fields["reason"])
    except InvalidRequest as error:  # it was taken away meanwhile
        return error.message
    return ""


@lru_cache(maxsize=MAX_VERDICTS)
def _reason(file: Version, family: Family, partial: bool) -> str:
    """Why this file does not fit; empty if it does."""
    path = Path(file[0])
    try:
        layout("", read_header(path), family, partial=partial)
    except AdapterUnusable as error:
        return str(error.fields["reason"])
    except NotSafetensors as error:
        return f"{path.name} cannot be read: {error}"
    return ""


@lru_cache(maxsize=64)
def _family(source: str, period: int) -> Family | None:
    """None if nothing is known of the model's layers; then it is looked at again in another
    `period`."""
    found = _known.get(source)
    if found is None:
        try:
            found = family_of(source)
        except Misconfigured:
            return None
        if not any(found.layers.values()):
            return None
        _known[source] = found
    return found


_known: dict[str, Family] = {}
"""Models whose layers are known; there are as many as the catalogue has."""
