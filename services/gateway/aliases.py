"""What image clients call fields of ours, brought under one name."""

import re
from typing import TypeVar

import msgspec

from services.gateway.refusals import InvalidField
from services.gateway.request import ALIASES, ImagesRequest
from services.gateway.undone import refuse_undone

R = TypeVar("R", bound=ImagesRequest)


def resolved(wanted: R) -> R:
    """`wanted`, with what it says under other names said under ours as well. Raises
    `InvalidRequest` if two names of one field say different things, or a field asks for what is not
    done here."""
    refuse_undone(wanted)
    said: dict[str, object] = {}
    if wanted.sampler is not None:
        said["sampler"] = sampler_named(wanted.sampler)
    for alias, name in ALIASES.items():
        value = getattr(wanted, alias, None)
        if value is None:
            continue
        if name == "sampler":
            value = sampler_named(str(value))
        before = said.get(name, getattr(wanted, name))
        if before not in (None, value):
            raise InvalidField(alias, value, f"{before!r}, as {name} says, or one of the two")
        said[name] = value
    return msgspec.structs.replace(wanted, **said)


def sampler_named(shown: str) -> str:
    """The sampler that image clients show so: `DPM++ 2M Karras` is `dpmpp_2m_karras`."""
    name = re.sub(r"[\s_-]+", "_", shown.strip().lower().replace("++", "pp"))
    return re.sub(r"^euler_a(?=_|$)", "euler_ancestral", name)


def name_as_sent(wanted: ImagesRequest, name: str) -> str:
    """What the request called the field `name`."""
    names = (alias for alias, field in ALIASES.items() if field == name)
    return next((alias for alias in names if getattr(wanted, alias, None) is not None), name)
