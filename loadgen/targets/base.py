"""What the runner needs of a server, and which fields of a request each kind of server takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from loadgen.outcomes.lacks import lack_of
from loadgen.outcomes.occupancy import Source
from loadgen.outcomes.outcome import RequestTemplate, Shot, Status

OPENAI_FIELDS: Final = frozenset({"model", "prompt", "n", "width", "height"})
"""What every server with OpenAI's Images routes takes."""
HTTP_FIELDS: Final = OPENAI_FIELDS | {
    "negative_prompt",
    "steps",
    "guidance",
    "sampler",
    "seed",
    "loras",
    "controls",
    "service_class",
    "deadline",
}
"""What Darkroom's gateway takes: OpenAI's fields and its own."""
NATS_FIELDS: Final = HTTP_FIELDS
"""What `shared.messages.GenerationRequest` holds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ended; the fields are those of `Outcome`."""

    status: Status
    failure: str | None = None
    images: int = 0
    bytes: int = 0


def unsent(error: Exception) -> Answer | None:
    """How a request ended that this machine lacked something to send; None: that is not why."""
    lack = lack_of(error)
    return None if lack is None else Answer("lost", lack)


class Target(Protocol):
    """A server. Entering its context connects; leaving it ends what still runs."""

    @property
    def name(self) -> str:
        """For people: the kind of server and its address."""
        ...

    @property
    def takes(self) -> frozenset[str]:
        """Fields of `RequestTemplate` that are sent."""
        ...

    @property
    def source(self) -> Source | None:
        """Tells how full the server is; None where it cannot be asked."""
        ...

    async def send(self, shot: Shot) -> Answer:
        """Send the request and wait for its end. Whatever goes wrong is an `Answer`; a
        cancelled wait tells the server that nobody wants the image any more."""
        ...


def set_fields(request: RequestTemplate) -> frozenset[str]:
    """The fields that do not stand at their default, the prompt apart."""
    defaults = RequestTemplate()
    return frozenset(
        name
        for name in RequestTemplate.__struct_fields__
        if name != "prompt" and getattr(request, name) != getattr(defaults, name)
    )


def not_sent(target: Target, shots: Iterable[Shot]) -> tuple[str, ...]:
    """Fields that some of `shots` set and `target` does not take, in alphabetical order. A seed
    is drawn for every request, so a server that takes none is not worth naming."""
    wanted = frozenset().union(*(set_fields(shot.request) for shot in shots))
    return tuple(sorted(wanted - target.takes - {"seed"}))
