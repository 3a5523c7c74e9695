"""Fields of OpenAI's API and of widespread image clients that ask for what is not done here.

Clients send many of them with values that ask for nothing; then they are taken.
"""

import re
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import Meta

from services.gateway.openai.refusals import InvalidField, in_json

NOTHING: Final[tuple[object, ...]] = (
    None,
    False,
    0,
    "",
    [],
    {},
    "false",
    "0",
    "null",
    "none",
    "[]",
    "{}",
)
"""Values that ask for nothing, as JSON and as texts of a form."""


_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")


def _undone(what: str, *nothing: int) -> Meta:
    """`nothing`: numbers that ask for nothing, beside those of `NOTHING`."""
    shown = ", ".join(("false", "0", *map(str, nothing)))
    allowed = f"what asks for nothing ({shown}, or empty), for {what}"
    return Meta(
        description=f"For clients that send it. Allowed: {allowed}.",
        extra={"allowed": allowed, "nothing": nothing},
    )


_ONE_IMAGE: Final = _undone("each image is a single one here, and n says how many there are", 1)
_PIXELS: Final = _undone("images have pixels here")
_NO_IMAGES: Final = _undone(
    "POST /v1/images/edits begins from an image, and controls have control images"
)
_NO_HIRES: Final = _undone("images are drawn at their own size")
_NO_SUBSEED: Final = _undone("noise comes from one seed", -1)


class UndoneFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first ones are OpenAI's."""

    image: Annotated[Any, _NO_IMAGES] = None
    images: Annotated[Any, _NO_IMAGES] = None
    mask: Annotated[Any, _NO_IMAGES] = None
    svg: Annotated[Any, _PIXELS] = None
    complexity: Annotated[Any, _PIXELS] = None
    frame_count: Annotated[Any, _ONE_IMAGE] = None
    num_frames: Annotated[Any, _ONE_IMAGE] = None
    image_url: Annotated[Any, _NO_IMAGES] = None
    image_urls: Annotated[Any, _NO_IMAGES] = None
    input_image: Annotated[Any, _NO_IMAGES] = None
    init_image: Annotated[Any, _NO_IMAGES] = None
    init_images: Annotated[Any, _NO_IMAGES] = None
    mask_url: Annotated[Any, _NO_IMAGES] = None
    mask_image: Annotated[Any, _NO_IMAGES] = None
    reference_images: Annotated[Any, _undone("no image is only looked at here")] = None
    n_iter: Annotated[Any, _ONE_IMAGE] = None
    enable_hr: Annotated[Any, _NO_HIRES] = None
    enable_upscaling: Annotated[Any, _NO_HIRES] = None
    restore_faces: Annotated[Any, _undone("faces are not restored here")] = None
    tiling: Annotated[Any, _undone("images are not made to be tiled")] = None
    clip_skip: Annotated[Any, _undone("all layers of the text encoders are computed")] = None
    true_cfg_scale: Annotated[
        Any, _undone("guidance_scale is the only guidance of a model here", 1)
    ] = None
    subseed: Annotated[Any, _NO_SUBSEED] = None
    subseed_strength: Annotated[Any, _NO_SUBSEED] = None
    styles: Annotated[Any, _undone("there are no named styles; loras are")] = None
    override_settings: Annotated[Any, _undone("a request changes no settings")] = None
    diffusers_kwargs: Annotated[Any, _undone("no pipeline takes its own arguments here")] = None
    alwayson_scripts: Annotated[Any, _undone("there are no scripts")] = None


UNDONE: Final[dict[str, Meta]] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(UndoneFields, include_extras=True).items()
}


def _asked(value: object) -> object:
    """As it is compared with what asks for nothing: `1.0` in a form is 1."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    return float(text) if _NUMBER.fullmatch(text) else text


def refuse_undone(wanted: UndoneFields) -> None:
    """Raises `InvalidField` for the first of these fields that asks for something."""
    for name, meta in UNDONE.items():
        value, about = getattr(wanted, name), meta.extra or {}
        asked = _asked(value)
        if asked not in (*NOTHING, *about["nothing"]):
            raise InvalidField(name, in_json(value), about["allowed"])
