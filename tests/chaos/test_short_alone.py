"""The cases that need a fleet, or a bus, of their own, short; see the fixture `alone`."""

from collections.abc import Mapping

from tests.chaos.report import CaseResult


def test_everything_killed_at_once_loses_nothing_and_leaves_no_file(
    alone: Mapping[str, CaseResult],
) -> None:
    assert alone["group"].passed, alone["group"].troubles()


def test_a_cluster_of_three_loses_its_leader_and_nothing_else(
    alone: Mapping[str, CaseResult],
) -> None:
    assert alone["cluster"].passed, alone["cluster"].troubles()
