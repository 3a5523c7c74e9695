from hypothesis import given
from hypothesis import strategies as st

from shared.policy.restarts import Exit, GiveUp, History, Restart, RestartPolicy, after_exit

POLICY = RestartPolicy(first=0.5, factor=2.0, longest=4.0, steady_after=30.0, give_up_after=3)


def delays(exits: int, lived: float = 1.0) -> list[float]:
    history, found = History(ever_ready=True), []
    for _ in range(exits):
        history, decision = after_exit(history, Exit(lived, True), POLICY)
        assert isinstance(decision, Restart)
        found.append(decision.after)
    return found


def test_delays_double_up_to_the_bound() -> None:
    assert delays(6) == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_steady_life_starts_the_delays_anew() -> None:
    assert delays(3, lived=60.0) == [0.5, 0.5, 0.5]


def test_a_process_that_was_never_ready_is_given_up() -> None:
    history = History()
    decisions = []
    for _ in range(3):
        history, decision = after_exit(history, Exit(1.0, False), POLICY)
        decisions.append(decision)
    assert decisions == [Restart(0.5), Restart(1.0), GiveUp(3)]


def test_a_process_that_says_it_is_misconfigured_is_given_up_at_once() -> None:
    wrong = Exit(1.0, was_ready=False, misconfigured=True)
    assert after_exit(History(), wrong, POLICY)[1] == GiveUp(1)
    assert after_exit(History(ever_ready=True), wrong, POLICY)[1] == Restart(0.5)


def test_living_long_without_being_ready_is_not_steady() -> None:
    history, _ = after_exit(History(exits=1), Exit(1000.0, False), POLICY)
    assert history.exits == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50))
def test_what_was_ready_once_is_never_given_up(lives: list[tuple[float, bool]]) -> None:
    history = History(ever_ready=True)
    for lived, ready in lives:
        history, decision = after_exit(history, Exit(lived, ready), POLICY)
        assert isinstance(decision, Restart)
        assert POLICY.first <= decision.after <= POLICY.longest
