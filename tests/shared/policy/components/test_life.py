"""A component's life: every transition, and what a process does next, in every state."""

from itertools import product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.messages.components import State
from shared.policy.components.life import (
    HOLDING,
    LAST_RETRY,
    TRANSITIONS,
    Event,
    Life,
    decide,
    load_seconds,
    retry_seconds,
    wanted_of,
)

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)


def test_the_life_of_a_component_that_comes_and_goes() -> None:
    seen: list[State] = []
    life = Life()
    for event in ("load", "loaded", "drain", "drained"):
        life = life.after(event)
        seen.append(life.state)
    assert seen == ["loading", "loaded", "draining", "on disk"]
    assert life == Life()


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_what_cannot_happen_in_a_state_is_an_error(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert Life(state).after(event).state == TRANSITIONS[state][event]
    else:
        with pytest.raises(KeyError):
            Life(state).after(event)


def test_every_state_can_be_reached_and_left() -> None:
    assert TRANSITIONS.keys() == set(STATES)
    assert {to for each in TRANSITIONS.values() for to in each.values()} == set(STATES)


def test_a_failure_is_remembered_until_it_loads() -> None:
    failed = Life("loading").after("failed", "no file", now=100.0)
    assert (failed.failures, failed.reason, failed.retry_at) == (1, "no file", 101.0)
    again = failed.after("load")
    assert (again.state, again.failures, again.reason) == ("loading", 1, "no file")
    twice = again.after("failed", "still none", now=200.0)
    assert (twice.failures, twice.retry_at) == (2, 202.0)
    assert twice.after("load").after("loaded") == Life("loaded")
    assert twice.after("dropped") == Life()


def test_pauses_double_up_to_a_bound() -> None:
    assert [retry_seconds(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, LAST_RETRY, LAST_RETRY]
    assert retry_seconds(10_000) == LAST_RETRY


def test_what_is_wanted_is_loaded_one_after_the_other_in_its_order() -> None:
    assert decide({}, ("b", "a"), {}, 0, 0.0).load == "b"
    assert decide({"b": Life("loading")}, ("b", "a"), {}, 0, 0.0).load is None
    assert decide({"b": Life("loaded")}, ("b", "a"), {}, 0, 0.0).load == "a"


def test_what_is_not_wanted_drains_and_a_failure_is_forgotten() -> None:
    lives = {"a": Life("loaded"), "b": Life("failed"), "c": Life("loading"), "d": Life("draining")}
    found = decide(lives, (), {}, 0, 0.0)
    assert (found.load, found.drain, found.drop) == (None, ("a",), ("b",))


def test_a_failed_one_is_tried_again_when_its_time_has_come() -> None:
    lives = {"a": Life("failed", 1, "no file", retry_at=5.0)}
    waiting = decide(lives, ("a",), {}, 0, 4.0)
    assert (waiting.load, waiting.look_at) == (None, 5.0)
    assert decide(lives, ("a",), {}, 0, 5.0).load == "a"


def test_one_that_finds_no_room_says_beside_whom_and_keeps_no_other_from_loading() -> None:
    lives = {"a": Life("loaded"), "c": Life("draining")}
    sizes = {"a": 60, "b": 50, "c": 30, "d": 10, "e": 101}
    found = decide(lives, ("a", "b", "e", "d"), sizes, 100, 0.0)
    assert found.load == "d"
    assert found.blocked["b"] == (
        "its 50 bytes wait for room in the 100 of DARKROOM_MEMORY beside a (60), c (30)"
    )
    assert found.blocked["e"] == "its 101 bytes are more than the 100 of DARKROOM_MEMORY"


LIVES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Life, st.sampled_from(STATES), st.integers(0, 3), retry_at=st.floats(0, 10)),
)


@settings(max_examples=30)
@given(LIVES, st.permutations("abcdef"), st.integers(0, 6), st.integers(1, 30), st.floats(0, 20))
def test_a_decision_never_goes_over_the_budget_nor_touches_what_is_busy(
    lives: dict[str, Life], order: list[str], many: int, budget: int, now: float
) -> None:
    sizes, wanted = {name: k + 1 for k, name in enumerate("abcdef")}, order[:many]
    found = decide(lives, wanted, sizes, budget, now)
    if found.load is not None:
        held = sum(sizes[name] for name, life in lives.items() if life.state in HOLDING)
        assert held + sizes[found.load] <= budget
        assert found.load in wanted
        assert lives.get(found.load, Life()).state in ("on disk", "failed")
        assert not any(life.state == "loading" for life in lives.values())
    for name in found.drain:
        assert lives[name].state == "loaded"
        assert name not in wanted
    assert not set(found.blocked) & {found.load}


def test_a_load_takes_as_long_as_the_last_one_or_at_the_pace_of_others() -> None:
    assert load_seconds(100, 3.0, {50: 1.0}) == 3.0
    assert load_seconds(100, None, {50: 1.0, 150: 3.0}) == 2.0
    assert load_seconds(100, None, {}) is None
    assert load_seconds(0, None, {50: 1.0}) is None


def test_what_is_held_of_what_is_served() -> None:
    assert wanted_of(("a", "b"), None, ()) == ("a", "b")
    assert wanted_of(("a", "b"), None, ("a", "x")) == ("b",)
    assert wanted_of(("a", "b"), ("b", "x", "a", "b"), ()) == ("b", "a")
    assert wanted_of(("a", "b"), ("b", "a"), ("b",)) == ("a",)
    assert wanted_of(("a",), (), ()) == ()
