"""HTTP bodies to jobs, purely: every limit is checked here, before a job exists."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from services.gateway.aliases import name_as_sent, resolved
from services.gateway.data_urls import MAX_HEAD, file_of
from services.gateway.ignored import IGNORED
from services.gateway.refusals import InvalidField, Shown, UnknownField
from services.gateway.request import (
    ALIASES,
    ALLOWED,
    ALLOWED_IN_EDITS,
    FILE_FIELDS,
    IMAGE,
    STEPS_FACTOR,
    Control,
    EditsRequest,
    ImagesRequest,
)
from services.gateway.undone import UNDONE
from shared.catalogue import Catalogue
from shared.errors import InvalidRequest
from shared.jobs.travel import fitted_to_travel
from shared.jobs.validate import validate
from shared.messages import ControlChoice, GenerationRequest, JobSpec, LoraChoice
from shared.model_settings import MAX_STEPS

_PARAMETERS: Final = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "previews": "partial_images",
}
"""Fields of a job that have another name in HTTP."""

_SIDES: Final = ("width", "height")

_JSON_TEXTS: Final = frozenset({"loras", "controls"})
"""Fields of a form that are no plain text."""
_AS_WRITTEN: Final = frozenset({"prompt", "negative_prompt", "user"})
"""Fields of a form in which spaces count."""
_BODY: Final = msgspec.json.Decoder(ImagesRequest)


def parse(body: bytes | bytearray) -> ImagesRequest:
    """Raises `InvalidRequest` naming the field of `body` that is wrong, and what is allowed."""
    try:
        return resolved(_decoded(body))
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error), ALLOWED, partial(_as_sent, body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("body", str(error), "one JSON object in UTF-8") from error


def _decoded(body: bytes | bytearray) -> ImagesRequest:
    """In JSON 2.0 is as whole a number as 2."""
    try:
        return _BODY.decode(body)
    except msgspec.ValidationError as error:
        try:
            values = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise error from None
        return msgspec.convert({k: _whole(v) for k, v in values.items()}, ImagesRequest)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_edit(texts: Mapping[str, str]) -> EditsRequest:
    """The text fields of an edit; one that was not filled in counts as left out, but for prompts.
    Raises `InvalidRequest` as `parse` does."""
    texts = {n: text if n in _AS_WRITTEN else text.strip() for n, text in texts.items()}
    texts = {name: text for name, text in texts.items() if text or name in _AS_WRITTEN}
    values: dict[str, object] = {**texts}
    for name in _JSON_TEXTS & texts.keys():
        try:
            values[name] = msgspec.json.decode(texts[name])
        except (msgspec.DecodeError, RecursionError) as error:
            allowed = f"as a JSON text, {ALLOWED[name]}"
            raise InvalidRequest(name, texts[name], allowed) from error
    try:
        return resolved(msgspec.convert(values, EditsRequest, strict=False))
    except msgspec.ValidationError as error:
        sent = texts.__getitem__
        raise _wrong_field(str(error), ALLOWED_IN_EDITS, lambda n: Shown(repr(sent(n)))) from error


@dataclass(frozen=True, slots=True)
class Edit:
    """The files of an edit."""

    image: bytes
    mask: bytes | None

    @staticmethod
    def of(files: Mapping[str, Sequence[bytes]]) -> "Edit":
        """Raises `InvalidRequest` unless there is one image, and no more than one mask."""
        for name, least in (("image", 1), ("mask", 0)):
            count = len(files.get(name, ()))
            if not least <= count <= 1:
                found = f"{count} files" if count else "a missing file"
                raise InvalidRequest(name, Shown(found), FILE_FIELDS[name])
        mask = next(iter(files.get("mask", ())), None)
        return Edit(
            _sent("image", files["image"][0]), None if mask is None else _sent("mask", mask)
        )


def _sent(name: str, content: bytes) -> bytes:
    """The file itself; some clients send a data URL in its place."""
    if content[:5].lower() != b"data:":
        return content
    try:
        return file_of(content.decode("ascii"))
    except ValueError as error:
        raise InvalidRequest(name, content[:MAX_HEAD], FILE_FIELDS[name]) from error


def _wrong_field(
    reason: str, allowed: Mapping[str, str], sent: Callable[[str], Shown]
) -> InvalidRequest:
    """Which field msgspec's `reason` is about: it names it in the text or as a path. `sent`: what
    was given for a field."""
    path = re.search(r"at `\$\.(\w+)", reason)
    if path is not None:
        name = path.group(1)
        return InvalidField(name, sent(name), allowed[name])
    if "unknown field" in reason:
        others = {*ALIASES, *IGNORED, *UNDONE}
        own = (name for name in allowed if name not in others)
        return UnknownField(reason.split("`")[1], own)
    if "missing required field" in reason:
        name = reason.split("`")[1]
        return InvalidField(name, Shown("a missing value"), allowed[name])
    return InvalidRequest("body", reason, "one JSON object")


def _as_sent(body: bytes | bytearray, name: str) -> Shown:
    """The JSON text of a field's value, to be quoted in an error."""
    try:
        values = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):  # what follows the first mistake is no better
        return Shown("the value")
    return Shown(bytes(values[name]).decode(errors="replace"))


def to_job(
    wanted: ImagesRequest,
    job_id: str,
    catalogue: Catalogue,
    edit: Edit | None = None,
    clock: Callable[[], float] = time.time,
) -> tuple[GenerationRequest, JobSpec]:
    """The job to submit, and what a planner will make of it. A deadline counts from `clock()`. An
    edit is decoded (see `validate`), and so are pictures that are too large for the bus (see
    `fitted_to_travel`). Raises `InvalidRequest`."""
    _check_combinations(wanted)
    width, height = _size(wanted)
    request = GenerationRequest(
        job_id=job_id,
        prompt=wanted.prompt,
        model=_name(wanted.model, catalogue),
        negative_prompt=wanted.negative_prompt,
        n=1 if wanted.n is None else wanted.n,
        width=width,
        height=height,
        steps=_steps(wanted, catalogue),
        guidance=wanted.guidance_scale,
        sampler=wanted.sampler,
        seed=wanted.seed,
        service_class=wanted.service_class or "standard",
        deadline=None if wanted.deadline is None else clock() + wanted.deadline,
        loras=tuple(LoraChoice(**msgspec.structs.asdict(one)) for one in wanted.loras or ()),
        lora_late_steps=wanted.lora_late_steps or 0,
        controls=tuple(_control(one) for one in wanted.controls or ()),
        control_lag=wanted.control_lag or 0,
        previews=wanted.partial_images or 0,
        output_format=wanted.output_format,
        output_compression=(
            100 if wanted.output_compression is None else wanted.output_compression
        ),
        user=wanted.user,
        **_edit_fields(wanted, edit),
    )
    try:
        if (card := catalogue.wanted(request.model)) is not None:  # else `validate` refuses it
            request = fitted_to_travel(request, card)
        return request, validate(request, catalogue)
    except InvalidRequest as error:
        raise in_http_terms(error, wanted) from error


def _edit_fields(wanted: ImagesRequest, edit: Edit | None) -> dict[str, Any]:
    """Those of a job that begins from a picture."""
    if edit is None or not isinstance(wanted, EditsRequest):
        return {}
    return {
        "image": edit.image,
        "mask": edit.mask,
        "strength": wanted.strength,
        "mask_mode": wanted.mask_mode or "exact",
    }


def in_http_terms(error: InvalidRequest, wanted: ImagesRequest | None = None) -> InvalidRequest:
    """`error`, if it names a job's field, with the name of the request's field."""
    if isinstance(error, InvalidField):
        return error
    field, allowed = str(error.fields["field"]), str(error.fields["allowed"])
    name = _PARAMETERS.get(field, field)
    if field in _SIDES and (wanted is None or getattr(wanted, field) is None):
        name, allowed = "size", f'"auto" or "WIDTHxHEIGHT", {field} being {allowed}'
    if wanted is not None:
        name = name_as_sent(wanted, name)
    if name == field and field not in (*_SIDES, *_PARAMETERS):
        return error
    sent = None if wanted is None or name == field else getattr(wanted, name)
    return InvalidField(name, Shown(error.fields["value"]) if sent is None else sent, allowed)


def quality_of(wanted: ImagesRequest) -> str:
    """The quality under OpenAI's newer names; auto where a number of steps was asked for."""
    if wanted.num_inference_steps is not None:
        return "auto"
    return {"standard": "medium", "hd": "high"}.get(str(wanted.quality), wanted.quality or "auto")


def _check_combinations(wanted: ImagesRequest) -> None:
    """Fields that would be silently ignored beside others are refused."""
    if wanted.partial_images and not wanted.stream:
        raise InvalidRequest("partial_images", wanted.partial_images, "0, or stream set to true")
    if wanted.stream and wanted.response_format == "url":
        raise InvalidRequest("response_format", "url", '"b64_json" when stream is true')
    lossless = (wanted.output_format or "png") == "png"
    if lossless and wanted.output_compression not in (None, 100):
        raise InvalidRequest(
            "output_compression",
            wanted.output_compression,
            '100 when output_format is "png", as it is by default; "jpeg" and "webp" take 0 to 100',
        )
    if wanted.lora_late_steps and not wanted.loras:
        raise InvalidRequest("lora_late_steps", wanted.lora_late_steps, "0 without loras")
    if wanted.control_lag and not wanted.controls:
        raise InvalidRequest("control_lag", wanted.control_lag, "0 without controls")


def _name(model: str | None, catalogue: Catalogue) -> str | None:
    """That planners know, whatever aliases they have; what nobody knows `validate` refuses."""
    card = None if model is None else catalogue.find(model)
    return model if card is None else card.name


def _control(one: Control) -> ControlChoice:
    return ControlChoice(
        model=one.model,
        image=_file(one.image),
        scale=one.scale,
        start=one.start,
        end=one.end,
        guess_mode=one.guess_mode,
    )


def _file(text: str) -> bytes:
    try:
        return file_of(text)
    except ValueError as error:
        raise InvalidRequest("controls", text, f"for image, {IMAGE}") from error


def _steps(wanted: ImagesRequest, catalogue: Catalogue) -> int | None:
    factor = STEPS_FACTOR.get(quality_of(wanted))
    if factor is None:
        return wanted.num_inference_steps
    card = catalogue.wanted(wanted.model)
    if card is None:  # `validate` will refuse the model
        return None
    return min(MAX_STEPS, max(1, round(factor * card.default_steps)))


def _size(wanted: ImagesRequest) -> tuple[int | None, int | None]:
    """Width and height; None: the model's own."""
    if wanted.size is None or wanted.size == "auto":
        return wanted.width, wanted.height
    match = re.fullmatch(r"([0-9]{1,5}) ?[xX×*] ?([0-9]{1,5})", wanted.size)
    if match is None:
        raise InvalidRequest("size", wanted.size, ALLOWED["size"])
    width, height = int(match.group(1)), int(match.group(2))
    for name, side in zip(_SIDES, (width, height), strict=True):
        if getattr(wanted, name) not in (None, side):
            allowed = f"{side}, as size says, or one of the two"
            raise InvalidField(name, getattr(wanted, name), allowed)
    return width, height
