"""What image clients call fields of ours, brought under one name."""

from typing import Final, TypeVar

import msgspec

from services.gateway.openai.fields import ALIASES, ImagesRequest
from services.gateway.openai.refusals import InvalidField
from services.gateway.openai.undone import refuse_undone
from shared.models.samplers.samplers import SPACINGS, sampler_named

R = TypeVar("R", bound=ImagesRequest)

_OWN_SPACING: Final = frozenset({"automatic", "default"})


def resolved(wanted: R) -> R:
    """`wanted`, with what it says under other names said under ours as well. Raises
    `InvalidRequest` if two names of one field say different things, or a field asks for what is not
    done here."""
    refuse_undone(wanted)
    said: dict[str, object] = {}
    spacing = _spacing(wanted.scheduler)
    if wanted.sampler is not None:
        said["sampler"] = sampler_named(wanted.sampler)
    for alias, name in ALIASES.items():
        value = getattr(wanted, alias, None)
        if value is None or (alias == "scheduler" and spacing is not None):
            continue
        if name == "sampler":
            value = sampler_named(str(value))
        before = said.get(name, getattr(wanted, name))
        if before not in (None, value):
            raise InvalidField(alias, value, f"{before!r}, as {name} says, or one of the two")
        said[name] = value
    if spacing:
        said["sampler"] = _spaced(wanted, said.get("sampler"), spacing)
    if wanted.output_quality is not None and wanted.output_format not in (None, "png"):
        said["output_compression"] = _quality(wanted)
    return msgspec.structs.replace(wanted, **said)


def _spacing(scheduler: str | None) -> str | None:
    """Some clients tell the noise levels' spacing apart from the sampler, and call that its
    scheduler. Empty: the sampler's own; None: this is no spacing."""
    word = (scheduler or "").strip().lower()
    if word in _OWN_SPACING:
        return ""
    return f"_{word}" if f"_{word}" in SPACINGS else None


def _spaced(wanted: ImagesRequest, sampler: object, spacing: str) -> str:
    if not isinstance(sampler, str):
        allowed = f"a sampler, or {wanted.scheduler!r} beside sampler_name"
        raise InvalidField("scheduler", wanted.scheduler, allowed)
    return sampler if sampler.endswith(spacing) else sampler + spacing


def _quality(wanted: ImagesRequest) -> int | None:
    given, quality = wanted.output_compression, wanted.output_quality
    if given not in (None, quality):
        allowed = f"{given}, as output_compression says, or one of the two"
        raise InvalidField("output_quality", quality, allowed)
    return quality


def name_as_sent(wanted: ImagesRequest, name: str) -> str:
    """What the request called the field `name`."""
    names = (alias for alias, field in ALIASES.items() if field == name)
    return next((alias for alias in names if getattr(wanted, alias, None) is not None), name)
