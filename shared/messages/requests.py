"""What planners receive: requests of users.

They refuse unknown fields; messages between our own processes ignore them, so that a rolling update
works. Times are Unix seconds, durations seconds.
"""

from typing import Final, Literal

import msgspec

from shared.service_classes import DEFAULT_CLASS, ServiceClass

ImageFormat = Literal["png", "jpeg", "webp"]
MaskSource = Literal["none", "file", "alpha"]
"""Where an edit's mask is: nowhere, in a file of its own, or in its image's alpha channel."""

JOB_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"


class LoraChoice(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A low-rank adapter, by exactly one of `name`, `path`, `hub` and `url`, and how strongly it
    counts."""

    name: str | None = None
    """In the server's LoRA directories."""
    path: str | None = None
    """A file below one of the server's LoRA directories."""
    hub: str | None = None
    """On the model hub: owner/repo[@revision][:file.safetensors]."""
    url: str | None = None
    sha256: str | None = None
    """In hexadecimal digits; of the file, if it has to be that one."""
    scale: float = 1.0
    partial: bool = False
    """Whether it may be used though some of its tensors have no use: the result names them."""


class ControlChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ControlNet by its name, its control image, and how it counts."""

    model: str
    image: bytes
    """A file: png, jpeg or webp; brought to the size of the image."""
    scale: float = 1.0
    start: float = 0.0
    """Share of the denoising steps after which it begins,"""
    end: float = 1.0
    """and after which it ends."""
    guess_mode: bool = False
    """Only the conditional half is controlled, the outer layers less than the inner ones: for
    prompts that say nothing of what the image shows."""


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
    (see `shared.models.contracts.family.Family`) the number that its network takes."""
    sampler: str | None = None
    seed: int | None = None
    """Image i is drawn from seed + i. None: derived from the job id."""
    service_class: ServiceClass = DEFAULT_CLASS
    deadline: float | None = None
    """Unix seconds after which the result is of no use."""
    loras: tuple[LoraChoice, ...] = ()
    lora_late_steps: int = 0
    """Denoising steps that may be taken before the LoRAs are loaded; 0 is exact."""
    controls: tuple[ControlChoice, ...] = ()
    control_lag: int = 0
    """1: each step may use the residuals that the ControlNets gave for the step before; 0 is
    exact."""
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
    """Images of the running latents to send while denoising, evenly spaced."""
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
