"""What users receive: progress, images, and how a job ended."""

from typing import Literal

import msgspec

from shared.messages.components import State
from shared.messages.requests import ImageFormat


class NodeProgress(msgspec.Struct, frozen=True, kw_only=True, tag="node_progress"):
    """A node was started or finished by `worker`."""

    job_id: str
    node: str
    kind: str
    state: Literal["started", "finished"]
    at: float
    worker: str
    position: int | None = None
    """Of node `plan`: the job is the so many-th to be released by its planner, from 1,"""
    seconds: float | None = None
    """and is predicted to be finished in so many."""
    model_state: State | None = None
    """How its model stands, if it waits because that is not loaded,"""
    loading_seconds: float | None = None
    """and in how many it is predicted to be."""


class WaitingReply(msgspec.Struct, frozen=True, kw_only=True, tag="waiting"):
    """From the planner that holds the job in its backlog: see `NodeProgress`."""

    job_id: str
    position: int | None
    seconds: float | None
    model_state: State | None = None
    loading_seconds: float | None = None


class StepProgress(msgspec.Struct, frozen=True, kw_only=True, tag="step_progress"):
    """`step` of `steps` denoising steps of image `index` are done; `rows` shared the last one."""

    job_id: str
    node: str
    index: int
    step: int
    steps: int
    rows: int
    at: float


class Preview(msgspec.Struct, frozen=True, kw_only=True, tag="preview_image"):
    """Image `index` as it would look if denoising stopped at `step`."""

    job_id: str
    index: int
    partial_index: int
    step: int
    data: bytes
    output_format: ImageFormat


JobEvent = NodeProgress | StepProgress | Preview


class ImageResult(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """One finished image, on `dr.v1.result.<job_id>.<index>`."""

    job_id: str
    index: int
    seed: int
    width: int
    height: int
    output_format: ImageFormat
    data: bytes


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error on the wire. `code` is a `DarkroomError.code`; `fields` are that error's fields."""

    code: str
    message: str
    retryable: bool
    fields: dict[str, str | int | float | None]


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """One node's share of a job's time, in seconds."""

    node: str
    kind: str
    waiting: float
    running: float
    worker: str
    attempts: int


class JobDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    job_id: str
    model: str
    images: int
    seed: int
    steps: int
    width: int
    height: int
    output_format: ImageFormat
    seconds: float
    """From the planner's receipt to the last image's commit."""
    stages: list[StageTime]
    approximations: list[str]
    """Which ran, and what a partial LoRA lacked; empty when the result is exact."""
    warnings: list[str] = []
    """What of the request had no effect, such as the end of a long prompt; each begins with the
    name of its field."""
    text_tokens: int = 0
    """Of the prompts that were encoded, without padding."""


class JobFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    job_id: str
    failure: Failure
    stages: list[StageTime]


class JobCancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    job_id: str


Outcome = JobDone | JobFailed | JobCancelled
