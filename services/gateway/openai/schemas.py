"""What the HTTP API answers with, as msgspec structs; `/openapi.json` is generated from them.

Shapes and names are OpenAI's, so that its clients work unmodified; what OpenAI does not have is
additional and documented here.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from shared.messages import ImageFormat
from shared.messages.components import State


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finished image, by value or by address. `seed` draws it again."""

    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    seed: int


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How the images were made; not part of OpenAI's answer."""

    job_id: str
    model: str
    seed: int
    steps: int
    seconds: float
    approximations: list[str]
    """Which ran, and what a partial LoRA lacked; empty when the result is exact."""


class TokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    image_tokens: int
    text_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of texts are those of the model's tokenizer; tokens of images are positions of its
    latents, as many for an image that is sent as for one that is drawn."""

    input_tokens: int
    input_tokens_details: TokensDetails
    output_tokens: int
    output_tokens_details: TokensDetails
    total_tokens: int


class ImagesResponse(msgspec.Struct, frozen=True, kw_only=True):
    created: int
    data: list[Image]
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    size: str
    usage: Usage
    warnings: list[str] = []
    """What of the request had no effect, each beginning with the name of its field."""
    darkroom: JobSummary


class PartialImageEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag="image_generation.partial_image"
):
    """A preview of image `index`: the running latents, decoded."""

    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: ImageFormat
    partial_image_index: int
    quality: str
    size: str
    index: int
    step: int


class CompletedEvent(msgspec.Struct, frozen=True, kw_only=True, tag="image_generation.completed"):
    """Image `index` is finished; there is one such event per image, in the order of finishing."""

    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: ImageFormat
    quality: str
    size: str
    usage: Usage
    """Of this image."""
    warnings: list[str] = []
    """As in `ImagesResponse`."""
    index: int
    seed: int


class EditPartialImageEvent(
    PartialImageEvent, frozen=True, kw_only=True, tag="image_edit.partial_image"
):
    """A preview of an edit."""


class EditCompletedEvent(CompletedEvent, frozen=True, kw_only=True, tag="image_edit.completed"):
    """Image `index` of an edit is finished."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's fields, then what this model allows."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "darkroom"
    pipeline: str
    samplers: list[str]
    default_sampler: str
    default_steps: int
    default_guidance: float
    default_size: str
    max_size: str
    size_multiple: int
    loras: list[str]
    """What this server has; not all of them need fit this model."""
    controls: list[str]
    """ControlNets that fit this model."""
    aliases: list[str]
    """What else requests may call it, the hub id or directory that it is from among that."""
    state: State | None = None
    """How it stands in the fleet; None: no service answers."""
    reason: str = ""
    """Why it is not loaded, if anybody says so."""
    seconds: float | None = None
    """Until it is loaded, as predicted."""


class NewModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is to be served, too: a directory on the fleet's hosts, or a hub id."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class DeletedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is served no more."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The default model. `model_path`: the hub id or directory that it is from, which requests may
    name as their model."""

    model_path: str
    served_model_name: str
    pipeline: str
    is_generation: Literal[True] = True


class UnusableView(msgspec.Struct, frozen=True, kw_only=True):
    """A model, a ControlNet or a LoRA that cannot be used."""

    id: str
    kind: Literal["model", "controlnet", "lora"]
    reason: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]
    unusable: list[UnusableView] = []
    """What was to be served as well and cannot be, each with the reason."""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    status: Literal["waiting", "ready", "done"]
    attempt: int
    worker: str


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`param` is the offending field of the request, if it was one."""

    message: str
    type: str
    param: str | None
    code: str
    predicted_seconds: float | None = None
    """How long the job would have taken, if that is why it was refused."""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorDetail


class ErrorEvent(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """Ends a stream whose job failed after the first event was sent."""

    error: ErrorDetail


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """`queued`: it waits to be released; then it is the `position`-th of those that its planner
    holds, and is predicted to be finished in `predicted_seconds`, if that is known. `images`:
    addresses, once the job is done."""

    id: str
    object: Literal["job"] = "job"
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    model: str | None = None
    created_at: float | None = None
    ended_at: float | None = None
    position: int | None = None
    predicted_seconds: float | None = None
    model_state: State | None = None
    """How its model stands, if it waits because that is not loaded,"""
    loading_seconds: float | None = None
    """and in how many seconds it is predicted to be."""
    nodes: list[NodeView] = []
    images: list[str] = []
    warnings: list[str] = []
    """What was found so far of its request to have no effect."""
    error: ErrorDetail | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: what has to be there before a request can be served."""

    ready: bool
    missing: list[str]
