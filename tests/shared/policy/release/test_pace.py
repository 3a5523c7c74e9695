"""When a process should say how it stands, and when a planner decides again."""

from dataclasses import dataclass

from shared.policy.release.pace import DECIDING, GAP_SECONDS, pause, worth_telling


@dataclass
class Standing:
    count: int
    seconds: float


def test_a_planner_has_time_for_other_work_after_each_decision() -> None:
    assert pause(0.0) == GAP_SECONDS
    assert pause(0.02) == DECIDING * 0.02


def test_more_or_fewer_nodes_and_much_more_or_less_work_are_told_at_once() -> None:
    told = [Standing(2, 1.0)]
    assert not worth_telling(told, [Standing(2, 0.9)])
    assert not worth_telling(told, [Standing(2, 1.2)])
    assert worth_telling(told, [Standing(2, 0.7)])
    assert worth_telling(told, [Standing(2, 1.3)])
    assert worth_telling(told, [Standing(3, 1.0)])
    assert worth_telling(told, [])
