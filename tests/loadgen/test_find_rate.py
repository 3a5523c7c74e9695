"""The search, against curves that are known: exact ones, noisy ones, and simulated queues."""

import math
from random import Random

import pytest

from loadgen.report.statistics.slo import Absolute, OwnDeadlines
from loadgen.runs.find_rate import (
    MAX_TRIALS,
    Found,
    Search,
    Trial,
    decide,
    find_rate,
    found,
    pooled,
)
from loadgen.runs.run import Interrupted
from loadgen.runs.trial import MIN_REQUESTS, Trials, at_rate
from loadgen.workload.arrivals import Constant, Poisson, Ramp
from loadgen.workload.workload import Workload
from shared.errors import InvalidRequest
from tests.loadgen.servers import Server
from tests.loadgen.virtual_time import run_virtually


def searched(share_at, search: Search, of: int = 1000) -> Found:  # type: ignore[no-untyped-def]
    async def trial(rate: float) -> Trial:
        return Trial(rate=rate, met=round(of * share_at(rate)), of=of)

    return run_virtually(find_rate(trial, search))


@pytest.mark.parametrize("start", [0.01, 1.0, 7.3, 500.0])
@pytest.mark.parametrize("limit", [0.3, 7.0, 90.0])
def test_a_sharp_limit_is_found_from_anywhere_within_the_precision(
    start: float, limit: float
) -> None:
    result = searched(lambda rate: 1.0 if rate <= limit else 0.0, Search(start=start))
    assert limit / 1.05 <= result.rate <= limit
    assert result.low == result.rate
    assert result.high is not None
    assert limit < result.high <= 1.05 * result.rate
    # Doubling and then halving the gap: logarithmic in how far away and how fine.
    assert len(result.trials) <= 8 + abs(math.log2(limit / start))


def test_an_unclear_answer_is_asked_again_and_counts_add_up() -> None:
    search = Search(start=1.0, repeats=3)
    once = [Trial(rate=1.0, met=90, of=100)]
    assert decide(once, search) == 1.0
    assert decide(once * 2, search) == 1.0
    assert decide(once * 3, search) == 2.0  # as many as allowed; 90% is enough
    [level] = pooled(once * 3)
    assert (level.met, level.of, level.trials) == (270, 300, 3)
    assert level.low < 0.9 < level.high


def test_a_clear_answer_is_not_asked_again() -> None:
    assert decide([Trial(rate=1.0, met=100, of=100)], Search()) == 2.0
    assert decide([Trial(rate=1.0, met=10, of=100)], Search()) == 0.5


def test_few_requests_never_make_a_rate_surely_good() -> None:
    result = searched(lambda rate: float(rate <= 4), Search(start=1.0), of=10)
    assert result.rate <= 4
    assert result.low == 0.0  # 30 of 30 do not show 90% with 95% confidence


def test_a_server_that_is_never_good_enough_ends_the_search_at_zero() -> None:
    result = searched(lambda rate: 0.5, Search(start=1.0, lowest=0.25))
    assert (result.rate, result.low, result.high) == (0.0, 0.0, 0.25)
    assert min(level.rate for level in result.levels) == 0.25


def test_a_server_that_is_always_good_enough_ends_it_at_the_highest() -> None:
    result = searched(lambda rate: 1.0, Search(start=1.0, highest=50.0))
    assert (result.rate, result.high) == (50.0, None)


def test_a_lucky_rate_above_one_that_failed_is_not_believed() -> None:
    trials = [
        Trial(rate=1.0, met=100, of=100),
        Trial(rate=2.0, met=50, of=100),
        Trial(rate=4.0, met=100, of=100),
    ]
    result = found(pooled(trials), trials, Search())
    assert (result.rate, result.low, result.high) == (1.0, 1.0, 2.0)


def test_a_trial_without_requests_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="trial"):
        decide([Trial(rate=1.0, met=0, of=0)], Search())


def test_a_search_is_bounded_however_the_answers_fall() -> None:
    random = Random(3)
    result = searched(lambda rate: random.uniform(0.8, 1.0), Search(start=1.0, precision=1e-9), 50)
    assert len(result.trials) <= MAX_TRIALS


def test_the_interval_of_a_noisy_search_nearly_always_holds_the_true_rate() -> None:
    """A share that falls from 1 to 0 around rate 10, where it is 90%; counts are binomial."""

    def share(rate: float) -> float:
        return 1 / (1 + math.exp(4 * (rate - 10) - math.log(9)))

    held = close = 0
    for seed in range(100):
        random = Random(seed)

        async def trial(rate: float, random: Random = random) -> Trial:
            met = sum(random.random() < share(rate) for _ in range(300))
            return Trial(rate=rate, met=met, of=300)

        result = run_virtually(find_rate(trial, Search(start=1.0)))
        assert result.high is not None
        held += result.low <= 10 <= result.high
        close += abs(result.rate - 10) < 0.5
    assert held >= 88  # several looks at 95% each
    assert close >= 95


def test_the_limit_of_a_single_server_with_constant_service_is_that_of_theory() -> None:
    """Evenly spaced requests of 1 s each: a rate of 1 is kept forever, more makes a queue."""
    workload = Workload(arrivals=Constant(rate=1.0), seconds=200.0)
    trials = Trials(workload, Server(seconds=1.0), Absolute(2.0))
    result = run_virtually(find_rate(trials, Search(start=0.3, precision=0.02)))
    # In 200 s the queue of rate r grows to 200 (r - 1) requests; in time is who waits below 1 s.
    assert 0.98 <= result.rate <= 1.03


def test_poisson_arrivals_at_one_server_meet_the_deadline_that_theory_gives() -> None:
    """M/D/1 with service time 1 and deadline 2: who waits at most 1 is in time, a share of
    (1 - r) e^r of all at rate r (Erlang 1909)."""
    expected = _root(lambda r: (1 - r) * math.exp(r) - 0.9)
    workload = Workload(arrivals=Poisson(rate=1.0), seconds=2_000.0)
    trials = Trials(workload, Server(seconds=1.0), Absolute(2.0))
    result = run_virtually(find_rate(trials, Search(start=0.1, precision=0.1)))
    assert result.rate == pytest.approx(expected, rel=0.12)
    assert result.low <= expected * 1.05


def _root(falls) -> float:  # type: ignore[no-untyped-def]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return low


def test_trials_have_seeds_of_their_own_and_enough_requests() -> None:
    workload = Workload(seconds=2.0, seed=5)
    slow = at_rate(workload, 0.1, seed=6)
    assert slow.seconds == MIN_REQUESTS / 0.1
    assert at_rate(workload, 100.0, seed=6).seconds == 2.0
    assert (slow.seed, slow.arrivals) == (6, Poisson(rate=0.1))
    with pytest.raises(InvalidRequest, match="ramp"):
        at_rate(Workload(arrivals=Ramp(start=1, end=2)), 1.0, 0)


def test_a_trial_cuts_off_what_has_missed_its_deadline_and_waits_for_a_quiet_server() -> None:
    async def scenario() -> tuple[Trial, Trial, Server]:
        server = Server(seconds=1.0)
        trials = Trials(
            Workload(arrivals=Constant(rate=1.0), seconds=10.0),
            server,
            Absolute(2.0),
            solo={"default": 1.0},
        )
        return await trials(10.0), await trials(0.5), server

    busy, calm, server = run_virtually(scenario())
    assert (busy.rate, busy.of) == (10.0, 100)
    assert busy.met < 10
    assert len(server.given_up) >= 80
    assert (calm.met, calm.of) == (20, 20)  # nothing of the first is left in its way


def test_requests_without_a_deadline_cannot_be_searched_with() -> None:
    trials = Trials(Workload(), Server(seconds=1.0), OwnDeadlines())
    with pytest.raises(InvalidRequest, match="slo"):
        run_virtually(trials(1.0))


def test_a_stopped_trial_does_not_count() -> None:
    async def scenario() -> Trials:
        trials = Trials(Workload(seconds=30.0), Server(seconds=1.0), Absolute(2.0))
        trials.stop.set()
        with pytest.raises(Interrupted):
            await trials(1.0)
        return trials

    assert run_virtually(scenario()).all == []
