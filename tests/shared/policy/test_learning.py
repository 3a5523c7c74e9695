"""Nothing that is learnt locks itself in: the real policies and cost model against adversarial
histories, in simulated time."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import CostModel
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits, RoundRobinState, schedule_step
from shared.policy.step_work import total

SMALL, LARGE = ShapeKey(4, 16, 16, (77,)), ShapeKey(4, 32, 32, (77,))
LIMITS = Limits(max_rows=32, max_admitted=32, max_step_seconds=1e9)
STEPS = 25
LEARNING, MEASURED = 200, 100
"""Steps in which what happened may still show, and steps after which it may not."""
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    max_examples=12,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Truth:
    """What a step really takes."""

    fixed: float
    each: float
    """Seconds for each image of `SMALL`; one of `LARGE` is four times as much."""

    def seconds(self, shape: ShapeKey, rows: int) -> float:
        return self.fixed + self.each * 2 * rows * shape.tokens / SMALL.tokens

    def best_rate(self, shape: ShapeKey, rows: int) -> float:
        """Rows a second of the best fixed size of batch."""
        return max(n / self.seconds(shape, n) for n in range(1, rows + 1))


@dataclass
class Host:
    """A denoiser in simulated time. `slow`: how many times longer the first runs of a size take."""

    truth: Truth
    noise: Iterator[float]
    first: int = 0
    slow: float = 1.0
    load: float = 1.0
    """How many times longer everything takes."""
    now: float = 0.0
    cost: CostModel = field(default_factory=CostModel)
    round_robin: RoundRobinState = field(default_factory=RoundRobinState)
    rows: dict[int, RowView] = field(default_factory=dict)
    waiting: dict[int, RowView] = field(default_factory=dict)
    born: dict[int, float] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    seen: dict[tuple[ShapeKey, int], int] = field(default_factory=dict)
    in_time: dict[int, bool] = field(default_factory=dict)
    arrivals: Iterator[int] = field(default_factory=count)

    def come(self, shape: ShapeKey, seconds: float | None = None) -> int:
        arrival = next(self.arrivals)
        self.waiting[arrival] = RowView(arrival, shape, 2, "standard", steps_left=STEPS)
        self.born[arrival] = self.now
        if seconds is not None:
            self.due[arrival] = self.now + seconds
        return arrival

    def _view(self, row: RowView) -> RowView:
        due = self.due.get(row.arrival)
        left = None if due is None else due - self.now
        return replace(row, waited=self.now - self.born[row.arrival], seconds_left=left)

    def step(self) -> tuple[ShapeKey, int] | None:
        """One step of those that the policy chooses: their shape and number."""
        plan = schedule_step(
            [self._view(row) for row in self.rows.values()],
            [self._view(row) for row in self.waiting.values()],
            LIMITS,
            self.cost,
            self.round_robin,
        )
        self.round_robin = plan.round_robin
        for arrival in plan.infeasible:
            self._end(arrival, in_time=False)
        for arrival in plan.leaves:
            self.waiting[arrival] = self.rows.pop(arrival)
        for arrival in plan.joins:
            self.rows[arrival] = self.waiting.pop(arrival)
        if not plan.runs:
            return None
        shape = self.rows[plan.runs[0]].shape
        seconds = self.truth.seconds(shape, len(plan.runs)) * self.load * next(self.noise)
        runs = self.seen[shape, len(plan.runs)] = self.seen.get((shape, len(plan.runs)), 0) + 1
        seconds *= self.slow if runs <= self.first else 1.0
        self.now += seconds
        self.cost = self.cost.observe(total(self.rows[k].work for k in plan.runs), seconds)
        for arrival, row in list(self.rows.items()):
            if arrival not in plan.runs:
                self.rows[arrival] = replace(row, passed_over=row.passed_over + 1)
            elif row.steps_left > 1:
                self.rows[arrival] = replace(row, steps_left=row.steps_left - 1, passed_over=0)
            else:
                self._end(arrival, in_time=self.now <= self.due.get(arrival, self.now))
        return shape, len(plan.runs)

    def _end(self, arrival: int, in_time: bool) -> None:
        self.rows.pop(arrival, None)
        self.waiting.pop(arrival, None)
        self.in_time[arrival] = in_time

    def keep(self, users: int, shapes: tuple[ShapeKey, ...], steps: int) -> float:
        """Take `steps` steps with so many users, who each ask again at once; what was drawn, over
        what the best fixed size of batch of each step's shape would have drawn meanwhile."""
        best, rows_of = 0.0, 0
        for _ in range(steps):
            for shape in shapes:
                there = sum(r.shape == shape for r in (*self.rows.values(), *self.waiting.values()))
                for _ in range(users // len(shapes) - there):
                    self.come(shape)
            began = self.now
            taken = self.step()
            assert taken is not None
            shape, rows = taken
            rate = self.truth.best_rate(shape, users // len(shapes))
            best += rate * (self.now - began) * shape.tokens
            rows_of += rows * shape.tokens
        return rows_of / best


def noise(amount: float, seed: int) -> Iterator[float]:
    lot = Random(seed)
    while True:
        yield 1.0 + abs(lot.gauss(0.0, amount))


def quiet() -> Iterator[float]:
    return noise(0.0, 0)


truths = st.builds(
    lambda seconds, saved: Truth(seconds * saved, seconds * (1.0 - saved) / 2),
    st.sampled_from([0.004, 0.017, 0.25, 3.0]),
    st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0]),
)
shapes = st.sampled_from([(SMALL,), (LARGE,), (SMALL, LARGE)])
disturbances = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 4, 16]),  # users
        st.integers(1, 60),  # steps
        st.sampled_from([1.0, 1.0, 3.0, 10.0]),  # how much slower the host is meanwhile
    ),
    max_size=5,
)


@SETTINGS
@given(
    truths,
    shapes,
    disturbances,
    st.sampled_from([2, 4, 8, 16]),
    st.sampled_from([(0, 1.0), (1, 3.0), (1, 5.0), (2, 5.0), (4, 5.0)]),
    st.integers(0, 9),
)
def test_within_200_steps_throughput_is_near_that_of_the_best_fixed_batch(
    truth: Truth,
    shapes: tuple[ShapeKey, ...],
    history: list[tuple[int, int, float]],
    users: int,
    first: tuple[int, float],
    seed: int,
) -> None:
    host = Host(truth, quiet(), *first)
    for there, steps, load in history:
        host.load = load
        host.keep(max(there, len(shapes)), shapes, steps)
    host.load, host.first = 1.0, 0
    host.keep(users, shapes, LEARNING)
    assert host.keep(users, shapes, MEASURED) > 0.9


@SETTINGS
@given(truths, disturbances, st.integers(0, 99), st.sampled_from([0.1, 0.3]))
def test_noise_does_not_keep_rows_apart(
    truth: Truth, history: list[tuple[int, int, float]], seed: int, amount: float
) -> None:
    host = Host(truth, noise(amount, seed), first=2, slow=4.0)
    for there, steps, load in history:
        host.load = load
        host.keep(there, (SMALL,), steps)
    host.load, host.first = 1.0, 0
    host.keep(16, (SMALL,), LEARNING)
    mean = 1.0 + amount * (2 / 3.14159) ** 0.5
    assert host.keep(16, (SMALL,), MEASURED) * mean > 0.88


@pytest.mark.parametrize(
    ("slow", "first", "alone"),
    [(1, 1, 1), (1, 1, 30), (2, 1, 30), (2, 4, 1), (5, 1, 1), (5, 4, 30)],
)
def test_a_fleet_whose_first_runs_are_slow_batches_all_the_same(
    slow: float, first: int, alone: int
) -> None:
    """10 ms a step and 3.5 ms an image; one user, and then one more at each step."""
    host = Host(Truth(0.010, 0.0035), quiet(), first, slow)
    host.keep(1, (SMALL,), alone)
    for users in range(2, 17):
        host.keep(users, (SMALL,), 1)
    host.keep(16, (SMALL,), LEARNING)
    assert host.keep(16, (SMALL,), MEASURED) > 0.95


@SETTINGS
@given(truths, disturbances, st.sampled_from([(0, 1.0), (1, 5.0), (4, 5.0)]))
def test_a_feasible_deadline_is_met_whatever_happened_before(
    truth: Truth, history: list[tuple[int, int, float]], first: tuple[int, float]
) -> None:
    host = Host(truth, quiet(), *first)
    for there, steps, load in history:
        host.load = load
        host.keep(there, (SMALL,), steps)
    host.load, host.first = 1.0, 0
    while host.rows or host.waiting:
        host.step()
    host.cost = host.cost.rested()
    job = host.come(SMALL, 1.2 * STEPS * truth.seconds(SMALL, 1))
    while job not in host.in_time:
        host.step()
    assert host.in_time[job]


def after_a_slow_host(deadlines: bool) -> Host:
    """It was ten times slower for a while, for jobs that all missed their deadlines."""
    host = Host(Truth(0.010, 0.0035), quiet())
    host.keep(4, (SMALL,), 60)
    host.load = 10.0
    solo = STEPS * host.truth.seconds(SMALL, 1)
    for _ in range(40):
        host.come(SMALL, 4 * solo if deadlines else None)
        host.step()
    host.load = 1.0
    return host


@pytest.mark.parametrize("deadlines", [True, False])
def test_after_a_slow_host_those_that_can_be_in_time_are(deadlines: bool) -> None:
    host = after_a_slow_host(deadlines)
    while host.rows or host.waiting:
        host.step()
    solo = STEPS * host.truth.seconds(SMALL, 1)
    for _ in range(60):
        host.come(SMALL, 4 * solo)
        for _ in range(STEPS):
            host.step()
    met = [host.in_time.get(arrival, True) for arrival in sorted(host.born)[-60:]]
    assert sum(met) == 60


def test_a_row_is_not_given_up_where_nobody_else_is_served() -> None:
    host = Host(Truth(0.010, 0.0035), quiet())
    host.keep(4, (SMALL,), 60)
    while host.rows or host.waiting:
        host.step()
    host.load = 10.0
    for _ in range(3):
        host.keep(1, (SMALL,), STEPS)
    host.load = 1.0
    job = host.come(SMALL, 4 * STEPS * host.truth.seconds(SMALL, 1))
    while job not in host.in_time:
        host.step()
    assert host.in_time[job]
