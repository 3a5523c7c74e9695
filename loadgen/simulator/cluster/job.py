"""One request in a cluster, with what it wants of it."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from loadgen.outcomes.outcome import Shot
from loadgen.simulator.profiles.profile import LATENT_SIDE, Profile, Workflow
from shared.errors import InvalidRequest
from shared.messages import ServiceClass
from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork

CHANNELS: Final = 4
NO_GUIDANCE: Final = 1.0
"""At or below it a step is one forward."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks of its workflow. `units`: how many forwards at the profile's size a step
    of one picture counts as; `forwards`: how many it is."""

    name: str
    workflow: Workflow
    steps: int
    forwards: int
    units: float
    shape: ShapeKey
    images: int
    service_class: ServiceClass

    @property
    def work(self) -> StepWork:
        """Of a step of one picture, as the step scheduler counts it."""
        return StepWork.full(self.forwards, self.shape.tokens)

    @property
    def batches_with(self) -> tuple[object, ...]:
        """Requests with the same one can be drawn together from first step to last."""
        return self.name, self.steps, self.forwards, self.shape


def wanted(shot: Shot, profile: Profile) -> Wanted:
    """Raises `InvalidRequest` for a model that is no workflow of `profile`."""
    request = shot.request
    name = request.model if request.model is not None else next(iter(profile.workflows))
    workflow = profile.workflows.get(name)
    if workflow is None:
        raise InvalidRequest("model", name, "one of " + ", ".join(profile.workflows))
    width, height = request.width or workflow.width, request.height or workflow.height
    guided = workflow.guided and (request.guidance is None or request.guidance > NO_GUIDANCE)
    forwards = 2 if guided else 1
    return Wanted(
        name=name,
        workflow=workflow,
        steps=request.steps or workflow.steps,
        forwards=forwards,
        units=forwards * width * height / (workflow.width * workflow.height),
        shape=ShapeKey(CHANNELS, height // LATENT_SIDE, width // LATENT_SIDE, (0,)),
        images=request.n,
        service_class=request.service_class,
    )


class Holder(Protocol):
    def withdraw(self, job: "Job") -> None:
        """Nobody waits for it any more."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """`deadline`: the moment after which its pictures are of no use; None: there is none."""

    shot: Shot
    wanted: Wanted
    came: float
    deadline: float | None
    missing: int = field(init=False)
    """Pictures that are not finished."""
    ended: bool = False
    spent: float = 0.0
    """Seconds of computing, its share where it had company."""
    holders: list[Holder] = field(default_factory=list)
    """Processes that have rows of it, or queues that it waits in."""
    reported: bool = False
    """A row of it was reported to planners."""
    promised: float | None = None
    """When planners promised it to be finished."""

    @property
    def wanted_by(self) -> float | None:
        """When it should be finished, if at any time; one without a deadline goes on if it is
        not."""
        return self.promised if self.deadline is None else self.deadline

    def __post_init__(self) -> None:
        self.missing = self.wanted.images

    def __repr__(self) -> str:
        return f"<Job {self.shot.number} {self.wanted.name}, {self.missing} pictures missing>"
