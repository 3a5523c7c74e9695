"""How long requests took under load, from what became of them. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from benchmarks.harness.numbers import percentile
from benchmarks.serving.results import Load
from loadgen.outcomes.outcome import Outcome
from loadgen.report.statistics.slo import Slo, deadline_of
from loadgen.report.statistics.summary import meets

BOUND_FROM: Final = 0.05
"""If more requests than this share had no picture, they reach into the p95."""


def load_of(rate: float, outcomes: Sequence[Outcome], slo: Slo) -> Load:
    """A request that failed counts as if it had come at its deadline, or when it was given up if
    that was later: to fail quickly is not to be fast."""
    latencies = [_latency(outcome, slo) for outcome in outcomes]
    unfinished = sum(outcome.status != "done" for outcome in outcomes)
    return Load(
        rate=rate,
        requests=len(outcomes),
        met=sum(meets(slo, outcome) is True for outcome in outcomes),
        unfinished=unfinished,
        failures=by_name(outcomes),
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
        p95_is_bound=unfinished > BOUND_FROM * len(outcomes),
    )


def by_name(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many requests failed, by the name of their failure."""
    return dict(Counter(str(o.failure) for o in outcomes if o.status != "done"))


def _latency(outcome: Outcome, slo: Slo) -> float:
    if outcome.status == "done":
        return outcome.latency
    return max(outcome.latency, deadline_of(slo, outcome.shot) or 0.0)
