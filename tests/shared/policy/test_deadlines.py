"""Who still can be in time, who is let into the batch, and who is given up."""

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.denoiser.engine.engine import Engine
from shared.errors import DeadlineExceeded
from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import has_time, infeasible, keep_in_time, overdue, would_delay
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits, RoundRobinState, schedule_step
from shared.policy.step_work import StepWork, total
from tests.conftest import eventually, run
from tests.services.denoiser.models import Gated, make_row, network
from tests.services.denoiser.world import STEPS, World, in_world

SHAPE = ShapeKey(4, 16, 16, (77,))
OTHER = ShapeKey(4, 8, 8, (77,))


class Cost:
    """A step takes 10 ms, and 10 ms more for each forward."""

    known = True
    doubt = 0.0
    slowness = 1.0

    def predict(self, work: StepWork) -> float:
        if not work.tokens:
            return 0.0
        forwards = work.tokens**2 / work.pairs  # of images that are computed in full
        return 0.01 + 0.01 * forwards

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


COST = Cost()
PATIENCE = Limits().patience


def row(arrival: int, steps: int, seconds: float | None, **changes: object) -> RowView:
    plain = RowView(arrival, SHAPE, 1, "standard", steps_left=steps, seconds_left=seconds)
    return replace(plain, **changes)  # type: ignore[arg-type]


def is_infeasible(one: RowView) -> bool:
    """Beside another that has no deadline."""
    return infeasible([one, row(99, 1, None)], COST) == (one.arrival,)


def test_who_could_not_be_in_time_alone_is_infeasible() -> None:
    assert is_infeasible(row(1, 10, 0.19))
    assert not is_infeasible(row(1, 10, 0.2))
    assert not is_infeasible(row(1, 10, None))


def test_who_has_a_chance_still_is_not_infeasible() -> None:
    assert is_infeasible(row(1, 10, 0.14, grace=0.05))
    assert not is_infeasible(row(1, 10, 0.16, grace=0.05))


def test_of_those_that_are_all_late_the_least_late_goes_on_until_its_deadline_is_over() -> None:
    late = [row(1, 10, 0.1), row(2, 10, 0.15), row(3, 10, 0.05)]
    assert infeasible(late, COST) == (1, 3)
    assert infeasible([row(1, 10, 0.01)], COST) == ()
    assert infeasible([row(1, 10, -0.01)], COST) == (1,)
    assert infeasible([], COST) == ()


def test_of_rows_that_are_late_together_as_many_go_on_as_are_in_time() -> None:
    """Ten steps each: alone 0.2 s, two 0.3 s, three 0.4 s."""
    rows = [row(k, 10, 0.35) for k in range(3)]
    staying, aside = keep_in_time(rows, COST, PATIENCE)
    assert {one.arrival for one in staying} == {0, 1}
    assert {one.arrival for one in aside} == {2}
    assert keep_in_time(rows[:2], COST, PATIENCE) == (rows[:2], [])


def test_rows_without_a_deadline_step_aside_until_they_were_passed_over_for_long() -> None:
    rows = [row(1, 10, 0.35), row(2, 10, 0.35), row(3, 10, None)]
    assert keep_in_time(rows, COST, PATIENCE) == (rows[:2], rows[2:])
    rows[2] = replace(rows[2], passed_over=3 * PATIENCE)
    staying, aside = keep_in_time(rows, COST, PATIENCE)
    assert {one.arrival for one in staying} == {1, 3}
    assert {one.arrival for one in aside} == {2}


@pytest.mark.parametrize(("seconds", "beside"), [(0.37, True), (0.35, False), (0.31, False)])
def test_rows_without_a_deadline_go_along_if_nobody_is_late_even_where_steps_take_longer(
    seconds: float, beside: bool
) -> None:
    """Ten steps: alone 0.2 s, two together 0.3 s."""
    hurried, yielding = row(1, 10, seconds), row(2, 10, None)
    staying, _ = keep_in_time([hurried, yielding], COST, PATIENCE)
    assert (yielding in staying) is beside
    assert would_delay([hurried], yielding, COST) is not beside
    assert keep_in_time([hurried, row(2, 10, 0.31)], COST, PATIENCE)[1] == []


def test_a_newcomer_with_a_deadline_joins_and_those_without_make_room() -> None:
    present = [row(k, 50, None) for k in range(4)]
    found = schedule_step(present, [row(9, 10, 0.37)], Limits(), COST, RoundRobinState())
    assert found.joins == (9,)
    assert len(found.leaves) == 3


def test_the_earliest_deadline_goes_first_and_a_bare_chance_last() -> None:
    waiting = [row(1, 10, 0.33), row(2, 10, 0.31), row(3, 10, 0.2)]
    unsure = Cost()
    unsure.doubt = 0.1
    found = schedule_step([], waiting, Limits(), unsure, RoundRobinState())
    assert found.joins == (1, 2)


def test_a_row_that_may_be_late_goes_on_when_it_is() -> None:
    lenient = row(1, 10, 0.1, lenient=True)
    assert infeasible([lenient, row(2, 10, None)], COST) == ()
    found = schedule_step([lenient], [row(2, 10, 0.25)], Limits(), COST, RoundRobinState())
    assert (found.infeasible, found.runs) == ((), (2,))
    early = replace(lenient, seconds_left=0.21)
    found = schedule_step([early], [row(2, 10, None)], Limits(), COST, RoundRobinState())
    assert found.runs == (1,)


def test_a_row_that_has_yielded_for_long_is_overdue() -> None:
    assert not overdue(row(1, 10, None, yielded=140))
    assert overdue(row(1, 10, None, yielded=141))
    assert not overdue(row(1, 10, 1.0, yielded=1000))


def test_those_that_are_done_soonest_go_on() -> None:
    rows = [row(1, 10, 0.25), row(2, 2, 0.25), row(3, 9, 0.25)]
    staying, _ = keep_in_time(rows, COST, PATIENCE)
    assert {one.arrival for one in staying} == {2, 3}


def test_if_all_are_late_even_alone_the_least_late_goes_on() -> None:
    rows = [row(1, 10, 0.1), row(2, 10, 0.15), row(3, 10, 0.05)]
    staying, aside = keep_in_time(rows, COST, PATIENCE)
    assert [one.arrival for one in staying] == [2]
    assert len(aside) == 2


def test_a_row_that_is_alone_goes_on_however_late_it_is() -> None:
    late = row(1, 10, -5.0, alone=True)
    assert keep_in_time([late], COST, PATIENCE) == ([late], [])
    assert keep_in_time([late, row(2, 10, None)], COST, PATIENCE)[1] == []
    assert schedule_step([late], [], Limits(), COST, RoundRobinState(), held=True).runs == (1,)


@given(
    st.lists(
        st.builds(
            row,
            st.integers(),
            st.integers(1, 50),
            st.none() | st.floats(-1.0, 5.0),
            alone=st.booleans(),
        ),
        max_size=8,
    )
)
def test_rows_that_step_aside_never_leave_a_denoiser_idle(rows: list[RowView]) -> None:
    rows = [replace(one, arrival=k) for k, one in enumerate(rows)]
    staying, aside = keep_in_time(rows, COST, PATIENCE)
    assert sorted((*staying, *aside), key=lambda one: one.arrival) == rows
    assert not rows or staying
    assert not any(one.alone for one in aside)


def test_rows_that_step_aside_leave_the_batch_and_come_back_when_there_is_time() -> None:
    rows = [row(k, 10, 0.25) for k in range(2)]
    plan = schedule_step(rows, [], Limits(), COST, RoundRobinState())
    assert (plan.runs, plan.leaves, plan.infeasible) == ((0,), (1,), ())
    later = schedule_step([row(0, 1, 0.07)], [row(1, 10, 0.5)], Limits(), COST, RoundRobinState())
    assert later.joins == (1,)


def test_without_recent_steps_nobody_is_given_up_before_its_deadline_is_over() -> None:
    cost = CostModel()
    for _ in range(9):
        cost = cost.observe(StepWork.full(1, SHAPE.tokens), 1.0)
    rows = [row(1, 10, 0.1), row(2, 10, None)]
    assert infeasible(rows, cost) == (1,)
    assert infeasible(rows, cost.rested()) == ()
    assert infeasible([row(1, 10, -0.1), row(2, 10, None)], cost.rested()) == (1,)


def test_who_has_a_bare_chance_gets_it_where_nobody_else_has_a_deadline() -> None:
    chance = row(2, 10, 0.16, grace=0.05)
    assert not would_delay([], chance, COST)
    assert not would_delay([row(1, 10, None)], chance, COST)
    assert would_delay([row(1, 10, 0.35)], chance, COST)
    found = schedule_step([], [chance], Limits(), COST, RoundRobinState())
    assert (found.infeasible, found.runs) == ((), (2,))


def test_those_who_have_a_bare_chance_do_not_crowd_each_other_out() -> None:
    late = [row(k, 10, 0.16, grace=0.05) for k in range(5)]
    found = schedule_step([], late, Limits(), COST, RoundRobinState())
    assert (found.infeasible, found.runs) == ((), (0,))


def test_a_newcomer_that_makes_others_late_would_delay() -> None:
    present = [row(1, 10, 0.3)]  # 0.2 s alone, 0.3 with company, and a fifth is to spare
    assert would_delay(present, row(2, 10, None), COST)
    assert not would_delay(present, row(2, 4, None), COST)  # 4 * 30 ms + 6 * 20 ms


def test_a_newcomer_that_would_be_late_itself_waits() -> None:
    assert would_delay([row(1, 10, None)], row(2, 10, 0.25), COST)
    assert not would_delay([row(1, 2, None)], row(2, 10, 0.25), COST)


def test_who_is_late_already_holds_nobody_up() -> None:
    assert not would_delay([row(1, 10, 0.05)], row(2, 10, None), COST)


def test_batches_of_other_shapes_take_their_share_of_the_time() -> None:
    present = [row(1, 10, 0.37)]
    assert not would_delay(present, row(2, 10, None), COST)
    assert would_delay(present, row(2, 10, None, shape=OTHER), COST)  # 10 * (20 + 20) ms


def test_the_infeasible_are_given_up_and_the_others_run() -> None:
    found = schedule_step([row(1, 10, 0.1)], [row(2, 10, 0.3)], Limits(), COST, RoundRobinState())
    assert (found.infeasible, found.runs) == ((1,), (2,))


def test_there_is_time_for_one_more_as_long_as_it_makes_nobody_late() -> None:
    assert has_time([row(1, 10, 0.35)], 0, COST)  # 10 steps of 30 ms
    assert not has_time([row(1, 10, 0.29)], 0, COST)
    assert not has_time([row(1, 10, 0.35)], 1, COST)
    assert has_time([row(1, 10, 0.1)], 0, COST)  # it is late anyway
    assert has_time([row(1, 10, None)], 9, COST)
    assert not has_time([row(1, 10, 0.39), row(2, 4, None, shape=OTHER)], 0, COST)
    assert has_time([], 9, COST)
    assert has_time([row(1, 10, 0.29)], 0, CostModel())  # nothing is known


def test_who_joins_counts_on_slow_steps_and_who_is_alone_has_its_chance() -> None:
    slow = Cost()
    slow.slowness = 1.5
    present, newcomer = [row(1, 10, 0.4)], row(2, 10, None)
    assert not would_delay(present, row(2, 10, 0.4), COST)
    assert would_delay(present, row(2, 10, 0.4), slow)
    assert would_delay(present, newcomer, slow)
    assert would_delay([row(1, 10, 0.25)], newcomer, slow)  # it is in time, if nobody joins
    assert not has_time([row(1, 10, 0.25)], 0, slow)
    assert not would_delay([], row(2, 10, 0.25), slow)


def test_who_would_delay_others_waits_and_who_would_not_passes_it() -> None:
    waiting = [row(2, 10, None), row(3, 2, None)]
    found = schedule_step([row(1, 10, 0.27)], waiting, Limits(), COST, RoundRobinState())
    assert (found.joins, found.runs) == ((3,), (1, 3))


def test_nobody_waits_for_ever() -> None:
    patient = row(2, 10, None, passed_over=3 * Limits().patience)
    found = schedule_step([row(1, 10, 0.25)], [patient], Limits(), COST, RoundRobinState())
    assert found.joins == (2,)


def test_nobody_is_turned_away_by_a_model_that_has_measured_nothing() -> None:
    found = schedule_step(
        [row(1, 100, 0.1)], [row(2, 100, 0.1)], Limits(), CostModel(), RoundRobinState()
    )
    assert (found.infeasible, found.runs) == ((), (1, 2))


SECONDS = st.one_of(st.none(), st.floats(0.0, 2.0))


@given(
    st.lists(st.tuples(st.integers(1, 30), SECONDS, st.booleans()), max_size=8),
    st.integers(0, 8),
)
def test_admitted_by_the_rule_everybody_who_can_be_in_time_is(
    wanted: list[tuple[int, float | None, bool]], present: int
) -> None:
    """Played to the end with nobody else coming, no row that was let in is late."""
    views = [
        row(k, steps, seconds, shape=SHAPE if same else OTHER)
        for k, (steps, seconds, same) in enumerate(wanted)
    ]
    rows: list[RowView] = []
    for view in views[:present]:
        if not is_infeasible(view) and not would_delay(rows, view, COST):
            rows.append(view)
    clock = 0.0
    finished: dict[int, float] = {}
    left = {r.arrival: r.steps_left for r in rows}
    while left:
        for shape in (SHAPE, OTHER):
            running = [r for r in rows if r.arrival in left and r.shape == shape]
            clock += COST.predict(StepWork.full(len(running), shape.tokens))
            for r in running:
                left[r.arrival] -= 1
                if not left[r.arrival]:
                    del left[r.arrival]
                    finished[r.arrival] = clock
    for r in rows:
        assert r.seconds_left is None or finished[r.arrival] <= r.seconds_left + 1e-9


def test_a_row_that_cannot_be_in_time_fails_by_name_and_its_company_goes_on() -> None:
    async def scenario(world: World) -> None:
        await world.add("late", deadline=time.time() - 1.0)
        await world.add("good")
        async with Engine(network()) as one:
            denoiser = world.denoiser(one)
            async with asyncio.TaskGroup() as group:
                good = group.create_task(denoiser.run(await world.task("good")))
                with pytest.raises(DeadlineExceeded):
                    await denoiser.run(await world.task("late"))
        assert world.latents(good.result()).isfinite().all()
        assert len(world.publisher.steps("good")) == STEPS

    in_world(scenario)


def test_who_hangs_up_while_waiting_leaves_the_denoiser_as_open_as_before() -> None:
    """By prediction there is time for one of them only."""
    rows = [make_row(prompt) for prompt in ("first", "second")]
    one, both = rows[0].work, total(row.work for row in rows)
    cost = CostModel()
    for _ in range(9):
        cost = cost.observe(one, 100.0).observe(both, 200.0)

    async def scenario() -> None:
        gated = Gated("first", "second")
        async with Engine(gated, Limits(max_step_seconds=1e9), cost) as engine:
            for row in rows:
                row.deadline = time.time() + 150.0 * row.table.steps
            tasks = [asyncio.create_task(engine.run(row)) for row in rows]
            await asyncio.to_thread(gated.asked.acquire)
            gated.permits.release()
            await asyncio.to_thread(gated.asked.acquire)  # the second step is under way
            kept_waiting = not engine.has_capacity(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            gated.permits.release()
            assert kept_waiting
            await eventually(lambda: asyncio.sleep(0, engine.has_capacity(0)))

    run(scenario())
