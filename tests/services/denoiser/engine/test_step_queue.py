"""The queue of rows by itself: any order of calls leaves every row with exactly one end."""

from collections import Counter

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.denoiser.engine.events import EngineStopped, Event, Failed, Finished, Yielded
from services.denoiser.engine.step_queue import Access, Decision, StepQueue
from services.denoiser.loras.extension import LateLoras
from services.denoiser.rows.row import Row
from shared.errors import QueueFull
from shared.policy.checkpoint_interval import NEVER
from shared.policy.cost_model import CostModel
from shared.policy.step_scheduler import Limits
from shared.service_classes import CLASSES
from tests.services.denoiser.models import make_row

LIMITS = Limits(max_rows=2, max_admitted=3, max_waiting=4)
NOW = 1_000_000.0


class Calls(RuleBasedStateMachine):
    """Plays the part of the step loop; `ends` counts how often each row ended."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = StepQueue(LIMITS)
        self.rows: dict[int, Row] = {}
        self.alone: set[int] = set()
        self.ends: Counter[int] = Counter()
        self.withdrawn: set[int] = set()
        self.decision: Decision | None = None
        self.held = False

    @rule(
        steps=st.integers(1, 3),
        service_class=st.sampled_from(CLASSES),
        alone=st.booleans(),
        seconds=st.sampled_from([None, -1.0, 100.0]),
        late=st.sampled_from([None, 0, 1]),
        wide=st.booleans(),
    )
    def submit(
        self,
        steps: int,
        service_class: str,
        alone: bool,
        seconds: float | None,
        late: int | None,
        wide: bool,
    ) -> None:
        row = make_row(
            steps=steps,
            service_class=service_class,
            deadline=None if seconds is None else NOW + seconds,
            extensions=() if alone or late is None else (LateLoras(late, ()),),
            shape=(4, 8, 16 if wide else 8),
        )
        waiting = self.queue.counts().waiting
        try:
            ticket = self.queue.submit(row, NEVER, alone)
        except QueueFull:
            assert waiting >= LIMITS.max_waiting
        except EngineStopped:
            assert self.queue.stopped
        else:
            assert waiting < LIMITS.max_waiting
            assert not self.queue.stopped
            self.rows[ticket] = row
            self.alone |= {ticket} if alone else set()

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.rows:
            ticket = data.draw(st.sampled_from(sorted(self.rows)))
            self.queue.withdraw(ticket)
            self.withdrawn.add(ticket)

    @rule(data=st.data())
    def unblock(self, data: st.DataObject) -> None:
        if self.rows:
            row = self.rows[data.draw(st.sampled_from(sorted(self.rows)))]
            late = row.extension(LateLoras)
            if late is not None:
                late.arrive((), complete=True)
            assert not row.blocked

    @precondition(lambda self: not self.held)
    @rule()
    def hold(self) -> None:
        self.queue.hold()
        self.held = True

    @precondition(lambda self: self.held and self.queue.at_rest)
    @rule()
    def release(self) -> None:
        self.queue.release()
        self.held = False

    @precondition(lambda self: self.decision is None)
    @rule()
    def decide(self) -> None:
        exclusive = self.held and self.queue.at_rest
        decision = self.queue.decide(NOW, CostModel())
        if decision is None:
            assert not self.queue.stepping
            return
        assert not self.queue.stopped
        assert self.queue.stepping
        tickets = [slot.ticket for slot in decision.runs]
        assert len(tickets) <= LIMITS.max_rows
        assert len({slot.row.shape_key for slot in decision.runs}) <= 1
        assert not any(slot.row.blocked or slot.withdrawn for slot in decision.runs)
        assert {slot.row for slot in decision.runs} <= set(decision.admitted)
        assert set(tickets) <= self.alone or not set(tickets) & self.alone
        assert not exclusive or set(tickets) <= self.alone
        self.decision = decision

    @precondition(lambda self: self.decision is not None)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """One step of whoever runs, which may fail for any of them."""
        assert self.decision is not None
        events: list[Event] = [
            Failed(slot.ticket, RuntimeError("late")) for slot in self.decision.infeasible
        ]
        for slot in self.decision.runs:
            slot.row.step += 1
            if data.draw(st.integers(0, 9)) == 0:
                events.append(Failed(slot.ticket, RuntimeError("broken")))
            elif slot.row.finished:
                events.append(Finished(slot.ticket, torch.empty(0)))
            elif slot.alone:
                events.append(Yielded(slot.ticket, torch.empty(0)))
        self.queue.settle(events)
        self.ends.update(event.ticket for event in events)
        self.decision = None

    @precondition(lambda self: len(self.rows) > 3)
    @rule()
    def stop(self) -> None:
        self.queue.stop()

    @invariant()
    def bounds_hold(self) -> None:
        counts = self.queue.counts()
        assert counts.admitted <= LIMITS.max_admitted
        assert len(self.queue) == counts.admitted + counts.waiting
        assert counts.waiting - counts.parked <= LIMITS.max_waiting
        assert all(times == 1 for times in self.ends.values())

    @invariant()
    def a_held_queue_comes_to_rest(self) -> None:
        if self.held and not self.queue.stepping and not self.queue:
            self.queue.decide(NOW, CostModel())
            assert self.queue.at_rest

    def teardown(self) -> None:
        """Everybody has ended, or was withdrawn, or is left; and nobody twice."""
        if self.decision is not None:
            self.queue.settle(
                [Failed(slot.ticket, RuntimeError("late")) for slot in self.decision.infeasible]
            )
            self.ends.update(slot.ticket for slot in self.decision.infeasible)
        self.queue.stop()
        left = {slot.ticket for slot in self.queue.clear()}
        assert not left & set(self.ends)
        assert not left & self.withdrawn
        assert set(self.rows) == left | set(self.ends) | self.withdrawn
        assert len(self.queue) == 0


def test_any_order_of_calls_leaves_every_row_with_exactly_one_end() -> None:
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_between_two_holds_the_others_take_a_step() -> None:
    queue = StepQueue(LIMITS)
    shared, alone = (queue.submit(make_row(steps=9), NEVER, flag) for flag in (False, True))
    queue.hold()
    assert queue.at_rest

    def steps() -> list[int]:
        decision = queue.decide(NOW, CostModel())
        assert decision is not None
        queue.settle([Yielded(slot.ticket, torch.empty(0)) for slot in decision.runs if slot.alone])
        return [slot.ticket for slot in decision.runs]

    assert steps() == [alone]
    assert queue.decide(NOW, CostModel()) is None
    queue.release()
    queue.hold()
    assert not queue.at_rest, "the others have not had their step"
    assert steps() == [shared]
    assert queue.at_rest
    assert queue.decide(NOW, CostModel()) is None


def test_who_makes_way_keeps_none_from_coming_that_have_to_be_finished() -> None:
    queue = StepQueue(Limits(max_rows=1, max_admitted=1))
    queue.submit(make_row(service_class="interactive", deadline=NOW + 100.0), NEVER, False)
    makes_way = queue.submit(make_row(), NEVER, False)
    for taken in range(3):
        assert not queue.declining
        assert [row.yielded for row in queue.views(NOW) if row.arrival == makes_way] == [taken]
        assert queue.decide(NOW, CostModel()) is not None
        queue.settle([])
    queue.submit(make_row(deadline=NOW + 100.0), NEVER, False)
    assert queue.decide(NOW, CostModel()) is not None
    assert queue.declining


def test_a_row_that_leaves_for_others_is_to_be_moved_to_the_host_and_back() -> None:
    queue = StepQueue(Limits(max_rows=1, max_admitted=1))
    slow = queue.submit(make_row(service_class="batch"), NEVER, False)
    first = queue.decide(NOW, CostModel())
    assert first is not None
    queue.settle([])
    fast = queue.submit(make_row(service_class="interactive", steps=1), NEVER, False)
    second = queue.decide(NOW, CostModel())
    assert second is not None
    queue.settle([Finished(fast, torch.empty(0))])
    third = queue.decide(NOW, CostModel())
    assert third is not None
    moved = [
        ([slot.ticket for slot in decision.leaves], [slot.ticket for slot in decision.joins])
        for decision in (first, second, third)
    ]
    assert moved == [([], [slow]), ([slow], [fast]), ([], [slow])]
    assert queue.counts().parks == 1


def test_a_row_that_cannot_be_moved_to_the_host_has_ended() -> None:
    queue = StepQueue(Limits(max_rows=1, max_admitted=1))
    slow = queue.submit(make_row(service_class="batch"), NEVER, False)
    assert queue.decide(NOW, CostModel()) is not None
    queue.settle([])
    fast = queue.submit(make_row(service_class="interactive"), NEVER, False)
    decision = queue.decide(NOW, CostModel())
    assert decision is not None
    assert [slot.ticket for slot in decision.leaves] == [slow]
    queue.settle([Failed(slow, MemoryError("none left"))])
    assert [slot.ticket for slot in queue.clear()] == [fast]


def test_the_state_prints_itself() -> None:
    queue = StepQueue(LIMITS)
    queue.submit(make_row(), NEVER, False)
    assert repr(queue) == f"<StepQueue 0 admitted, 1 waiting, {Access.SHARED.name}>"
