"""Who is released, who waits, and who is refused."""

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared.policy.release.decide import LENIENCE, UNHEARD, release
from shared.policy.release.jobs import Shares, Stage, WaitingJob
from shared.policy.release.load import Load, ProcessLoad, RowInHand
from shared.policy.release.plan import Margin
from shared.policy.release.pools import FADED, FADING
from shared.policy.release.rules import Bounds, Rules
from shared.policy.release.shares import PATIENCE, FairOrder
from tests.shared.policy.release.fleet import (
    COST,
    DENOISE,
    EXACT,
    SHAPE,
    WORK,
    Fleet,
    Linear,
    job,
)

SOLO = 10 * COST.predict(WORK)
"""Seconds of a job of 10 steps that has a process to itself."""


def idle(processes: int = 1, max_rows: int = 4) -> Load:
    return Load(
        [ProcessLoad(f"d{k}", DENOISE, COST, 0.0, max_rows=max_rows) for k in range(processes)]
    )


def test_a_job_that_can_be_in_time_is_promised_so_and_released_at_once() -> None:
    found = release([job("a", deadline=SOLO)], idle(), 0.0, rules=EXACT)
    assert (found.released, found.refused) == (("a",), ())
    assert found.admitted == {"a": SOLO}


def test_a_job_that_cannot_be_in_time_is_refused_with_the_seconds_that_it_would_take() -> None:
    found = release([job("a", deadline=SOLO - 0.01)], idle(), 0.0, rules=EXACT)
    assert found.released == ()
    (refusal,) = found.refused
    assert (refusal.job_id, refusal.reason) == ("a", "deadline_unreachable")
    assert refusal.seconds == pytest.approx(SOLO)


def test_what_precedes_and_follows_the_steps_counts() -> None:
    encode, decode = Stage(("encode", "m"), WORK), Stage(("decode", "m"), WORK)
    others = [
        ProcessLoad("e", ("encode", "m"), Linear(0.0, 0.2), 0.0, seconds=0.1),
        ProcessLoad("v", ("decode", "m"), Linear(0.0, 0.3), 0.0),
    ]
    load = Load([*idle().processes, *others])
    wanted = job("a", deadline=SOLO + 0.61, before=(encode,), after=(decode,))
    assert release([wanted], load, 0.0, rules=EXACT).released == ("a",)
    wanted = replace(wanted, deadline=SOLO + 0.59)
    (refusal,) = release([wanted], load, 0.0, rules=EXACT).refused
    assert refusal.seconds == pytest.approx(SOLO + 0.6)


def test_more_decoding_than_can_be_done_in_time_is_not_promised() -> None:
    decode = Stage(("decode", "m"), WORK)
    load = Load([*idle(8).processes, ProcessLoad("v", ("decode", "m"), Linear(0.0, 0.5), 0.0)])
    jobs = [job(str(k), deadline=2.0, after=(decode,)) for k in range(8)]
    found = release(jobs, load, 0.0, rules=EXACT)
    assert (len(found.released), len(found.refused)) == (4, 4)


def test_a_newcomer_that_would_make_a_promised_row_late_is_refused() -> None:
    present = RowInHand(10, WORK, SHAPE, due=SOLO + 0.05)
    one = replace(idle().processes[0], rows=[present], seconds=SOLO, count=1)
    newcomer = job("a", deadline=SOLO + 0.5)  # beside the other it would take 0.8 s
    assert release([newcomer], Load([one]), 0.0, rules=EXACT).released == ()
    easy = replace(present, due=SOLO + 0.1)
    one = replace(one, rows=[easy])
    assert release([newcomer], Load([one]), 0.0, rules=EXACT).released == ("a",)


def test_a_newcomer_may_begin_when_others_have_left() -> None:
    present = RowInHand(10, WORK, SHAPE, due=SOLO + 0.05)
    one = replace(idle().processes[0], rows=[present], seconds=SOLO, count=1)
    found = release([job("a", deadline=3 * SOLO)], Load([one]), 0.0, rules=EXACT)
    assert (found.released, found.refused) == ((), ())
    assert found.admitted == {"a": 3 * SOLO}
    assert found.predicted["a"].position == 1
    assert SOLO < (found.predicted["a"].seconds or 0.0) <= 3 * SOLO


def test_uncertain_predictions_promise_less() -> None:
    unsure = replace(idle().processes[0], cost=replace(COST, doubt=0.2))
    rules = Rules(margin=Margin(seconds=0.0))
    assert release([job("a", deadline=1.19 * SOLO)], Load([unsure]), 0.0, rules=rules).refused
    assert release([job("a", deadline=1.21 * SOLO)], Load([unsure]), 0.0, rules=rules).released


def test_a_process_that_takes_itself_to_be_slow_keeps_nobody_out_of_the_others() -> None:
    """Idle as it is, it would never learn better."""
    slow = replace(idle().processes[0], process="slow", cost=Linear(0.6, 0.1, doubt=1.0))
    encoder = ProcessLoad("e", ("encode", "m"), Linear(0.01, 0.0), 0.0)
    wanted = job("a", deadline=1.2 * SOLO, before=(Stage(("encode", "m"), WORK),))
    for quick in (idle().processes[0], replace(idle().processes[0], process="a")):
        found = release([wanted], Load([slow, quick, encoder]), 0.0, rules=EXACT)
        assert (found.released, found.refused) == (("a",), ())


def test_what_is_on_its_way_and_what_others_promised_counts() -> None:
    other = job("b", deadline=SOLO + 0.05, promised=SOLO + 0.05, admitted=True)
    newcomer = job("a", deadline=1.5 * SOLO)
    for load in (replace(idle(), coming=[other]), replace(idle(), elsewhere=[other])):
        found = release([newcomer], load, 0.0, rules=EXACT)
        assert (found.released, len(found.refused)) == ((), 1)
        assert "b" not in (*found.released, *found.predicted)


def test_a_promised_job_that_cannot_be_in_time_any_more_is_refused_before_it_costs_anything() -> (
    None
):
    late = job("a", deadline=SOLO, promised=SOLO, admitted=True)
    found = release([late], idle(), 0.2, rules=EXACT)
    assert [each.reason for each in found.refused] == ["deadline_unreachable"]
    found = release([late], idle(), SOLO, rules=EXACT)
    assert [each.reason for each in found.refused] == ["deadline_exceeded"]


def test_while_nobody_says_how_long_steps_take_nobody_is_refused_for_it() -> None:
    jobs = [job(f"{k:03}", deadline=0.01) for k in range(UNHEARD + 5)]
    for load in (Load(), Load([replace(idle().processes[0], cost=replace(COST, known=False))])):
        found = release(jobs, load, 0.0, rules=EXACT)
        assert (len(found.released), len(found.predicted)) == (UNHEARD, 5)
        assert all(each.seconds is None for each in found.predicted.values())


def test_jobs_without_a_deadline_are_released_when_there_is_room_and_wait_otherwise() -> None:
    found = release([job(str(k)) for k in range(7)], idle(), 0.0, rules=EXACT)
    assert found.released == ("0", "1", "2")  # of four places one is for those with deadlines
    assert [found.predicted[str(k)].position for k in (3, 4, 5, 6)] == [1, 2, 3, 4]
    seconds = [found.predicted[str(k)].seconds or 0.0 for k in (3, 4, 5, 6)]
    assert seconds == sorted(seconds)


def test_the_better_class_goes_first_until_another_has_waited_for_long() -> None:
    jobs = [
        job("batch", 0.0, service_class="batch"),
        job("standard", 1.0),
        job("interactive", 2.0, service_class="interactive", steps=50),
    ]
    one = idle(max_rows=1)
    assert release(jobs, one, 2.0, rules=EXACT).released == ("interactive",)
    assert release(jobs[:2], one, 2.0, rules=EXACT).released == ("standard",)
    jobs[0] = replace(jobs[0], arrival=-3 * PATIENCE)
    assert release(jobs, one, 2.0, rules=EXACT).released == ("batch",)


def test_the_backlog_is_bounded_in_number_and_bytes_in_total_and_for_each_user() -> None:
    full = replace(idle().processes[0], count=4, seconds=100.0)
    jobs = [job(str(k), k, user=str(k % 2), size=10, admitted=k < 3) for k in range(8)]
    for bounds, name in (
        (Bounds(jobs=5), "jobs"),
        (Bounds(bytes=50), "bytes"),
        (Bounds(user_jobs=2), "jobs of one user"),
        (Bounds(user_bytes=20), "bytes of one user"),
    ):
        found = release(jobs, Load([full]), 8.0, rules=replace(EXACT, bounds=bounds))
        assert {each.bound and each.bound[0] for each in found.refused} == {name}
        assert len(found.predicted) in (4, 5)
        assert {"0", "1", "2"} <= set(found.predicted)


def test_it_depends_on_nothing_but_what_it_is_given() -> None:
    jobs = [
        job(str(k), 0.1 * k, user=str(k % 3), deadline=None if k % 2 else 2.0 + k / 10)
        for k in range(30)
    ]
    first = release(jobs, idle(2), 3.0, rules=EXACT)
    assert release(list(reversed(jobs)), idle(2), 3.0, rules=EXACT) == first


class Draw:
    """Random jobs."""

    steps = st.integers(1, 20)

    @staticmethod
    @st.composite
    def jobs(draw: st.DrawFn, most: int = 40) -> list[WaitingJob]:
        found, now = [], 0.0
        for k in range(draw(st.integers(1, most))):
            now += draw(st.floats(0.0, 0.5))
            steps = draw(Draw.steps)
            factor = draw(st.sampled_from((None, 1.0, 1.5, 2.0, 3.0, 10.0)))
            deadline = factor and now + factor * steps * COST.predict(WORK)
            name, user = f"{k:02}", draw(st.sampled_from("ab"))
            rows = draw(st.sampled_from((1, 1, 1, 2)))
            found.append(job(name, now, steps, deadline, user, rows=rows))
        return found


@given(Draw.jobs(), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_what_was_promised_is_kept_and_everybody_ends(
    jobs: list[WaitingJob], processes: int, max_rows: int
) -> None:
    fleet = Fleet(processes, max_rows=max_rows).run(jobs)
    promised = [name for name, due in fleet.admitted.items() if due is not None]
    assert len(fleet.late()) <= max(1.0, 0.05 * len(promised))
    assert {*fleet.finished, *fleet.refused} == {each.job_id for each in jobs}
    assert not {*fleet.finished} & {*fleet.refused}


def test_what_is_cancelled_in_the_backlog_takes_no_step() -> None:
    jobs = [job(str(k), steps=20) for k in range(8)]
    fleet = Fleet(1, cancelled=[(0.5, "6"), (0.5, "7")]).run(jobs)
    assert {*fleet.finished} == {str(k) for k in range(6)}
    assert not {"6", "7"} & {*fleet.steps_taken}


def test_what_is_refused_takes_no_step() -> None:
    jobs = [job(str(k), 0.01 * k, 10, 0.01 * k + 2 * SOLO) for k in range(60)]
    fleet = Fleet(2).run(jobs)
    assert fleet.refused
    assert not {*fleet.refused} & {*fleet.steps_taken}


def test_a_job_without_a_deadline_ends_beside_an_endless_stream_of_jobs_with_one() -> None:
    stream = [job(f"d{k}", 0.2 * k, 10, 0.2 * k + 2 * SOLO, "many") for k in range(400)]
    fleet = Fleet(1).run([*stream, *(job(f"u{k}", 1.0, 10, user="few") for k in range(4))])
    assert fleet.kept() >= 0.95
    assert max(fleet.finished[f"u{k}"] for k in range(4)) < 4 * PATIENCE


def test_users_get_shares_by_their_weights() -> None:
    jobs = [job(f"{user}{k:03}", user=user) for user in "ab" for k in range(60)]
    rules = replace(EXACT, weights={"a": 3.0})
    fleet = Fleet(1, policy=lambda jobs, load, now, had: release(jobs, load, now, had, rules))
    fleet.run(jobs, until=15.0)
    ended = [name[0] for name in fleet.finished]
    assert 0.7 < ended.count("a") / len(ended) < 0.8


def test_a_light_user_does_not_wait_for_a_heavy_one() -> None:
    heavy = [job(f"h{k:03}", steps=20, user="heavy") for k in range(60)]
    light = [job(f"l{k}", 5.0 + k, user="light") for k in range(5)]
    fleet = Fleet(1).run([*heavy, *light])
    assert max(fleet.finished[each.job_id] - each.arrival for each in light) < 1.6 * SOLO
    assert max(fleet.finished.values()) > 25.0


def test_a_user_with_one_job_at_a_time_never_waits_for_one_with_many() -> None:
    """Where company saves nothing, so that the light user has a third of all that is done."""
    heavy = [job(f"h{k:02}", steps=50, user="heavy") for k in range(60)]
    light = [job(f"l{k:02}", 1.0 + 1.4 * SOLO * k, user="light") for k in range(60)]
    fleet = Fleet(2, Linear(0.0, 0.07)).run([*heavy, *light], until=70.0)
    assert not {each.job_id for each in heavy} <= {*fleet.finished}
    # A step of four rows may be running, and one of four more is taken if there is time for it.
    assert max(fleet.finished[each.job_id] - each.arrival for each in light) < 1.8 * SOLO


def test_who_asks_for_less_than_others_have_asks_for_little() -> None:
    def little(used: dict[str, float], wanted: dict[str, float], **weights: float) -> set[str]:
        return FairOrder(Shares(used=used), 0.0, weights).asking_little(wanted)

    assert little({"h": 60.0, "l": 30.0}, {"h": 100.0, "l": 1.0}) == {"l"}
    assert little({"h": 60.0, "l": 30.0}, {"h": 100.0, "l": 100.0}) == set()
    assert little({"h": 60.0, "l": 30.0}, {"h": 100.0, "l": 1.0}, h=2.0) == set()
    assert little({"h": 60.0}, {"h": 1.0, "new": 40.0}) == set()
    assert little({"gone": 60.0}, {"new": 1.0}) == set()
    assert little({"h": 60.0}, {"h": 1.0, "new": 1.0}) == {"new"}
    assert little({}, {"a": 1.0, "b": 9.0}) == set()
    assert little({"a": 9.0}, {"a": 1.0}) == set()
    equals = {f"u{k}": 5.0 + 0.1 * k for k in range(16)}
    assert little(equals, dict.fromkeys(equals, 0.6)) == set()


def test_a_job_of_a_user_who_had_little_is_promised_a_time_though_there_is_no_room() -> None:
    rows = [RowInHand(40, WORK, SHAPE) for _ in range(3)]
    full = Load([replace(idle().processes[0], rows=rows, count=3, seconds=4.0)])
    had = Shares(used={"heavy": 50.0})
    jobs = [job("h", user="heavy"), job("l", user="light")]
    found = release(jobs, full, 0.0, had, EXACT)
    assert found.released == ("l",)
    assert found.admitted == {
        "h": None,
        "l": pytest.approx(LENIENCE * (SOLO + 0.09)),
    }  # behind a step
    assert release(jobs, full, 0.0, Shares(), EXACT).released == ()


def test_promised_rows_find_places_beside_those_that_fill_a_process() -> None:
    rows = [RowInHand(40, WORK, SHAPE) for _ in range(4)]
    load = [replace(idle().processes[0], rows=rows, count=4, seconds=4.0)]
    wanted = job("a", deadline=2 * SOLO)
    assert release([wanted], Load(load), 0.0, rules=EXACT).released == ()
    load[0] = replace(load[0], rows=rows[:3], count=3)
    assert release([wanted], Load(load), 0.0, rules=EXACT).released == ("a",)


def test_who_promises_everything_to_one_user_leaves_room_for_others() -> None:
    """Of jobs that all have deadlines; the light user has been there before."""
    heavy = [job(f"h{k:04}", 0.05 * k, 10, 0.05 * k + 2 * SOLO, "heavy") for k in range(200)]
    light = [job(f"l{k}", 0.5 + k, 10, 0.5 + k + 2 * SOLO, "light") for k in range(9)]
    fleet = Fleet(2).run([*heavy, *light])
    assert fleet.kept() >= 0.95
    assert len([name for name in fleet.finished if name[0] == "l"]) >= 7
    assert len([name for name in fleet.finished if name[0] == "h"]) >= 35


def test_planners_that_tell_each_other_promise_no_more_than_one() -> None:
    """What one promises and has not released, the next one is told."""
    promised: list[WaitingJob] = []
    refused = 0
    for k in range(12):
        newcomer = job(str(k), deadline=2 * SOLO)
        load = replace(idle(), elsewhere=promised)
        found = release([newcomer], load, 0.0, Shares(), EXACT)
        refused += len(found.refused)
        if found.admitted:
            promised.append(replace(newcomer, admitted=True, promised=newcomer.deadline))
    jobs = [job(str(k), deadline=2 * SOLO) for k in range(12)]
    together = release(jobs, idle(), 0.0, rules=EXACT)
    assert len(promised) == 12 - refused
    assert abs(len(promised) - len(together.admitted)) <= 1


def rested(seconds: float, processes: int = 1) -> Load:
    """Processes that have had nothing to do for so long at 0."""
    return Load([replace(one, idle_since=-seconds) for one in idle(processes).processes])


def test_an_idle_process_tries_what_it_may_have_become_quick_enough_for() -> None:
    newcomer = job("a", deadline=0.5 * SOLO)
    assert release([newcomer], rested(0.0), 0.0, rules=EXACT).refused
    found = release([newcomer], rested(2.0 * FADING), 0.0, rules=EXACT)
    assert (found.released, found.refused) == (("a",), ())
    assert found.admitted == {"a": 0.5 * SOLO}


def test_what_no_process_was_ever_quick_enough_for_is_not_tried() -> None:
    newcomer = job("a", deadline=SOLO / (FADED + 1.0))
    assert release([newcomer], rested(1e6), 0.0, rules=EXACT).refused


def test_a_process_tries_one_job_and_a_busy_one_none() -> None:
    jobs = [job(name, deadline=0.5 * SOLO) for name in "abc"]
    found = release(jobs, rested(60.0, processes=2), 0.0, rules=EXACT)
    assert (found.released, [one.job_id for one in found.refused]) == (("a", "b"), ["c"])
    on_its_way = replace(rested(60.0), coming=[replace(jobs[0], promised=jobs[0].deadline)])
    assert release(jobs[1:], on_its_way, 0.0, rules=EXACT).released == ()
    present = RowInHand(10, WORK, SHAPE, due=SOLO)
    busy = replace(rested(60.0).processes[0], rows=[present], count=1, idle_since=None)
    assert release(jobs[:1], Load([busy]), 0.0, rules=EXACT).refused


def test_what_is_tried_has_all_its_rows_in_one_process() -> None:
    found = release([job("a", deadline=0.6 * SOLO, rows=3)], rested(60.0, 2), 0.0, rules=EXACT)
    assert found.released == ("a",)
    found = release([job("a", deadline=0.6 * SOLO, rows=5)], rested(60.0, 2), 0.0, rules=EXACT)
    assert found.refused
