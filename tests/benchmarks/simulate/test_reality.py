"""What is said of the simulator against a fleet; no fleet is run here."""

from benchmarks.simulate.reality import compared, summary
from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot


def outcome(number: int, seconds: float, done: bool = True) -> Outcome:
    shot = Shot(number, 0.0, "user", "alike", RequestTemplate(deadline=1.0))
    return Outcome(shot, 0.0, seconds, "done" if done else "rejected", None, int(done), 0)


def test_latencies_of_requests_with_a_picture_are_compared_and_how_many_were_in_time() -> None:
    measured = [outcome(n, 0.5) for n in range(9)] + [outcome(9, 2.0), outcome(10, 0.01, False)]
    predicted = [outcome(n, 0.6) for n in range(8)] + [outcome(n, 0.0, False) for n in (8, 9, 10)]
    found = compared(measured, predicted)
    assert (found["measured_p50"], found["predicted_p50"], found["p50"]) == (0.5, 0.6, 1.2)
    assert found["p95"] < 1.0
    assert (found["measured_in_time"], found["predicted_in_time"]) == (9, 8)


def test_nothing_is_compared_where_nobody_has_a_picture() -> None:
    found = compared([outcome(0, 1.0, False)], [outcome(0, 1.0)])
    assert "p50" not in found
    assert found["in_time"] is None


def test_the_setting_that_is_predicted_worst_counts() -> None:
    rounds = [
        {"serving": {"p50": 1.1, "p95": a}, "overload": {"p50": 1.0, "p95": b, "in_time": 0.9}}
        for a, b in ((1.0, 0.5), (1.2, 0.7), (1.4, 0.6))
    ]
    found = summary(rounds)
    assert found["predicted_over_measured_p95_serving"] == 1.2
    assert found["predicted_over_measured_p95"] == 0.6
    assert found["predicted_over_measured_p50"] == 1.1
    assert found["predicted_over_measured_in_time"] == 0.9
