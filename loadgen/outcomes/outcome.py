"""What a run is made of: requests planned, requests ended, and samples of the server between.

Pure data. Everything that sends produces these; everything that reports consumes them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from loadgen.outcomes.lacks import REASONS
from shared.service_classes import DEFAULT_CLASS, ServiceClass

Positive = Annotated[int, Meta(ge=1)]

Status = Literal["done", "failed", "rejected", "lost", "timeout"]
"""`failed`: the server, or the way to it, failed. `rejected`: the server refused it. `timeout`: no
answer in the time allowed. `lost`: never sent, or cut off when the run ended; nobody knows."""


class RequestTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One image request. None leaves a choice to the server.

    `deadline` is in seconds from the send; `mask_ratio` is the masked part of the image, in
    (0, 1]; `controls` are NAME=FILE or NAME=FILE:SCALE. A field that the target does not know is
    not sent, and the run says so.
    """

    model: str | None = None
    prompt: str = "a large red circle left and a small blue square right on white"
    negative_prompt: str = ""
    width: Positive | None = None
    height: Positive | None = None
    steps: Positive | None = None
    guidance: Annotated[float, Meta(ge=0)] | None = None
    sampler: str | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    n: Positive = 1
    service_class: ServiceClass = DEFAULT_CLASS
    deadline: Annotated[float, Meta(gt=0)] | None = None
    mask_ratio: Annotated[float, Meta(gt=0, le=1)] | None = None
    controls: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises `ValueError` for half a size: no server could be sent it."""
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height, or neither of them")


@dataclass(frozen=True, slots=True)
class Shot:
    """One planned request.

    `at` is the intended send time in seconds from the run's start; in a closed loop, where
    nothing is intended beforehand, it is when the request was sent. `template` names the entry of
    the mix that `request` was made from.
    """

    number: int
    at: float
    tenant: str
    template: str
    request: RequestTemplate


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one shot ended.

    `sent_at` and `ended_at` are seconds from the run's start. `failure` is the error's code, the
    HTTP status or the exception's name; None when done.
    """

    shot: Shot
    sent_at: float
    ended_at: float
    status: Status
    failure: str | None
    images: int
    bytes: int

    @property
    def latency(self) -> float:
        """Seconds since the intended send, so that a generator or server that lags is seen."""
        return self.ended_at - self.shot.at

    @property
    def own(self) -> bool:
        """Whether the generator could not send it: then it says nothing of the server."""
        return self.status == "lost" and self.failure in REASONS


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment. None where it does not say.

    `in_flight` counts what was sent and has not ended, seen from here; `rows_per_step` is the
    mean over the interval since the last sample, None if no step was made.
    """

    at: float
    queue_depth: int | None
    in_flight: int
    rows_per_step: float | None
