"""`--lora`: which LoRA, perhaps its checksum, and how strongly it counts."""

from typing import Any, Final

from shared.errors import InvalidRequest
from shared.messages import LoraChoice
from shared.models.loras.sources.directory import SUFFIX, is_name

FORM: Final = "LORA[#sha256=HEX][:SCALE][#partial]"
"""`LORA`: a name, a path, `hub:owner/repo[@revision][:FILE.safetensors]`, or a URL."""
_ALLOWED: Final = (
    f"{FORM} such as neon:0.8, 'a b' or styles/neon{SUFFIX} (a path, if there is a colon in it), "
    "hub:owner/repo:0.8 or "
    f"https://host/neon{SUFFIX}:0.8"
)
_CHECKSUM: Final = "#sha256="
_PARTIAL: Final = "#partial"


def parse_loras(texts: list[str]) -> tuple[LoraChoice, ...]:
    """`["neon", "https://host/stripes.safetensors:0.5"]` as choices. Raises `InvalidRequest`."""
    return tuple(_choice(text) for text in texts)


def _choice(text: str) -> LoraChoice:
    meant = text.removesuffix(_PARTIAL)
    before, colon, last = meant.rpartition(":")
    number = _number(last) if colon else None
    origin, scale = (meant, 1.0) if number is None else (before, number)
    where, _, checksum = origin.partition(_CHECKSUM)
    kind, value = _kind(where)
    # A name with a colon would be read with half of itself as a scale: its file is named by path.
    if not value or (kind == "name" and (":" in value or not is_name(value))):
        raise InvalidRequest("--lora", text, _ALLOWED)
    given: dict[str, Any] = {kind: value, "sha256": checksum or None}
    return LoraChoice(**given, scale=scale, partial=meant != text)


def _kind(where: str) -> tuple[str, str]:
    """The field that it is for, and its value."""
    if where.startswith(("http://", "https://")):
        return "url", where
    if where.startswith("hub:"):
        return "hub", where.removeprefix("hub:")
    if "/" in where or where.endswith(SUFFIX):
        return "path", where
    return "name", where


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
