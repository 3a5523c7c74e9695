"""HTTP bodies to jobs, purely: every limit is checked here, before a job exists."""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from services.gateway.openai.aliases import name_as_sent
from services.gateway.openai.data_urls import file_of
from services.gateway.openai.edit_images import Edit
from services.gateway.openai.fields import STEPS_FACTOR, EditsRequest, ImagesRequest
from services.gateway.openai.kinds.generation import AS_TEXT
from services.gateway.openai.kinds.objects import Control, ImageSize
from services.gateway.openai.refusals import InvalidField, Shown, in_json
from services.gateway.openai.sizes import SIDES, said_as, size_of
from shared.errors import InvalidRequest
from shared.jobs.travel import fitted_to_travel
from shared.jobs.validate import validate
from shared.messages import ControlChoice, GenerationRequest, JobSpec, LoraChoice
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue
from shared.models.settings import MAX_STEPS
from shared.service_classes import DEFAULT_CLASS

_PARAMETERS: Final = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "previews": "partial_images",
}
"""Fields of a job that have another name in HTTP."""


def to_job(
    wanted: ImagesRequest,
    job_id: str,
    catalogue: Catalogue,
    edit: Edit | None = None,
    clock: Callable[[], float] = time.time,
) -> tuple[GenerationRequest, JobSpec]:
    """The job to submit, and what a planner will make of it. A deadline counts from `clock()`. An
    edit is decoded (see `validate`), and so are images that are too large for the bus (see
    `fitted_to_travel`). Raises `InvalidRequest`."""
    _check_combinations(wanted)
    card = catalogue.wanted(wanted.model)
    # A model that is not there `validate` refuses.
    width, height = (None, None) if card is None else size_of(wanted, card)
    request = GenerationRequest(
        job_id=job_id,
        prompt=wanted.prompt,
        model=wanted.model if wanted.model is None or card is None else card.name,
        negative_prompt=wanted.negative_prompt,
        n=1 if wanted.n is None else wanted.n,
        width=width,
        height=height,
        steps=_steps(wanted, card),
        guidance=wanted.guidance_scale,
        sampler=wanted.sampler,
        seed=wanted.seed,
        service_class=wanted.service_class or DEFAULT_CLASS,
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
    """Those of a job that begins from an image."""
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
    if field in SIDES and (wanted is None or getattr(wanted, field) is None):
        name = "size" if wanted is None else said_as(wanted)
        allowed = f'"auto" or "WIDTHxHEIGHT", {field} being {allowed}'
    if wanted is not None:
        name = name_as_sent(wanted, name)
    if name == field and field not in (*SIDES, *_PARAMETERS):
        return error
    sent = None if wanted is None or name == field else getattr(wanted, name)
    if isinstance(sent, ImageSize):
        sent = in_json(sent)
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


def _control(one: Control) -> ControlChoice:
    return ControlChoice(
        model=one.model,
        image=file_of("controls", one.image, f"for image, {AS_TEXT}"),
        scale=one.scale,
        start=one.start,
        end=one.end,
        guess_mode=one.guess_mode,
    )


def _steps(wanted: ImagesRequest, card: ModelCard | None) -> int | None:
    factor = STEPS_FACTOR.get(quality_of(wanted))
    if factor is None:
        return wanted.num_inference_steps
    return None if card is None else min(MAX_STEPS, max(1, round(factor * card.default_steps)))
