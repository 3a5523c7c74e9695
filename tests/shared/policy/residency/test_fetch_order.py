"""What is wanted sooner comes sooner, and nothing waits for ever."""

from itertools import pairwise, permutations, product

from hypothesis import given
from hypothesis import strategies as st

from shared.policy.residency.fetch_order import Wanted, due, fetch_order, precedence

NOW = 100.0
KINDS = [
    (due_in, seconds, likelihood)
    for due_in in (-20.0, -1.0, 0.0, 0.5, 30.0)
    for seconds in (0.01, 60.0)
    for likelihood in (0.5, 1.0)
]
WANTED = st.builds(
    lambda due_in, seconds, likelihood: (due_in, seconds, likelihood),
    st.floats(-100.0, 100.0),
    st.floats(0.001, 100.0),
    st.floats(0.0, 1.0),
)


def wanted(kinds: list[tuple[float, float, float]]) -> dict[int, Wanted]:
    return {
        number: Wanted(number, NOW + due_in, seconds, likelihood)
        for number, (due_in, seconds, likelihood) in enumerate(kinds)
    }


def late(one: Wanted) -> float:
    return one.likelihood * max(0.0, NOW - one.due) / one.seconds


def check(each: dict[int, Wanted]) -> None:
    order = fetch_order(each, NOW)
    assert sorted(order) == sorted(each)
    for before, after in pairwise(order):
        one, other = each[before], each[after]
        assert late(one) >= late(other)
        if late(one) == late(other):
            assert one.due <= other.due
        if late(one) == late(other) and one.due == other.due:
            assert (-one.likelihood, one.asked) <= (-other.likelihood, other.asked)


def test_all_that_is_not_late_comes_by_when_it_is_due() -> None:
    for kinds in product(KINDS, repeat=3):
        check(wanted(list(kinds)))


@given(st.lists(WANTED, max_size=20))
def test_the_same_holds_for_many(kinds: list[tuple[float, float, float]]) -> None:
    check(wanted(kinds))


def test_the_order_in_which_items_are_told_does_not_matter() -> None:
    each = wanted([(0.5, 1.0, 1.0), (-1.0, 60.0, 1.0), (0.5, 1.0, 0.5), (0.5, 2.0, 1.0)])
    orders = {tuple(fetch_order(pairs, NOW)) for pairs in permutations(each.items())}
    assert len(orders) == 1


def test_a_load_of_minutes_yields_to_all_that_is_wanted_before_it_can_be_there() -> None:
    model = Wanted(0, due(NOW, within=0.0, seconds=60.0), 60.0)
    for later in (0.0, 1.0, 50.0):
        expert = Wanted(1, due(NOW + later, within=0.002, seconds=0.001), 0.001)
        assert fetch_order({"model": model, "expert": expert}, NOW + later)[0] == "expert"


def test_what_is_asked_for_at_once_is_not_late_before_it_could_be_there() -> None:
    assert due(NOW, within=0.0, seconds=3.0) == NOW + 3.0
    assert due(NOW, within=5.0, seconds=3.0) == NOW + 5.0


def test_a_large_load_comes_at_last_however_many_small_ones_are_wanted() -> None:
    model, passed = Wanted(0, due(NOW, 0.0, 60.0), 60.0), False
    for number in range(1, 100_000):
        now = NOW + number * 0.01  # a link that small loads fill for ever
        small = Wanted(number, due(now - 0.1, 0.0, 0.01), 0.01)  # each waits for a few others
        if precedence(model, now) < precedence(small, now):
            passed = True
            break
    assert passed
    assert now - NOW < 20 * model.seconds


def test_of_two_that_are_late_the_one_that_takes_less_gets_ahead_and_stays_there() -> None:
    model = Wanted(0, NOW - 30.0, 60.0)
    expert = Wanted(1, NOW - 0.001, 0.001)
    for later in (0.0, 1.0, 100.0):
        assert fetch_order({"m": model, "e": expert}, NOW + later) == ["e", "m"]
