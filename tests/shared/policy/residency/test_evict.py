"""What leaves a tier: what is worth least there, and never what has to stay."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from shared.policy.residency.evict import Resident, evict

KINDS = [
    (nbytes, seconds, likelihood, pinned)
    for nbytes in (1, 3)
    for seconds, likelihood in ((1.0, 1.0), (1.0, 0.5), (2.0, 0.5))
    for pinned in (False, True)
]


def held(kinds: Sequence[tuple[int, float, float, bool]]) -> list[Resident[int]]:
    """Used one after another, each named by its number."""
    return [
        Resident(number, nbytes, number, seconds, likelihood, pinned)
        for number, (nbytes, seconds, likelihood, pinned) in enumerate(kinds)
    ]


def check(items: Sequence[Resident[int]], bound: int) -> None:
    by_key = {item.key: item for item in items}
    found = evict(items, bound)
    leaving = [by_key[key] for key in found.leaves]
    staying = [item for item in items if item.key not in found.leaves]
    assert found.stays == sum(item.nbytes for item in staying)
    assert not any(item.pinned for item in leaving)
    assert found.stays <= bound or all(item.pinned for item in staying)
    if leaving:  # nothing leaves that need not
        assert found.stays + leaving[-1].nbytes > bound
    order = [(item.worth, item.used) for item in leaving]
    assert order == sorted(order)
    assert all(order[-1] < (s.worth, s.used) for s in staying if order and not s.pinned)


def test_what_has_to_leave_is_worth_least_and_no_more_than_needed_leaves() -> None:
    for count in range(4):
        for kinds in product(KINDS, repeat=count):
            for bound in range(-1, 3 * count + 1, 2):
                check(held(kinds), bound)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.floats(0.0, 4.0), st.floats(0.0, 1.0), st.booleans()),
        max_size=12,
    ),
    st.integers(-5, 60),
)
def test_the_same_holds_for_many_items(
    kinds: list[tuple[int, float, float, bool]], bound: int
) -> None:
    check(held(kinds), bound)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=30),
    st.integers(0, 12),
    st.floats(0.1, 10.0),
)
def test_with_equal_costs_and_likelihoods_it_is_least_recently_used(
    uses: list[tuple[int, int]], bound: int, seconds: float
) -> None:
    nbytes = dict(reversed(uses))  # an item has the same size whenever it is used
    recent: OrderedDict[int, int] = OrderedDict()
    items: dict[int, Resident[int]] = {}
    for number, (key, _) in enumerate(uses):
        recent[key] = nbytes[key]
        recent.move_to_end(key)
        while sum(recent.values()) > bound and recent:
            recent.popitem(last=False)
        items[key] = Resident(key, nbytes[key], number, seconds)
        for leaving in evict(items.values(), bound).leaves:
            del items[leaving]
        assert items.keys() == recent.keys()


def test_what_is_dear_likely_or_small_stays_before_what_is_cheap_unlikely_or_large() -> None:
    dear, cheap = Resident("dear", 4, 0, seconds_per_byte=2.0), Resident("cheap", 4, 1)
    likely, unlikely = Resident("likely", 4, 0), Resident("unlikely", 4, 1, likelihood=0.9)
    for stays, leaves in ((dear, cheap), (likely, unlikely)):
        for pair in ((stays, leaves), (leaves, stays)):
            assert evict(pair, 4).leaves == (leaves.key,)


def test_of_pinned_items_alone_none_leaves_however_small_the_bound() -> None:
    for size in range(4):
        for kinds in combinations([kind for kind in KINDS if kind[3]], size):
            assert evict(held(kinds), 0).leaves == ()
