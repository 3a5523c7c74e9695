"""Two mistakes that the suite has to find; `test_short.py` passes the same scenarios without."""

from collections.abc import Mapping

from tests.chaos.report import CaseResult


def test_without_the_fence_a_process_that_wakes_up_overwrites_another_s_work(
    alone: Mapping[str, CaseResult],
) -> None:
    found = alone["no_fence"]
    assert not found.passed
    rules = {violation.partition(":")[0] for violation in found.violations}
    assert rules & {"checkpoint went back", "two writers under one lease", "outputs replaced"}


def test_a_job_whose_process_acknowledged_first_and_died_is_lost(
    alone: Mapping[str, CaseResult],
) -> None:
    assert (alone["ack_first"].passed, alone["ack_first"].lost) == (False, 1)
