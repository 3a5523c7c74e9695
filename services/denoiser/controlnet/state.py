"""A row's ControlNets, and what they have been asked. No bus, no clock."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from services.denoiser.rows.extension import RowExtension
from shared.messages.handle import TensorHandle
from shared.models.contracts.network import Residuals


@dataclass(frozen=True, slots=True)
class ControlUse:
    """One ControlNet of a row; see `shared.messages.ControlChoice`."""

    model: str
    hint: TensorHandle
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    guess_mode: bool = False

    def active(self, step: int, steps: int) -> bool:
        """Whether step number `step` is controlled, as diffusers' ControlNet pipelines have it."""
        return self.scale != 0.0 and step / steps >= self.start and (step + 1) / steps <= self.end


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a question and its answer are: `messages` on the bus, `tensors` in arenas."""

    messages: int
    tensors: int


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a ControlNet said of the rows it was asked about, by their place in the request."""

    residuals: Residuals
    """Each (F, C, H, W), for the F images of those rows that did not fail."""
    images: Mapping[int, tuple[int, ...]]
    """Which of the F are a row's; the unconditional one first, if it was asked for."""
    failures: Mapping[int, Exception]
    seconds: float
    """From the question until the answer was here,"""
    hop: float
    """and without what the ControlNet says it took."""
    traffic: Traffic
    widened: frozenset[int] = frozenset()
    """Rows whose residuals took float32, for its own dtype gave none that are finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """A row's part of an answer that may not be here yet."""

    answer: Future[Answer]
    place: int


@dataclass(slots=True, eq=False)
class ControlState(RowExtension):
    """The controls of one row. What was asked for a step stays good for it, whoever shares it."""

    controls: tuple[ControlUse, ...]
    lag: bool = False
    """A step may use the residuals that were computed for the step before."""
    late: bool = False
    """It kept others waiting: its answers are waited for outside the batch."""
    lagged: set[str] = field(default_factory=set)
    """ControlNets whose former answers were used."""
    widened: set[str] = field(default_factory=set)
    """Those that computed in float32 for it; see `Answer`."""
    _step: int = -1
    _asked: Mapping[int, Share] = field(default_factory=dict)
    """For step `_step`, by the control's number,"""
    _before: Mapping[int, Share] = field(default_factory=dict)
    """and for the one before that, if they may lag."""

    def active(self, step: int, steps: int) -> list[int]:
        """Numbers of the controls that are active in this step."""
        return [k for k, control in enumerate(self.controls) if control.active(step, steps)]

    def was_asked(self, step: int) -> bool:
        return self._step == step

    def ask(self, step: int, shares: Mapping[int, Share]) -> None:
        """`shares` were asked for `step`."""
        self._before = self._asked if self.lag and self._step == step - 1 else {}
        self._step, self._asked = step, shares

    def needs(self) -> dict[int, Share]:
        """The residuals that the step that was asked for uses, by the control's number."""
        return {k: self._before.get(k, now) if self.lag else now for k, now in self._asked.items()}

    def used(self) -> None:
        """A step used the residuals that it needs."""
        for k, share in self.needs().items():
            if share is not self._asked[k]:
                self.lagged.add(self.controls[k].model)
            if share.answer.done() and share.place in share.answer.result().widened:
                self.widened.add(self.controls[k].model)

    def blocked(self, step: int) -> bool:
        return self.late and not all(share.answer.done() for share in self.needs().values())

    @property
    def asks(self) -> bool:
        return True

    @property
    def local(self) -> bool:
        return True

    def approximations(self, index: int, steps: int) -> set[str]:
        return {f"control_lag {name}: image {index}" for name in tuple(self.lagged)}

    def warnings(self) -> set[str]:
        return {
            f"controls: {name} computed in float32, for its own dtype gave numbers that are not "
            "finite"
            for name in tuple(self.widened)
        }
