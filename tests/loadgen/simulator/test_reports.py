"""What planners hear of simulated processes, and when."""

from dataclasses import dataclass, field, replace

import pytest

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.job import Job, wanted
from loadgen.simulator.studies.cluster import Cluster, build
from loadgen.simulator.systems.darkroom import DarkroomSystem, Policies
from loadgen.simulator.systems.reports import Reporter, StepperSource
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import YIELD_STEPS, YIELDS
from shared.policy.release.load import ProcessLoad
from shared.policy.release.pace import LOOK_SECONDS, QUIET_SECONDS
from tests.loadgen.simulator.small import ENCODE, JOB, NODE, STEP, STEPS, shot, small_profile

IDLE = ProcessLoad("one", ("denoise", "m"), CostModel(), 0.0)


@dataclass
class Source:
    load: ProcessLoad = IDLE
    tells: list[float] = field(default_factory=list)

    def stands(self, now: float) -> ProcessLoad:
        return replace(self.load, at=now)

    def told(self) -> None:
        self.tells.append(self.load.seconds)


def test_what_changed_is_told_at_the_next_look_and_what_did_not_when_it_was_quiet_for_long() -> (
    None
):
    clock, source = Clock(), Source()
    reporter = Reporter(clock, 0, source)
    clock.run(3.0)
    assert source.tells == []  # nothing in hand, and nothing new
    source.load = replace(IDLE, count=1, seconds=1.0)
    clock.now = 3.01
    reporter.wake()
    assert reporter.last.count == 0
    clock.run(3.01 + LOOK_SECONDS)
    assert (source.tells, reporter.last.count) == ([1.0], 1)
    source.load = replace(source.load, seconds=0.9)
    clock.run(3.01 + QUIET_SECONDS - 3 * LOOK_SECONDS)
    assert source.tells == [1.0]
    clock.run(3.01 + QUIET_SECONDS + 3 * LOOK_SECONDS)
    assert source.tells == [1.0, 0.9]
    source.load = IDLE
    clock.run(100.0)
    assert source.tells == [1.0, 0.9, 0.0]


def system() -> DarkroomSystem:
    at_once = Policies(release=None)
    found = build(Cluster(profile=small_profile(), devices=1), Clock(), [shot()], at_once)
    assert isinstance(found, DarkroomSystem)
    return found


def run(clock: Clock, until: float) -> None:
    clock.at(until, lambda: None)
    clock.run(until)


def test_rows_are_told_as_they_are_in_the_midst_of_a_run() -> None:
    """Between two decisions are several steps."""
    one = system()
    one.submit(Job(shot(), wanted(shot(), one.profile), 0.0, None))
    source = StepperSource("d", ("denoise", "network"), one.steppers[0])
    for taken in (0, 3, STEPS - 1):
        run(one.clock, JOB + ENCODE + NODE + (taken + 0.5) * STEP)
        [row] = source.stands(one.clock.now).rows
        assert row.steps_left == STEPS - taken
        assert source.stands(one.clock.now).seconds == pytest.approx(
            (STEPS - taken) * STEP, rel=0.1
        )


def test_what_was_promised_to_a_job_without_a_deadline_is_told_and_does_not_give_it_up() -> None:
    one = system()
    job = Job(shot(), wanted(shot(), one.profile), 0.0, None)
    job.promised = 2.8
    one.submit(job)
    source = StepperSource("d", ("denoise", "network"), one.steppers[0])
    run(one.clock, JOB + ENCODE + NODE + 0.1)
    [row] = source.stands(one.clock.now).rows
    assert row.due == pytest.approx(2.8 - one.steppers[0].limits.deadline_grace)
    run(one.clock, 1.7)
    [row] = source.stands(one.clock.now).rows  # it cannot be in time any more
    assert row.due is not None
    assert 2.8 < row.due < 4.0
    run(one.clock, 10.0)
    assert job.ended
    assert not job.missing


def test_a_row_that_yielded_for_long_is_told_as_one_that_has_to_be_finished() -> None:
    one = system()
    one.submit(Job(shot(steps=500), wanted(shot(steps=500), one.profile), 0.0, None))
    source = StepperSource("d", ("denoise", "network"), one.steppers[0])
    run(one.clock, 20.0)
    [row] = source.stands(one.clock.now).rows
    assert row.due is None
    [own] = one.steppers[0]._admitted.values()
    own.yielded = YIELDS * row.steps_left + YIELD_STEPS + 1
    [row] = source.stands(one.clock.now).rows
    assert row.due is not None
