"""Every message, grouped by who receives it. MessagePack maps on the wire, tagged by `type`.

Requests from users refuse unknown fields; messages between our own processes ignore them, so that a
rolling update works. Times are Unix seconds, durations seconds.
"""

from collections.abc import Collection
from typing import Final, Literal, TypeVar

import msgspec

from shared.errors import DarkroomError, InvalidRequest
from shared.tensors.handle import TensorHandle

ServiceClass = Literal["interactive", "standard", "batch"]
ImageFormat = Literal["png", "jpeg", "webp"]
MaskSource = Literal["none", "file", "alpha"]
"""Where an edit's mask is: nowhere, in a file of its own, or in its image's alpha channel."""

JOB_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"

# --------------------------------------------------------------------------- received by planners


class LoraChoice(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A low-rank adapter, by exactly one of `name`, `path`, `hub` and `url`, and how strongly it
    counts."""

    name: str | None = None
    """On the server's shelf."""
    path: str | None = None
    """A file below one of the directories of the shelf."""
    hub: str | None = None
    """On the model hub: owner/repo[@revision][:file.safetensors]."""
    url: str | None = None
    sha256: str | None = None
    """In hexadecimal digits; of the file, if it has to be that one."""
    scale: float = 1.0
    partial: bool = False
    """Whether it may be used though some of its tensors have no use: the result names them."""


class ControlChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ControlNet by its name, the picture that it steers by, and how."""

    model: str
    image: bytes
    """A file: png, jpeg or webp; brought to the size of the image."""
    scale: float = 1.0
    start: float = 0.0
    """Share of the denoising steps after which it begins,"""
    end: float = 1.0
    """and after which it ends."""
    guess_mode: bool = False
    """Only the guided half is steered, the outer layers less than the inner ones: for prompts that
    say nothing of what the picture shows."""


class GenerationRequest(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="generate",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a user asks for, on `dr.v1.submit.<job_id>`. None: the model's own default."""

    job_id: str
    prompt: str
    model: str | None = None
    negative_prompt: str | None = None
    n: int = 1
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    """Classifier-free guidance scale; 1 and below: no guidance. For a model with embedded guidance
    (see `shared.families.base.Family`) the number that its network is told."""
    sampler: str | None = None
    seed: int | None = None
    """Image i is drawn from seed + i. None: derived from the job id."""
    service_class: ServiceClass = "standard"
    deadline: float | None = None
    """Unix seconds after which the result is of no use."""
    loras: tuple[LoraChoice, ...] = ()
    lora_late_steps: int = 0
    """Denoising steps that may be taken before the LoRAs are loaded; 0 is exact."""
    controls: tuple[ControlChoice, ...] = ()
    control_lag: int = 0
    """1: each step may be steered by what the ControlNets said of the step before; 0 is exact."""
    image: bytes | None = None
    """A file (png, jpeg or webp) to begin from; brought to the size of the result."""
    mask: bytes | None = None
    """A file of the image's size: where it is fully transparent, or, without any transparency,
    white, the image is drawn anew; the rest stays as it is. None: the image's own alpha channel, if
    any of it is fully transparent; else all of the image is drawn anew."""
    strength: float | None = None
    """How much of the image is given up, above 0 to 1: the share of the steps that are taken."""
    mask_mode: str = "exact"
    """How what the mask keeps is computed: `exact`, or `cached`: it may be taken from an earlier
    edit of the image."""
    previews: int = 0
    """Pictures of the running latents to send while denoising, evenly spaced."""
    output_format: ImageFormat | None = None
    """None: png, or jpeg where the png may be too large for the bus."""
    output_compression: int = 100
    """Quality of jpeg and webp, 0 to 100."""
    user: str | None = None


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """On `dr.v1.cancel.<job_id>`; a planner answers with `CancelReply`, workers drop the rows."""

    job_id: str


class CancelReply(msgspec.Struct, frozen=True, kw_only=True, tag="cancel_reply"):
    job_id: str
    status: Literal["running", "done", "failed", "cancelled", "unknown"]
    """The job's status after the request was handled."""


# --------------------------------------------------------------------- received by model services


class ControlSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A `ControlChoice` after validation; its picture is on `dr.v1.input.<job>.<number>`."""

    model: str
    scale: float
    start: float
    end: float
    guess_mode: bool


class EditSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An image to begin from, after validation: the files are on `dr.v1.input.<job>.image` and
    `dr.v1.input.<job>.mask`."""

    strength: float
    mask: MaskSource
    mask_mode: str

    @property
    def masked(self) -> bool:
        return self.mask != "none"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request after validation: nothing left open, everything within the model's limits."""

    prompt: str
    model: str
    negative_prompt: str | None
    n: int
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    seed: int
    service_class: ServiceClass
    deadline: float | None
    previews: int
    output_format: ImageFormat
    output_compression: int
    user: str | None
    loras: tuple[LoraChoice, ...] = ()
    lora_late_steps: int = 0
    controls: tuple[ControlSpec, ...] = ()
    control_lag: int = 0
    edit: EditSpec | None = None
    """None: drawn from noise alone."""
    embedded_guidance: bool = False
    """Guidance is a number that the network is told."""

    @property
    def guided(self) -> bool:
        """Whether each step needs a second, unconditional forward."""
        return self.guidance > 1.0 and not self.embedded_guidance


class NodeTask(msgspec.Struct, frozen=True, kw_only=True, tag="node"):
    """Run this attempt of this node; everything else is in the job's record."""

    job_id: str
    node: str
    attempt: int


class PreviewTask(msgspec.Struct, frozen=True, kw_only=True, tag="preview"):
    """Predicted clean latents of a running row, for whichever vae process has time."""

    job_id: str
    index: int
    partial_index: int
    step: int
    latents: TensorHandle
    output_format: ImageFormat
    output_compression: int


TextHandles = tuple[TensorHandle, ...]
"""What the network is told for one image, in the order of `Family.conditioning`."""


class ControlledRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a step, as a ControlNet sees it. All that it needs again and again is behind
    handles, so that any replica can serve any step."""

    job_id: str
    t: float
    numbers: tuple[float, ...]
    texts: tuple[TextHandles, ...]
    """For each image that is wanted: the unconditional half, if it is one of them, comes first."""
    hint: TensorHandle
    """The embedded picture (C, H, W)."""
    scale: float
    guess_mode: bool


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True, tag="control"):
    """One step of `rows`, on `dr.v1.control.<model>`; answered by a `ControlReply`."""

    rows: tuple[ControlledRow, ...]
    x: TensorHandle
    """What the network is fed, (rows, C, H, W)."""


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, tag="control_reply"):
    """The residuals, scaled, one behind the other in one tensor: each of (F, C, H, W) for the F
    images of the rows that did not fail, in the order of the request."""

    failures: dict[int, "Failure"]
    """By the row's place in the request."""
    residuals: TensorHandle | None
    """None if every row failed."""
    shapes: tuple[tuple[int, ...], ...]
    seconds: float
    """From receipt to answer."""
    widened: tuple[int, ...] = ()
    """Rows, by their place in the request, for which float32 was needed."""


class HalfRequest(msgspec.Struct, frozen=True, kw_only=True, tag="half"):
    """One image of a step, on `dr.v1.assist.<model>`: the unconditional half of a row that is alone
    with its denoiser. Answered by a `HalfReply`."""

    job_id: str
    x: TensorHandle
    """What the network is fed, (1, C, H, W)."""
    t: float
    numbers: tuple[float, ...]
    text: TextHandles


class HalfReply(msgspec.Struct, frozen=True, kw_only=True, tag="half_reply"):
    out: TensorHandle | None
    """The network's answer (1, C, H, W); None: there is other work."""


class ReleaseTensor(msgspec.Struct, frozen=True, kw_only=True, tag="release_tensor"):
    """To the owner of an arena: nobody needs this tensor any more."""

    tensor: TensorHandle


class ReleaseJob(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """To the owner of an arena: no slot is needed for this job any more."""

    job_id: str


# ------------------------------------------------------------------------------ received by users


class NodeProgress(msgspec.Struct, frozen=True, kw_only=True, tag="node_progress"):
    """A node was started or finished by `worker`."""

    job_id: str
    node: str
    kind: str
    state: Literal["started", "finished"]
    at: float
    worker: str


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

# ----------------------------------------------------------------------------------------- codecs

_ENCODER = msgspec.msgpack.Encoder()
_TYPES: dict[object, "msgspec.msgpack.Decoder[object]"] = {}
T = TypeVar("T")


def encode(message: object) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes, wanted: type[T]) -> T:
    """`data` as a `wanted` (a struct). Raises `InvalidRequest` naming the offending field."""
    return _decode(data, wanted)  # type: ignore[return-value]


def decode_event(data: bytes) -> JobEvent:
    return _decode(data, JobEvent)  # type: ignore[return-value]


def decode_release(data: bytes) -> ReleaseJob | ReleaseTensor:
    return _decode(data, ReleaseJob | ReleaseTensor)  # type: ignore[return-value]


def decode_outcome(data: bytes) -> Outcome:
    return _decode(data, Outcome)  # type: ignore[return-value]


def _decode(data: bytes, wanted: object) -> object:
    decoder = _TYPES.get(wanted)
    if decoder is None:
        decoder = _TYPES[wanted] = msgspec.msgpack.Decoder(wanted)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise _as_invalid(error) from error


def _as_invalid(error: Exception) -> InvalidRequest:
    text = str(error)
    reason, _, path = text.partition(" - at `$")
    name = path.rstrip("`").lstrip(".") or "message"
    if "unknown field" in reason or "required field" in reason:
        name = reason.split("`")[1] if "`" in reason else name
    return InvalidRequest(name, reason, "a message as docs/nats.md describes it")


def named_handles(names: Collection[str], handles: TextHandles) -> dict[str, TensorHandle]:
    """`handles` by the `names` of a family's conditioning. Raises `InvalidRequest` if they are not
    of such a family."""
    if len(names) != len(handles):
        allowed = f"{len(names)} of them: {', '.join(names)}"
        raise InvalidRequest("texts", f"{len(handles)} handles", allowed)
    return dict(zip(names, handles, strict=True))


def failure_of(error: BaseException) -> Failure:
    """`error` for the wire; anything that is not ours becomes an `internal_error`."""
    if isinstance(error, DarkroomError):
        fields = {
            name: value if isinstance(value, str | int | float) or value is None else str(value)
            for name, value in error.fields.items()
        }
        return Failure(
            code=error.code, message=error.message, retryable=error.retryable, fields=fields
        )
    return Failure(
        code=DarkroomError.code,
        message=f"{type(error).__name__}: {error}",
        retryable=True,
        fields={},
    )
