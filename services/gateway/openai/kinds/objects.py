"""Objects within a request."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA, and how strongly it counts. Exactly one of `name` (see GET /v1/models), `path` (a
    file below the server's LoRA directories), `hub` (owner/repo[@revision][:file.safetensors]) and
    `url` says which; what is fetched has to come from where the server allows. `sha256`: of the
    file, if it has to be that one. A file of which some tensors have no use is refused, or with
    `partial` used without them: the answer names them among its approximations."""

    name: str | None = None
    path: str | None = None
    hub: str | None = None
    url: str | None = None
    sha256: str | None = None
    scale: float = 1.0
    partial: bool = False


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ControlNet by its name (see GET /v1/models), its control image, and how strongly and in
    which part of the steps it counts. `guess_mode`: for prompts that say nothing of the image."""

    model: str
    image: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    guess_mode: bool = False


class ImageSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A size as an object."""

    width: Annotated[int, Meta(ge=1, le=65_535)]
    height: Annotated[int, Meta(ge=1, le=65_535)]
