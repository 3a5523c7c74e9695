"""The figures of an overload, and the bound that they are compared with; no fleet is started."""

import json
from argparse import ArgumentParser
from dataclasses import replace

import pytest

from benchmarks.overload.__main__ import add_arguments
from benchmarks.overload.__main__ import rows as table
from benchmarks.overload.bursts import Burst, admitted_in_time, attainment, wasted_share
from benchmarks.overload.measure import full_rate, summary, taken, taken_by_each
from benchmarks.overload.possible import Costs, Row, least_seconds, most_in_time
from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot
from loadgen.simulator.profiles.measured import Steps

COSTS = Costs(fixed=0.004, per_unit=0.002, denoisers=1, max_rows=16)
ALONE = 10 * (0.004 + 2 * 0.002)


def outcome(seconds: float, failure: str | None = None, deadline: float = 1.0) -> Outcome:
    shot = Shot(0, 0.0, "default", "default", RequestTemplate(deadline=deadline))
    status = "done" if failure is None else "rejected"
    return Outcome(shot, 0.0, seconds, status, failure, int(failure is None), 0)  # type: ignore[arg-type]


def burst(*outcomes: Outcome, possible: int = 2, steps: int = 0, drawn: int = 0) -> Burst:
    return Burst(outcomes, possible, steps, drawn)


REFUSED = outcome(0.02, "deadline_unreachable")


def test_a_row_that_has_no_time_but_its_own_pays_all_of_each_step() -> None:
    row = Row(0.0, ALONE, 10, 2)
    assert least_seconds(row, COSTS) == pytest.approx(ALONE)
    assert least_seconds(Row(0.0, 0.99 * ALONE, 10, 2), COSTS) is None


def test_a_row_with_time_shares_what_is_fixed() -> None:
    row = Row(0.0, 2 * ALONE, 10, 2)  # its steps may take 16 ms: 6 units
    assert least_seconds(row, COSTS) == pytest.approx(10 * (2 * 0.002 + 0.004 / 3))


def test_a_batch_is_not_larger_than_it_may_be() -> None:
    row = Row(0.0, 1000.0, 10, 2)
    assert least_seconds(row, COSTS) == pytest.approx(10 * (2 * 0.002 + 0.004 / 16))


def test_rows_that_come_at_once_have_the_time_until_they_are_due() -> None:
    together = [Row(0.0, 2 * ALONE, 10, 2)] * 9
    assert most_in_time(together, COSTS) == 3
    assert most_in_time(together, Costs(0.004, 0.002, 2, 16)) == 6


def test_rows_that_come_one_after_another_are_all_possible() -> None:
    rows = [Row(k * ALONE, (k + 1.01) * ALONE, 10, 2) for k in range(5)]
    assert most_in_time(rows, COSTS) == 5
    assert most_in_time([], COSTS) == 0


def test_what_is_possible_grows_with_the_time_of_an_overload() -> None:
    rows = [Row(k / 500, k / 500 + 2 * ALONE, 10, 2) for k in range(500)]
    least = least_seconds(rows[0], COSTS)
    assert least is not None
    assert most_in_time(rows, COSTS) == int((499 / 500 + 2 * ALONE) / least)


def test_the_cores_have_more_to_do_than_steps() -> None:
    together = [Row(0.0, 2 * ALONE, 10, 2)] * 9
    least = least_seconds(together[0], COSTS)
    assert least is not None
    beside = Costs(0.004, 0.002, 1, 16, cores=1, picture=least)
    assert most_in_time(together, beside) == 1
    assert most_in_time(together, replace(beside, cores=2)) == 3  # as many as the denoiser can
    answers = replace(beside, picture=0.0, request=0.5 * 2 * ALONE / len(together))
    assert most_in_time(together, answers) == 1  # half of the core answers
    assert most_in_time(together, replace(answers, request=1.0)) == 0


def test_the_rate_is_that_of_the_scarcer_resource() -> None:
    steps = 20 * (0.004 / 16 + 2 * 0.002)
    assert full_rate(COSTS, 16) == pytest.approx(1 / steps)
    assert full_rate(replace(COSTS, cores=1, picture=steps), 16) == pytest.approx(0.5 / steps)


def test_attainment_is_of_what_was_possible() -> None:
    both = [burst(outcome(0.5), outcome(1.5), REFUSED), burst(outcome(0.9), REFUSED, possible=1)]
    assert attainment(both) == 0.6667
    assert attainment([]) is None


def test_a_late_refusal_breaks_a_promise() -> None:
    late = outcome(0.9, "deadline_unreachable")
    assert admitted_in_time([burst(outcome(0.5), REFUSED)]) == 1.0
    assert admitted_in_time([burst(outcome(0.5), REFUSED, late)]) == 0.5


def test_an_end_at_the_deadline_is_no_refusal() -> None:
    expired = outcome(1.0, "deadline_exceeded")
    assert burst(expired, REFUSED).refused == [0.02]
    assert admitted_in_time([burst(outcome(0.5), expired)]) == 0.5


def test_steps_of_rows_without_a_picture_are_wasted() -> None:
    assert wasted_share([burst(steps=60, drawn=50), burst(steps=40, drawn=40)]) == 0.1


def test_steps_are_counted_for_each_denoiser_that_lived_all_the_time() -> None:
    def steps(count: int, rows: int) -> Steps:
        return Steps(steps=count, row_steps=rows, seconds=0.1 * count)

    before = {("a", "toy"): steps(10, 10), ("b", "toy"): steps(5, 5)}
    after = {("a", "toy"): steps(20, 60), ("b", "toy"): steps(5, 5), ("c", "toy"): steps(9, 9)}
    assert [one.row_steps for one in taken_by_each(before, after)] == [50]
    assert taken(before, after).steps == 10


def test_the_table_has_a_line_for_each_burst_and_each_figure() -> None:
    one = burst(outcome(0.5), REFUSED, possible=1, steps=25, drawn=20)
    found = summary({"http": [one], "nats": [one], "disturbed": [one]}) | {"light_p95_ratio": 1.2}
    json.dumps(found)
    assert found["request_batching_over_possible"] is None
    lines = table(found)
    assert lines[1] == ["http", 2, 1, 1, 20.0, "5/25"]
    assert ["wasted_share", 0.2] in lines


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--rounds", "x"]])
def test_options_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(wrong)
