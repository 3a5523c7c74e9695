"""Who joins, who leaves, who runs the next step: a pure decision, with no clock and no torch.

Rows are ordered by urgency: service class, then arrival. A row that `patience` steps in a row have
passed over counts as one class higher, another `patience` later as two: so no stream of urgent rows
can hold up the others for ever, and among equals the first come is finished first.

Rows of one shape form a group. The groups that hold the most urgent rows share the time equally, by
deficit round robin (Shreedhar & Varghese 1996): a group whose turn it is earns the price of the
dearest waiting step, and keeps its turn for as long as it can pay for another.

A row that is `alone` shares its steps with nobody, and goes before everybody. While the process is
`held` for such a row, maybe one of another model, nobody else takes a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.denoiser.shape import ShapeKey
from shared.messages import ServiceClass

FREE: Final = 1e-9
"""Seconds: the least a step is taken to cost, so that no group keeps its turn for nothing."""
ALONE_RANK: Final = -1
RANK: Final[dict[ServiceClass, int]] = {"interactive": 0, "standard": 1, "batch": 2}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one denoiser."""

    max_rows: int = 16
    """Rows in one step."""
    max_admitted: int = 32
    """Rows whose tensors are kept on the device, over all shapes."""
    max_waiting: int = 64
    """Rows that wait to be admitted."""
    max_step_seconds: float = 2.0
    """A step is not predicted to take longer, unless it has one row only."""
    patience: int = 50
    """Steps that may pass a row over before it counts as a class more urgent."""

    def __post_init__(self) -> None:
        if min(self.max_rows, self.max_admitted, self.max_waiting, self.patience) < 1:
            raise ValueError(f"{self}: every limit must be at least 1")


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

    def rank(self, patience: int) -> int:
        if self.alone:
            return ALONE_RANK
        return max(0, RANK[self.service_class] - self.passed_over // patience)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is. `deficits` are the seconds each group of rows has not yet used."""

    shape: ShapeKey | None = None
    deficits: tuple[tuple[ShapeKey, float], ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Arrivals of the rows that enter from the waiting room, go back to it, and run now.

    Nobody runs only if there is nobody, or nobody that may. `turn` is for the next call."""

    joins: tuple[int, ...]
    leaves: tuple[int, ...]
    runs: tuple[int, ...]
    turn: Turn


class StepCost(Protocol):
    def predict(self, forwards: int, tokens: int) -> float: ...


def plan_step(
    rows: Sequence[RowView],
    waiting: Sequence[RowView],
    limits: Limits,
    cost: StepCost,
    turn: Turn,
    held: bool = False,
) -> StepPlan:
    """Decide about the admitted `rows` and those `waiting`; `turn` is the last plan's. `held`: only
    rows that are `alone` may enter and run."""
    if held:
        waiting = [row for row in waiting if row.alone]
        if not waiting and not any(row.alone for row in rows):
            return StepPlan((), (), (), turn)
    admitted = _admit(rows, waiting, limits)
    groups = _steps(admitted, limits, cost)
    if not groups:
        return StepPlan((), (), (), Turn())
    shape, next_turn = _take_turn(groups, limits, cost, turn)
    present = {row.arrival for row in rows}
    kept = {row.arrival for row in admitted}
    return StepPlan(
        joins=tuple(row.arrival for row in admitted if row.arrival not in present),
        leaves=tuple(row.arrival for row in rows if row.arrival not in kept),
        runs=tuple(row.arrival for row in groups[shape]),
        turn=next_turn,
    )


def _admit(rows: Sequence[RowView], waiting: Sequence[RowView], limits: Limits) -> list[RowView]:
    """The most urgent `max_admitted`. An admitted row gives way only to a higher class, since every
    change of places costs a transfer."""
    entering = {row.arrival for row in waiting}

    def urgency(row: RowView) -> tuple[int, bool, int]:
        return row.rank(limits.patience), row.arrival in entering, row.arrival

    return sorted([*rows, *waiting], key=urgency)[: limits.max_admitted]


def _steps(
    admitted: Sequence[RowView], limits: Limits, cost: StepCost
) -> dict[ShapeKey, list[RowView]]:
    """The step each group would take, for the groups that hold a row of the highest rank."""
    top = min((row.rank(limits.patience) for row in admitted), default=0)
    urgent = {row.shape: None for row in admitted if row.rank(limits.patience) == top}
    return {
        shape: _fill([row for row in admitted if row.shape == shape], limits, cost)
        for shape in urgent
    }


def _fill(group: Sequence[RowView], limits: Limits, cost: StepCost) -> list[RowView]:
    """The most urgent rows that fit into one step, at least one; only one if that is `alone`."""
    ordered = sorted(group, key=lambda row: (row.rank(limits.patience), row.arrival))
    if ordered[0].alone:
        return ordered[:1]
    chosen, forwards = ordered[:1], ordered[0].forwards
    for row in ordered[1:]:
        seconds = cost.predict(forwards + row.forwards, row.shape.tokens)
        if len(chosen) < limits.max_rows and seconds <= limits.max_step_seconds:
            chosen.append(row)
            forwards += row.forwards
    return chosen


def _take_turn(
    groups: dict[ShapeKey, list[RowView]], limits: Limits, cost: StepCost, turn: Turn
) -> tuple[ShapeKey, Turn]:
    """The group that steps now, and the turn afterwards."""
    price = {
        shape: max(cost.predict(sum(row.forwards for row in step), shape.tokens), FREE)
        for shape, step in groups.items()
    }
    known = dict(turn.deficits)
    shapes = [shape for shape in known if shape in groups]
    shapes += [shape for shape in groups if shape not in known]
    deficits = {shape: known.get(shape, 0.0) for shape in shapes}
    current = turn.shape
    if current is None or current not in groups or deficits[current] < price[current]:
        current = _following(shapes, turn, groups)
        deficits[current] += max(price.values())
    deficits[current] -= price[current]
    return current, Turn(current, tuple(deficits.items()))


def _following(
    shapes: Sequence[ShapeKey], turn: Turn, groups: dict[ShapeKey, list[RowView]]
) -> ShapeKey:
    """The group after the one whose turn it was, in the order in which groups came up."""
    order = [shape for shape, _ in turn.deficits]
    after = order[order.index(turn.shape) + 1 :] if turn.shape in order else []
    return next((shape for shape in after if shape in groups), shapes[0])
