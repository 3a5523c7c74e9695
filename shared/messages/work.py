"""What model services and the owners of arenas receive."""

from collections.abc import Collection

import msgspec

from shared.errors import InvalidRequest
from shared.messages.handle import TensorHandle
from shared.messages.requests import ImageFormat, LoraChoice, MaskSource
from shared.messages.results import Failure
from shared.service_classes import ServiceClass


class ControlSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A `ControlChoice` after validation; its image is on `dr.v1.input.<job>.<number>`."""

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
    """Guidance is one of the network's scalars, and no second forward."""
    wanted_by: float | None = None
    """Unix seconds by which a job without a deadline was promised to be finished; it does not fail
    if it is not."""

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
"""Handles to the conditioning of one image, in the order of `Family.conditioning`."""


class ControlledRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a step, as a ControlNet sees it. All that it needs again and again is behind
    handles, so that any replica can serve any step."""

    job_id: str
    t: float
    scalars: tuple[float, ...] = msgspec.field(name="numbers")
    texts: tuple[TextHandles, ...]
    """For each image that is wanted: the unconditional half, if it is one of them, comes first."""
    hint: TensorHandle
    """The embedded image (C, H, W)."""
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


class CfgBranchRequest(msgspec.Struct, frozen=True, kw_only=True, tag="half"):
    """One image of a step, on `dr.v1.assist.<model>`: the unconditional half of a row that is alone
    with its denoiser. Answered by a `CfgBranchReply`."""

    job_id: str
    x: TensorHandle
    """What the network is fed, (1, C, H, W)."""
    t: float
    scalars: tuple[float, ...] = msgspec.field(name="numbers")
    text: TextHandles


class CfgBranchReply(msgspec.Struct, frozen=True, kw_only=True, tag="half_reply"):
    out: TensorHandle | None
    """The network's answer (1, C, H, W); None: there is other work."""


class ReleaseTensor(msgspec.Struct, frozen=True, kw_only=True, tag="release_tensor"):
    """To the owner of an arena: nobody needs this tensor any more."""

    tensor: TensorHandle


class ReleaseJob(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """To the owner of an arena: no slot is needed for this job any more."""

    job_id: str


def named_handles(names: Collection[str], handles: TextHandles) -> dict[str, TensorHandle]:
    """`handles` by the `names` of a family's conditioning. Raises `InvalidRequest` if they are not
    of such a family."""
    if len(names) != len(handles):
        allowed = f"{len(names)} of them: {', '.join(names)}"
        raise InvalidRequest("texts", f"{len(handles)} handles", allowed)
    return dict(zip(names, handles, strict=True))
