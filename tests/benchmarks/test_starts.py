"""The figures of fresh and disturbed fleets; none is started here."""

import json
import subprocess
from argparse import ArgumentParser

import pytest

from benchmarks import starts
from benchmarks.starts import Window, add_arguments, busy_loops, summary, window
from loadgen.outcomes.occupancy import Steps
from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot

CALM = (Window("start", 8.0, (6.0, 5.5), None), Window("disturbed", 9.0, (6.0,), None))
SLOW = (Window("start", 4.0, (1.0, 6.0), None), Window("disturbed", 9.0, (6.0,), None))
HURRIED = (Window("start", 5.0, (2.0,), 0.6), Window("disturbed", 5.0, (2.0,), 0.5))


def outcome(ended_at: float, status: str = "done", deadline: float | None = None) -> Outcome:
    shot = Shot(0, 0.0, "default", "default", RequestTemplate(deadline=deadline))
    done = status == "done"
    return Outcome(shot, 0.0, ended_at, status, None if done else status, int(done), 0)  # type: ignore[arg-type]


def test_a_window_counts_images_by_their_steps() -> None:
    before, after = (
        {("a", "toy"): Steps(10, 20)},
        {("a", "toy"): Steps(20, 70), ("b", "toy"): Steps(9, 9)},
    )
    assert window("start", [], 2.0, before, after).images_per_second == 1.0


def test_rows_are_told_apart_by_denoiser() -> None:
    before = {("a", "toy"): Steps(10, 10), ("b", "toy"): Steps(0, 0), ("c", "toy"): Steps(5, 5)}
    after = {("a", "toy"): Steps(20, 20), ("b", "toy"): Steps(10, 80), ("c", "toy"): Steps(5, 5)}
    assert window("start", [], 1.0, before, after).rows == (1.0, 8.0)


def test_a_request_that_is_refused_is_not_in_time() -> None:
    outcomes = [
        outcome(1.0, deadline=1.5),
        outcome(2.0, deadline=1.5),
        outcome(0.1, "rejected", deadline=1.5),
        outcome(0.5, deadline=1.5),
    ]
    assert window("start", outcomes, 3.0, {}, {}).in_time == 0.5


def test_one_bad_start_shows_in_the_figures() -> None:
    found = summary([CALM, CALM, SLOW], [HURRIED])
    assert found["worst_over_median_throughput"] == 0.5
    assert found["fewest_rows_per_step"] == 1.0
    assert found["worst_deadline_share"] == 0.5
    json.dumps(found)


def test_windows_of_one_kind_are_compared_with_each_other_only() -> None:
    assert summary([CALM, CALM], [HURRIED])["worst_over_median_throughput"] == 1.0


def test_a_fleet_that_finishes_nothing_is_no_division_by_zero() -> None:
    nothing = (Window("start", 0.0, (), None), Window("disturbed", 0.0, (), None))
    assert summary([nothing], [HURRIED])["worst_over_median_throughput"] == 0.0


def test_the_table_has_a_line_for_each_fleet() -> None:
    table = starts.rows(summary([CALM, SLOW], [HURRIED, HURRIED]))
    assert max(len(line) for line in table) == 7
    assert table[2] == [2, 4.0, "1.0, 6.0", 9.0, "6.0", "60%", "50%"]


def test_busy_loops_end_with_their_context(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: tuple[str, ...]) -> None:
            super().__init__(command)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    with busy_loops(2):
        assert [loop.poll() for loop in started] == [None, None]
    assert all(loop.returncode is not None for loop in started)


@pytest.mark.parametrize("wrong", [["--fleets", "0"], ["--seconds", "0"], ["--fleets", "x"]])
def test_options_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(wrong)
