"""HTTP bodies to jobs, purely: every limit is checked here, before a job exists."""

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from services.gateway.request import (
    ALLOWED,
    ALLOWED_IN_EDITS,
    FILE_FIELDS,
    IMAGE,
    STEPS_FACTOR,
    Control,
    EditsRequest,
    ImagesRequest,
)
from shared.catalogue import Catalogue
from shared.errors import InvalidRequest
from shared.jobs.validate import MAX_STEPS, validate
from shared.messages import ControlChoice, GenerationRequest, JobSpec, LoraChoice

_PARAMETERS: Final = {
    "width": "size",
    "height": "size",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "previews": "partial_images",
}
"""Fields of a job that have another name in HTTP."""

_DATA_URL: Final = re.compile(r"data:image/(png|jpeg|webp);base64", re.IGNORECASE)
_JSON_TEXTS: Final = frozenset({"loras", "controls"})
"""Fields of a form that are no plain text."""
_BODY: Final = msgspec.json.Decoder(ImagesRequest)


class UnknownField(InvalidRequest):
    """The request has a field of a name that HTTP does not know, though a job may; it knows
    `known`."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name, _Shown("this field"), "only " + ", ".join(known))


class _Shown(str):
    """Text that an error shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def parse(body: bytes) -> ImagesRequest:
    """Raises `InvalidRequest` naming the field of `body` that is wrong, and what is allowed."""
    try:
        return _BODY.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error), ALLOWED, partial(_as_sent, body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("body", str(error), "one JSON object in UTF-8") from error


def parse_edit(texts: Mapping[str, str]) -> EditsRequest:
    """The text fields of an edit. Raises `InvalidRequest` as `parse` does."""
    values: dict[str, object] = {**texts}
    for name in _JSON_TEXTS & texts.keys():
        try:
            values[name] = msgspec.json.decode(texts[name])
        except (msgspec.DecodeError, RecursionError) as error:
            allowed = f"as a JSON text, {ALLOWED[name]}"
            raise InvalidRequest(name, texts[name], allowed) from error
    try:
        return msgspec.convert(values, EditsRequest, strict=False)
    except msgspec.ValidationError as error:
        sent = texts.__getitem__
        raise _wrong_field(str(error), ALLOWED_IN_EDITS, lambda n: _Shown(repr(sent(n)))) from error


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
                raise InvalidRequest(name, _Shown(found), FILE_FIELDS[name])
        return Edit(files["image"][0], next(iter(files.get("mask", ())), None))


def _wrong_field(
    reason: str, allowed: Mapping[str, str], sent: Callable[[str], "_Shown"]
) -> InvalidRequest:
    """Which field msgspec's `reason` is about: it names it in the text or as a path. `sent`: what
    was given for a field."""
    path = re.search(r"at `\$\.(\w+)", reason)
    if path is not None:
        name = path.group(1)
        return InvalidRequest(name, sent(name), allowed[name])
    if "unknown field" in reason:
        return UnknownField(reason.split("`")[1], allowed)
    if "missing required field" in reason:
        name = reason.split("`")[1]
        return InvalidRequest(name, _Shown("a missing value"), allowed[name])
    return InvalidRequest("body", reason, "one JSON object")


def _as_sent(body: bytes, name: str) -> _Shown:
    """The JSON text of a field's value, to be quoted in an error."""
    try:
        values = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):  # what follows the first mistake is no better
        return _Shown("the value")
    return _Shown(bytes(values[name]).decode(errors="replace"))


def to_job(
    wanted: ImagesRequest,
    job_id: str,
    catalogue: Catalogue,
    edit: Edit | None = None,
    clock: Callable[[], float] = time.time,
) -> tuple[GenerationRequest, JobSpec]:
    """The job to submit, and what a planner will make of it. A deadline counts from `clock()`. With
    an `edit`, it is decoded (see `validate`). Raises `InvalidRequest`."""
    _check_combinations(wanted)
    width, height = _size(wanted.size)
    request = GenerationRequest(
        job_id=job_id,
        prompt=wanted.prompt,
        model=wanted.model,
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
        output_format=wanted.output_format or "png",
        output_compression=(
            100 if wanted.output_compression is None else wanted.output_compression
        ),
        user=wanted.user,
        **_edit_fields(wanted, edit),
    )
    try:
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
    if isinstance(error, UnknownField):
        return error
    field, allowed = str(error.fields["field"]), str(error.fields["allowed"])
    name = _PARAMETERS.get(field)
    if name is None:
        return error
    value = _Shown(error.fields["value"]) if wanted is None else getattr(wanted, name)
    if name == "size":
        allowed = f'"auto" or "WIDTHxHEIGHT", {field} being {allowed}'
    return InvalidRequest(name, value, allowed)


def quality_of(wanted: ImagesRequest) -> str:
    """The quality under OpenAI's newer names."""
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
            '100 when output_format is "png"; "jpeg" and "webp" take 0 to 100',
        )
    if wanted.lora_late_steps and not wanted.loras:
        raise InvalidRequest("lora_late_steps", wanted.lora_late_steps, "0 without loras")
    if wanted.control_lag and not wanted.controls:
        raise InvalidRequest("control_lag", wanted.control_lag, "0 without controls")
    if wanted.num_inference_steps is not None and quality_of(wanted) != "auto":
        raise InvalidRequest("quality", wanted.quality, '"auto" when num_inference_steps is given')


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
    """From base64, or from `data:image/...;base64,` and base64."""
    head, comma, rest = text.partition(",")
    if comma and not _DATA_URL.fullmatch(head):
        raise InvalidRequest("controls", text, f"for image, {IMAGE}")
    try:
        return base64.b64decode(rest if comma else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("controls", text, f"for image, {IMAGE}") from error


def _steps(wanted: ImagesRequest, catalogue: Catalogue) -> int | None:
    factor = STEPS_FACTOR.get(quality_of(wanted))
    if factor is None:
        return wanted.num_inference_steps
    card = catalogue.cards.get(wanted.model) if wanted.model is not None else catalogue.default
    if card is None:  # `validate` will refuse the model
        return None
    return min(MAX_STEPS, max(1, round(factor * card.default_steps)))


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if match is None:
        raise InvalidRequest("size", size, ALLOWED["size"])
    return int(match.group(1)), int(match.group(2))
