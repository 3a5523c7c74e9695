"""What decisions about rows are made from: no tensors, no clock."""

from dataclasses import dataclass
from typing import Final, Protocol

from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork
from shared.service_classes import CLASSES, ServiceClass

ALONE_RANK: Final = -1
RANK: Final = {name: rank for rank, name in enumerate(CLASSES)}


@dataclass(frozen=True, slots=True)
class RowView:
    """What the decision needs to know of a row."""

    arrival: int
    """Unique, and larger the later the row came."""
    shape: ShapeKey
    forwards: int
    """Images per step: 2 if guided, else 1."""
    service_class: ServiceClass
    passed_over: int = 0
    """Steps since it last ran, or came."""
    alone: bool = False
    """Whether its next step must be its own: it may end the process."""
    steps_left: int = 1
    seconds_left: float | None = None
    """Until its denoising should be over; None: it has no deadline."""
    grace: float = 0.0
    """Seconds from then until its deadline, for what follows denoising."""

    blocked: bool = False
    """It cannot take its next step yet: what it needs for it is not here."""
    asks: bool = False
    """Within a step it waits for what others compute."""
    waited: float = 0.0
    """Seconds since it came."""
    part: StepWork | None = None
    """What its steps compute, if that is less than all of it."""
    job_id: str = ""
    lenient: bool = False
    """It should be finished in time, and goes on if it is not."""
    yielded: int = 0
    """Steps that were taken without it, by rows that have to be finished by some time."""

    @property
    def work(self) -> StepWork:
        """Of its next step."""
        return self.part or StepWork.full(self.forwards, self.shape.tokens)

    def rank(self, patience: int) -> int:
        if self.alone:
            return ALONE_RANK
        return max(0, RANK[self.service_class] - self.passed_over // patience)


class Predicts(Protocol):
    def predict(self, work: StepWork) -> float:
        """Seconds of a step of so much work."""
        ...


class StepCost(Predicts, Protocol):
    @property
    def known(self) -> bool:
        """Whether it rests on enough measurements to turn anybody away by it."""
        ...

    def least(self, work: StepWork) -> float:
        """The same, when steps are quick; 0 while that cannot be told."""
        ...

    @property
    def slowness(self) -> float:
        """Times as long as predicted that a step takes when steps are slow."""
        ...

    @property
    def doubt(self) -> float:
        """Relative error of what is predicted now."""
        ...

    def untried(self, work: StepWork) -> bool:
        """Whether measuring a step of so much work would tell more than is known."""
        ...
