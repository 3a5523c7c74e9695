"""What an operator says of a model: in `darkroom.json` beside it, or in a file beside the services.

The file that DARKROOM_MODEL_SETTINGS names goes before `darkroom.json`, and serves for models that
nobody here can write beside, such as those of the hub:
`{"stabilityai/sdxl-turbo": {"steps": 2, "guidance": 0}}`. A model is called there by its hub id or
directory as it was given, or by its name.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from shared.errors import Misconfigured
from shared.models.files.directory import local_directory

CARD_FILE: Final = "darkroom.json"
"""Optional, beside `model_index.json`: this model's defaults, where they differ from ours."""
VARIABLE: Final = "DARKROOM_MODEL_SETTINGS"
MAX_STEPS: Final = 1000
MAX_GUIDANCE: Final = 100.0

Side = Annotated[int, msgspec.Meta(ge=1)]

T = TypeVar("T")

log = logging.getLogger(__name__)


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request gets that does not say, and how large it may be. None: derived from the
    model."""

    name: str | None = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, msgspec.Meta(ge=0, le=MAX_GUIDANCE)] | None = None
    sampler: str | None = None
    width: Side | None = None
    height: Side | None = None
    max_width: Side | None = None
    max_height: Side | None = None

    def over(self, other: "ModelSettings") -> "ModelSettings":
        """These, and the other's where these say nothing."""
        said = {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}
        return msgspec.structs.replace(other, **said)


def beside(source: str) -> ModelSettings:
    """Those in the `darkroom.json` of the model `source`. Raises `Misconfigured`."""
    path = local_directory(source) / CARD_FILE
    return _decode(path.read_bytes(), ModelSettings, CARD_FILE) if path.is_file() else _NONE


def of_operator(path: str) -> dict[str, ModelSettings]:
    """Those in the file `path`, by model; none without a path. Raises `Misconfigured`."""
    if not path:
        return {}
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Misconfigured(f"{VARIABLE} names {path!r}, which cannot be read: {error}") from error
    return _decode(data, dict[str, ModelSettings], f"{VARIABLE}, {path}")


def settings_of(source: str, operators: Mapping[str, ModelSettings]) -> ModelSettings:
    """Of the model `source`: the operator's, then its own. Raises `Misconfigured`."""
    own = beside(source)
    names = (source, own.name or name_of(source))
    found = next((operators[name] for name in names if name in operators), _NONE)
    return found.over(own)


def warn_of_strangers(operators: Mapping[str, ModelSettings], known: set[str]) -> None:
    """`known`: sources and names of all models that are given."""
    for name in operators.keys() - known:
        log.warning("%s has settings for %r, which is none of the models here", VARIABLE, name)


def name_of(source: str) -> str:
    """What a model is called that does not say: as its directory or the end of its hub id, also
    where the directory is one of the hub's local cache."""
    parts = Path(source).parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].rsplit("--", 1)[-1]
    return Path(source).name


_NONE: Final = ModelSettings()


def _decode(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        allowed = ", ".join(ModelSettings.__struct_fields__)
        raise Misconfigured(f"{where}: {error}; settings are: {allowed}") from error
