"""The batching decision, for arbitrary rows, and played over many steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.messages import ServiceClass
from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import FEW, MANY, Cell, CostModel
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import (
    PERIOD,
    TRIALS,
    Limits,
    RoundRobinState,
    StepPlan,
    schedule_step,
)
from shared.policy.step_work import StepWork, total

SHAPES = [ShapeKey(4, 8, 8, (77,)), ShapeKey(4, 16, 16, (77,)), ShapeKey(4, 16, 16, (154,))]
COST = CostModel(coefficients=(0.01, 1e-4, 0.0, 0.0, 0.0))
MEASURED = {str(size): Cell((1.0,), FEW, (0.0, 0.0, 0.0, 0.0)) for size in range(MANY + 1)}
"""So many that nothing is worth a try."""
SETTLED = [
    CostModel(coefficients=coefficients, cells=MEASURED, doubted=0.0)
    for coefficients in (
        (0.01, 1e-4, 0.0, 0.0, 0.0),
        (0.0, 1e-4, 0.0, 0.0, 0.0),
        (0.1, 1e-6, 0.0, 0.0, 0.0),
    )
]
"""Company saves something, nothing, or nearly all."""
SAME = settings(
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
"""The same examples every time, however slow the machine."""


@st.composite
def views(draw: st.DrawFn, arrivals: Sequence[int]) -> list[RowView]:
    return [
        RowView(
            arrival,
            draw(st.sampled_from(SHAPES)),
            draw(st.integers(1, 2)),
            draw(st.sampled_from(get_args(ServiceClass))),
            draw(st.integers(0, 40)),
            alone=draw(st.sampled_from([False, False, False, True])),
        )
        for arrival in arrivals
    ]


limits = st.builds(
    Limits,
    max_rows=st.integers(1, 6),
    max_admitted=st.integers(1, 10),
    max_step_seconds=st.floats(0.005, 0.2),
    patience=st.integers(1, 12),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[RowView], list[RowView], Limits, RoundRobinState]:
    bounds = draw(limits)
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=14))
    admitted = draw(st.integers(0, min(len(ids), bounds.max_admitted)))
    known = draw(st.lists(st.sampled_from(SHAPES), unique=True))
    round_robin = RoundRobinState(
        draw(st.sampled_from([None, *known])),
        tuple((shape, draw(st.floats(0.0, 0.1))) for shape in known),
    )
    return draw(views(ids[:admitted])), draw(views(ids[admitted:])), bounds, round_robin


@SAME
@given(situations())
def test_a_plan_is_within_its_limits(
    situation: tuple[list[RowView], list[RowView], Limits, RoundRobinState],
) -> None:
    rows, waiting, bounds, round_robin = situation
    plan = schedule_step(rows, waiting, bounds, COST, round_robin)
    by_arrival = {row.arrival: row for row in (*rows, *waiting)}
    held, entering = {r.arrival for r in rows}, {r.arrival for r in waiting}
    admitted = (held | set(plan.joins)) - set(plan.leaves)

    assert set(plan.joins) <= entering
    assert set(plan.leaves) <= held
    assert set(plan.runs) <= admitted
    assert len(admitted) <= bounds.max_admitted
    for arrivals in (plan.joins, plan.leaves, plan.runs):
        assert len(set(arrivals)) == len(arrivals)

    running = [by_arrival[arrival] for arrival in plan.runs]
    assert bool(running) == bool(by_arrival)
    assert len(running) <= bounds.max_rows
    assert len({row.shape for row in running}) <= 1
    if len(running) > 1:
        seconds = COST.predict(total(r.work for r in running))
        assert seconds <= bounds.max_step_seconds


@SAME
@given(situations())
def test_a_row_of_the_highest_rank_runs(
    situation: tuple[list[RowView], list[RowView], Limits, RoundRobinState],
) -> None:
    rows, waiting, bounds, round_robin = situation
    plan = schedule_step(rows, waiting, bounds, COST, round_robin)
    ranks = {row.arrival: row.rank(bounds.patience) for row in (*rows, *waiting)}
    if ranks:
        assert min(ranks[arrival] for arrival in plan.runs) == min(ranks.values())


@SAME
@given(situations(), st.booleans())
def test_a_row_that_is_alone_shares_no_step_and_goes_first(
    situation: tuple[list[RowView], list[RowView], Limits, RoundRobinState], held: bool
) -> None:
    rows, waiting, bounds, round_robin = situation
    plan = schedule_step(rows, waiting, bounds, COST, round_robin, held)
    lone = {row.arrival for row in (*rows, *waiting) if row.alone}
    if lone:
        assert len(plan.runs) == 1
        assert set(plan.runs) <= lone
    elif held:
        assert plan == StepPlan((), (), (), round_robin)


@SAME
@given(situations())
def test_while_held_nobody_enters_but_rows_that_are_alone(
    situation: tuple[list[RowView], list[RowView], Limits, RoundRobinState],
) -> None:
    rows, waiting, bounds, round_robin = situation
    plan = schedule_step(rows, waiting, bounds, COST, round_robin, held=True)
    assert set(plan.joins) <= {row.arrival for row in waiting if row.alone}
    assert len(plan.leaves) <= len(plan.joins)


@dataclass
class Denoiser:
    """Plays plans out: `left` steps remain per row; rows that end make room for `endless` ones."""

    limits: Limits
    rows: list[RowView]
    waiting: list[RowView]
    left: dict[int, int]
    round_robin: RoundRobinState = field(default_factory=RoundRobinState)
    cost: CostModel = COST
    now: float = 0.0

    def step(self) -> StepPlan:
        plan = schedule_step(self.rows, self.waiting, self.limits, self.cost, self.round_robin)
        self.round_robin = plan.round_robin
        by_arrival = {row.arrival: row for row in chain(self.rows, self.waiting)}
        seconds = self.cost.predict(total(by_arrival[arrival].work for arrival in plan.runs))
        self.now += seconds
        held = {row.arrival for row in self.rows}
        admitted = (held | set(plan.joins)) - set(plan.leaves)
        for arrival in plan.runs:
            self.left[arrival] -= 1
        aged = [
            replace(
                row,
                passed_over=0 if row.arrival in plan.runs else row.passed_over + 1,
                waited=row.waited + seconds,
                steps_left=self.left[row.arrival],
            )
            for row in chain(self.rows, self.waiting)
            if self.left[row.arrival]
        ]
        self.rows = [row for row in aged if row.arrival in admitted]
        self.waiting = [row for row in aged if row.arrival not in admitted]
        return plan

    def arrive(self, row: RowView, steps: int) -> None:
        self.waiting.append(replace(row, steps_left=steps))
        self.left[row.arrival] = steps


@SAME
@given(limits, views(range(10)), st.sampled_from(SHAPES), st.sampled_from([COST, *SETTLED]))
def test_nobody_starves_under_an_endless_stream_of_interactive_rows(
    bounds: Limits, crowd: list[RowView], shape: ShapeKey, cost: CostModel
) -> None:
    denoiser = Denoiser(bounds, [], [], {}, cost=cost)
    for row in crowd:
        denoiser.arrive(row, steps=3)
    # Each row is passed over for at most 2·patience steps before it ranks with the newcomers, and
    # then for as long as the rows before it and the other groups' turns take.
    enough = 3 * (2 * bounds.patience + 60 * len(crowd))
    for arrival in range(100, 100 + enough):
        if len(denoiser.waiting) < 12:
            denoiser.arrive(RowView(arrival, shape, 2, "interactive"), steps=2)
        denoiser.step()
        if not any(denoiser.left[row.arrival] for row in crowd):
            return
    unfinished = [row for row in crowd if denoiser.left[row.arrival]]
    raise AssertionError(f"after {enough} steps still waiting: {unfinished}")


@SAME
@given(limits, views(range(12)), st.lists(st.integers(1, 5), min_size=12, max_size=12))
def test_every_row_takes_each_of_its_steps_once(
    bounds: Limits, crowd: list[RowView], steps: list[int]
) -> None:
    denoiser = Denoiser(bounds, [], [], {})
    for row, count in zip(crowd, steps, strict=True):
        denoiser.arrive(row, count)
    taken = 0
    while plan := denoiser.step().runs:
        taken += len(plan)
    assert taken == sum(steps)


def row(arrival: int, service_class: ServiceClass = "standard", shape: int = 0) -> RowView:
    return RowView(arrival, SHAPES[shape], 2, service_class)


def plan(rows: list[RowView], waiting: list[RowView], **bounds: float) -> StepPlan:
    return schedule_step(rows, waiting, Limits(**bounds), COST, RoundRobinState())  # type: ignore[arg-type]


def test_a_waiting_row_joins_the_running_ones() -> None:
    assert plan([row(1)], [row(2)]) == StepPlan(
        joins=(2,),
        leaves=(),
        runs=(1, 2),
        round_robin=RoundRobinState(SHAPES[0], ((SHAPES[0], 0.0),), choices=1),
    )


def test_interactive_rows_push_batch_rows_out_of_the_step_first_and_then_off_the_device() -> None:
    rows = [row(1, "batch"), row(2, "batch")]
    waiting = [row(3, "interactive"), row(4, "interactive")]
    assert plan(rows, waiting, max_rows=2, max_admitted=4).runs == (3, 4)
    assert plan(rows, waiting, max_rows=2, max_admitted=4).leaves == ()
    assert plan(rows, waiting, max_rows=2, max_admitted=3).leaves == (2,)


def test_among_equals_the_first_come_runs_to_its_end() -> None:
    rows = [row(k) for k in range(6)]
    assert plan(rows, [], max_rows=2).runs == (0, 1)
    assert plan(rows[2:], rows[:2], max_rows=2, max_admitted=4).runs == (2, 3)


def test_a_step_may_take_longer_than_the_limit_only_for_one_row() -> None:
    assert plan([row(1), row(2)], [], max_step_seconds=0.001).runs == (1,)


def test_shapes_share_the_time_equally_whatever_their_steps_cost() -> None:
    bounds = Limits(max_rows=4)
    rows = [row(k, shape=0) for k in range(4)] + [row(9, shape=1)]
    seconds = {SHAPES[0]: 0.0, SHAPES[1]: 0.0}
    round_robin = RoundRobinState()
    for _ in range(200):
        step = schedule_step(rows, [], bounds, COST, round_robin)
        round_robin = step.round_robin
        shape = SHAPES[1] if 9 in step.runs else SHAPES[0]
        seconds[shape] += COST.predict(StepWork.full(2 * len(step.runs), shape.tokens))
    assert abs(seconds[SHAPES[0]] - seconds[SHAPES[1]]) < 0.1 * sum(seconds.values())


def test_what_was_decided_against_is_tried_again_at_two_steps_of_a_hundred() -> None:
    """Where company saves nothing a second row is let in now and then, where it saves all one row
    now and then has the step to itself."""
    rows = [row(1), row(2), row(3)]
    for cost, usual, other in ((SETTLED[1], 1, 2), (SETTLED[2], 3, 1)):
        round_robin, sizes = RoundRobinState(), []
        for _ in range(2 * PERIOD):
            found = schedule_step(rows, [], Limits(), cost, round_robin)
            round_robin = found.round_robin
            sizes.append(len(found.runs))
        assert sizes == ([usual] * (PERIOD - TRIALS) + [other] * TRIALS) * 2


def test_where_deadlines_decide_who_is_there_nothing_is_tried() -> None:
    rows = [replace(row(k), seconds_left=1e6) for k in range(3)]
    round_robin = RoundRobinState(choices=PERIOD - 1)
    assert len(schedule_step(rows, [], Limits(), SETTLED[1], round_robin).runs) == 3
