"""Who joins, who leaves, who runs the next step: a pure decision, with no clock and no torch.

Rows are ordered by urgency: service class, then the least work, then arrival; and as many share a
step as gain by it (`batching.py`). A row that `patience` steps in a row have passed over counts as
one class higher, another `patience` later as two: so no stream of urgent rows can hold up the
others for ever, and among equals the first come is finished first.

Rows of one shape form a group. The groups that hold the most urgent rows share the time equally, by
deficit round robin (Shreedhar & Varghese 1996): a group whose turn it is earns the price of the
dearest waiting step, and keeps its turn for as long as it can pay for another.

What was decided against is tried again: in `TRIALS` of `PERIOD` steps for which there was a choice,
one row more shares the step than is believed to gain, or one row has it to itself where all share
it. So a belief that is wrong, or no longer right, is found out at a price of 2% of the steps.

Rows with deadlines are kept from being late by those that come after them, and where some would be
late together, some step aside for the others (`deadlines.py`).

A row that is `alone` shares its steps with nobody, and goes before everybody. While the process is
`held` for such a row, maybe one of another model, nobody else takes a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from shared.policy.batch_key import ShapeKey
from shared.policy.batching import Shared, always_batch, in_order, worth_batching
from shared.policy.deadlines import hurried, infeasible, keep_in_time, urgency, would_delay, yields
from shared.policy.row_view import RANK, RowView, StepCost
from shared.policy.step_work import total

FREE: Final = 1e-9
"""Seconds: the least a step is taken to cost, so that no group keeps its turn for nothing."""
TRIALS: Final = 3
PERIOD: Final = 150


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
    deadline_grace: float = 0.0
    """Seconds before a job's deadline at which its denoising should be over."""

    def __post_init__(self) -> None:
        if min(self.max_rows, self.max_admitted, self.max_waiting, self.patience) < 1:
            raise ValueError(f"{self}: every limit must be at least 1")


@dataclass(frozen=True, slots=True)
class RoundRobinState:
    """Whose turn it is. `deficits` are the seconds each group of rows has not yet used."""

    shape: ShapeKey | None = None
    deficits: tuple[tuple[ShapeKey, float], ...] = ()
    choices: int = 0
    """Steps that several rows might have shared."""

    @property
    def trial(self) -> bool:
        """Whether the next step with a choice tries the other one."""
        return self.choices % PERIOD >= PERIOD - TRIALS


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Arrivals of the rows that enter from the waiting room, go back to it, and run now; and of
    those that are given up (`infeasible`).

    Nobody runs only if there is nobody else, or nobody that may. `round_robin` is for the next
    call."""

    joins: tuple[int, ...]
    leaves: tuple[int, ...]
    runs: tuple[int, ...]
    round_robin: RoundRobinState
    infeasible: tuple[int, ...] = ()


def schedule_step(
    rows: Sequence[RowView],
    waiting: Sequence[RowView],
    limits: Limits,
    cost: StepCost,
    round_robin: RoundRobinState,
    held: bool = False,
) -> StepPlan:
    """Decide about the admitted `rows` and those `waiting`; `round_robin` is the last plan's.
    `held`: only rows that are `alone` may enter and run."""
    if held:
        waiting = [row for row in waiting if row.alone]
        if not waiting and not any(row.alone for row in rows):
            return StepPlan((), (), (), round_robin)
    rows, waiting = hurried(rows, cost), hurried(waiting, cost)
    given_up = () if held else infeasible([*rows, *waiting], cost)
    rows = [row for row in rows if row.arrival not in given_up]
    waiting = [row for row in waiting if row.arrival not in given_up]
    staying, aside = keep_in_time(rows, cost, limits.patience)
    admissible = _admissible(staying, [*waiting, *aside], limits, cost)
    if any(row.seconds_left is not None for row in admissible):  # others may have to make room
        together, _ = keep_in_time([*staying, *admissible], cost, limits.patience)
        kept = {row.arrival for row in together}
        staying = [row for row in staying if row.arrival in kept]
        admissible = [row for row in admissible if row.arrival in kept]
    admitted = _admit(staying, admissible, limits, cost)
    groups = _groups(admitted, limits)
    if not groups:
        return StepPlan((), (), (), RoundRobinState(choices=round_robin.choices), given_up)
    trial = round_robin.trial
    steps = {shape: _fill(group, limits, cost, trial) for shape, group in groups.items()}
    shape, next_round = _take_turn(steps, limits, cost, round_robin)
    present = {row.arrival for row in rows}
    stay = {row.arrival for row in admitted}
    return StepPlan(
        joins=tuple(row.arrival for row in admitted if row.arrival not in present),
        leaves=tuple(row.arrival for row in rows if row.arrival not in stay),
        runs=tuple(row.arrival for row in steps[shape]),
        round_robin=replace(next_round, choices=round_robin.choices + (len(groups[shape]) > 1)),
        infeasible=given_up,
    )


def _admissible(
    rows: Sequence[RowView], waiting: Sequence[RowView], limits: Limits, cost: StepCost
) -> list[RowView]:
    """Those of `waiting` that make nobody late, the most urgent first: by class, then as `urgency`
    has it, then by arrival. Who has waited for long has to be let in, even so. Rows that yield are
    no hindrance to one that is promised a time, nor those that may be late to one that may not."""
    if not cost.known:
        return list(waiting)
    chosen: list[RowView] = []
    firm = [row for row in rows if not yields(row, limits.patience)]
    strict = [row for row in firm if not row.lenient]

    def place(row: RowView) -> tuple[int, tuple[bool, float], int]:
        return row.rank(limits.patience), urgency(row, cost), row.arrival

    for row in sorted(waiting, key=place):
        patient = row.alone or row.passed_over >= len(RANK) * limits.patience
        beside = rows if row.seconds_left is None else firm if row.lenient else strict
        if patient or not would_delay([*beside, *chosen], row, cost):
            chosen.append(row)
    return chosen


def _admit(
    rows: Sequence[RowView], waiting: Sequence[RowView], limits: Limits, cost: StepCost
) -> list[RowView]:
    """The most urgent `max_admitted` of those that can take a step, then the others. An admitted
    row gives way only to a higher class, since every change of places costs a transfer."""
    entering = {row.arrival for row in waiting}

    def place(row: RowView) -> tuple[bool, int, bool]:
        return row.blocked, row.rank(limits.patience), row.arrival in entering

    ordered = in_order([*rows, *waiting], limits.patience, cost)
    return sorted(ordered, key=place)[: limits.max_admitted]


def _groups(admitted: Sequence[RowView], limits: Limits) -> dict[ShapeKey, list[RowView]]:
    """The rows that may take a step, by shape: the shapes that hold a row of the highest rank."""
    admitted = [row for row in admitted if not row.blocked]
    top = min((row.rank(limits.patience) for row in admitted), default=0)
    urgent = {row.shape: None for row in admitted if row.rank(limits.patience) == top}
    return {shape: [row for row in admitted if row.shape == shape] for shape in urgent}


def _fill(group: Sequence[RowView], limits: Limits, cost: StepCost, trial: bool) -> list[RowView]:
    """The most urgent rows that fit into one step, and had better share it; at least one, and only
    one if that is `alone`. In order of arrival: a batch stays the same for as long as its rows."""
    ordered = in_order(group, limits.patience, cost)
    if ordered[0].alone:
        return ordered[:1]
    full = _fitting(ordered, limits, cost)
    if always_batch(ordered, cost):
        chosen = full
    else:
        chosen = _worth_sharing(full, len(ordered), cost)
        if trial:
            chosen = full[: len(chosen) + 1] if len(chosen) < len(full) else full[:1]
    return sorted(chosen, key=lambda row: row.arrival)


def _fitting(ordered: Sequence[RowView], limits: Limits, cost: StepCost) -> list[RowView]:
    """As many as one step may take, in their order."""
    chosen, work = [ordered[0]], ordered[0].work
    for row in ordered[1:]:
        if len(chosen) == limits.max_rows:
            break
        if cost.predict(work + row.work) <= limits.max_step_seconds:
            chosen.append(row)
            work += row.work
    return chosen


def _worth_sharing(full: Sequence[RowView], in_hand: int, cost: StepCost) -> list[RowView]:
    """Those of `full` that gain by sharing a step, or one more than was ever measured."""
    chosen, taking, most = [full[0]], Shared.of(full[:1], cost), Shared.of(full, cost)
    doubt = cost.doubt
    for row in full[1:]:
        joined = taking.joined(row, cost)
        untried = cost.untried(joined.work)
        if untried or worth_batching(taking, joined, most, in_hand, doubt):
            chosen.append(row)
            taking = joined
        if untried:
            break
    return chosen


def _take_turn(
    groups: dict[ShapeKey, list[RowView]],
    limits: Limits,
    cost: StepCost,
    round_robin: RoundRobinState,
) -> tuple[ShapeKey, RoundRobinState]:
    """The group that steps now, and the turn afterwards."""
    price = {
        shape: max(cost.predict(total(row.work for row in step)), FREE)
        for shape, step in groups.items()
    }
    known = dict(round_robin.deficits)
    shapes = [shape for shape in known if shape in groups]
    shapes += [shape for shape in groups if shape not in known]
    deficits = {shape: known.get(shape, 0.0) for shape in shapes}
    current = round_robin.shape
    if current is None or current not in groups or deficits[current] < price[current]:
        current = _following(shapes, round_robin, groups)
        deficits[current] += max(price.values())
    deficits[current] -= price[current]
    return current, RoundRobinState(current, tuple(deficits.items()))


def _following(
    shapes: Sequence[ShapeKey], round_robin: RoundRobinState, groups: dict[ShapeKey, list[RowView]]
) -> ShapeKey:
    """The group after the one whose turn it was, in the order in which groups came up."""
    order = [shape for shape, _ in round_robin.deficits]
    after = order[order.index(round_robin.shape) + 1 :] if round_robin.shape in order else []
    return next((shape for shape in after if shape in groups), shapes[0])
