"""Which rates are tried, what fits into a budget, and what a run keeps; nothing is measured."""

import argparse
import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.baselines.batching import Policy
from benchmarks.baselines.tuning import Saturated, Tried, best, table
from benchmarks.serving.agenda import LEAST_SHARE, Phase, agenda, rounds_that_fit, share_that_fits
from benchmarks.serving.phases import Run
from benchmarks.serving.plan import FULL
from benchmarks.serving.search import Next, Search, bracket, fitted, next_trial
from benchmarks.serving.settings import Settings, add_arguments, settings_of
from benchmarks.serving.systems import System
from loadgen.report.statistics.slo import TimesSolo
from loadgen.runs.find_rate import Trial, pooled
from tests.benchmarks.serving.test_measure import contender
from tests.conftest import run

SEARCH = Search(start=1.0, growth=2.0, coarse=20, fine=60, precision=0.1)
NAMES = ["request_batching", "serial", "darkroom"]


def trials(*found: tuple[float, int, int]) -> list[Trial]:
    return [Trial(rate=rate, met=met, of=of) for rate, met, of in found]


def test_the_rate_grows_until_one_fails_and_falls_until_one_passes() -> None:
    assert next_trial([], SEARCH) == Next(1.0, 20)
    assert next_trial(trials((1.0, 20, 20)), SEARCH) == Next(2.0, 20)
    assert next_trial(trials((1.0, 2, 20)), SEARCH) == Next(0.5, 20)


def test_between_a_rate_that_passes_and_one_that_fails_trials_are_long() -> None:
    assert next_trial(trials((1.0, 20, 20), (4.0, 0, 20)), SEARCH) == Next(2.0, 60)


def test_a_trial_lasts_long_enough_for_a_queue_to_grow() -> None:
    assert Search(seconds=10.0, coarse=20).coarsely(50.0) == Next(50.0, 500)
    assert Search(seconds=10.0, coarse=20).coarsely(0.5) == Next(0.5, 20)


def test_a_rate_that_failed_narrowly_is_tried_again_for_longer() -> None:
    assert next_trial(trials((1.0, 20, 20), (2.0, 17, 20)), SEARCH) == Next(2.0, 60)


def test_a_rate_that_failed_by_bad_luck_is_not_excluded_by_it() -> None:
    unlucky = trials((1.0, 17, 20), (1.5, 60, 60))
    good, bad = bracket(pooled(unlucky), 0.9)
    assert good is not None
    assert (good.rate, bad) == (1.5, None)


def test_a_rate_that_passed_by_good_luck_does_not_outweigh_one_that_surely_fails() -> None:
    lucky = trials((1.0, 60, 60), (2.0, 30, 60), (3.0, 10, 10))
    good, bad = bracket(pooled(lucky), 0.9)
    assert good is not None
    assert bad is not None
    assert (good.rate, bad.rate) == (1.0, 2.0)


def test_the_share_in_time_never_rises_with_the_rate() -> None:
    levels = pooled(trials((1.0, 9, 10), (2.0, 10, 10), (3.0, 5, 10), (4.0, 7, 20)))
    assert fitted(levels) == [0.95, 0.95, 0.5, 0.35]


def test_the_search_ends_when_both_ends_of_a_narrow_gap_are_sure() -> None:
    assert next_trial(trials((1.0, 99, 100), (1.05, 50, 100)), SEARCH) is None
    assert next_trial(trials((1.0, 93, 100), (1.05, 50, 100)), SEARCH) == Next(1.0, 60)


def test_rates_are_searched_first_and_every_other_round_goes_backwards() -> None:
    phases = agenda(NAMES, 2)
    assert [phase.system for phase in phases[:3]] == NAMES
    assert {phase.kind for phase in phases[:3]} == {"search"}
    assert [phase.system for phase in phases[14:17]] == NAMES[::-1]
    assert Phase(0, "darkroom", "common") not in phases  # its own load is the common one
    assert len(phases) == 28


def test_everything_is_shortened_alike_until_it_fits() -> None:
    phases = agenda(NAMES, 2)
    assert share_that_fits(phases, FULL, 1e6) == 1.0
    share = share_that_fits(phases, FULL, 1200.0)
    assert LEAST_SHARE < share < 1.0
    assert share_that_fits(phases, FULL.times(share), 1200.0) == pytest.approx(1.0)


def test_a_round_that_would_be_too_short_is_left_out() -> None:
    assert rounds_that_fit(NAMES, 3, FULL, 1e6) == 3
    assert rounds_that_fit(NAMES, 2, FULL, 500.0) == 1
    assert rounds_that_fit(NAMES, 2, FULL, 1.0) == 1


def test_the_options_say_how_much_is_measured() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    default = settings_of(parser.parse_args([]))
    assert (default.budget, default.rounds, default.deadlines) == (1500.0, 2, True)
    assert (default.denoisers, default.eager) == (None, False)
    given = ["--budget-seconds", "60", "--rounds", "3", "--denoisers", "1", "--no-deadlines"]
    told = settings_of(parser.parse_args([*given, "--eager-baselines", "--out", "there.json"]))
    assert told == Settings(60.0, 3, 1, False, True, Path("there.json"))


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--budget-seconds", "-1"]])
def test_options_that_make_no_sense_are_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(wrong)
    assert wrong[0] in capsys.readouterr().err


class Stalled(Run):
    """Its second measurement never ends."""

    async def _measure(self, phase: Phase, contender: object) -> None:
        if phase.system != NAMES[0]:
            await asyncio.Event().wait()


def test_what_was_measured_is_in_the_file_when_the_budget_ends(tmp_path: Path) -> None:
    out = tmp_path / "found.json"

    async def check() -> dict[str, object]:
        ends_at = asyncio.get_running_loop().time() + 0.1
        settings = Settings(0.1, 1, 2, True, False, out)
        contenders = []
        for name in NAMES:
            one = contender()
            one.system = System(name, "", "", lambda: [])
            contenders.append(one)
        stalled = Stalled(contenders, TimesSolo(2.0, {}), FULL, settings, 1, ends_at)
        await stalled.all(1)
        return stalled.results(complete=True)

    found = run(check())
    assert found["complete"] is False
    assert found["left_out"] == ["everything after the budget's end"]
    kept = json.loads(out.read_text())
    assert kept["complete"] is False
    assert set(kept["systems"]) == set(NAMES)


def tried(most: int, window: float, throughput: float, latency: float) -> Tried:
    return Tried(Policy(most, window), Saturated(throughput, 0.4, 3.0), 1.0, latency, 2 * latency)


def test_of_policies_that_carry_as_much_the_quickest_is_best() -> None:
    found = [tried(4, 0.0, 2.0, 0.1), tried(8, 0.0, 2.9, 0.6), tried(8, 0.02, 3.0, 0.7)]
    assert best(found).policy == Policy(8, 0.0)
    assert len(table(found).splitlines()) == 2 + len(found)
