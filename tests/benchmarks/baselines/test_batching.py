"""Which requests a batching server runs together, and when."""

import pytest

from benchmarks.baselines.batching import Policy, Run, Wait, Waiting, expired, next_batch

POLICY = Policy(max_batch=3, window=1.0)


def queue(*images: tuple[str, float]) -> list[Waiting]:
    return [Waiting(key, arrived) for key, arrived in images]


def test_an_empty_queue_waits_for_an_arrival() -> None:
    assert next_batch([], 5.0, POLICY) == Wait(None)


def test_an_image_alone_waits_for_company_until_its_window_ends() -> None:
    waiting = queue(("a", 10.0))
    assert next_batch(waiting, 10.9, POLICY) == Wait(11.0)
    assert next_batch(waiting, 11.0, POLICY) == Run((0,))


def test_a_full_batch_starts_at_once_and_takes_the_oldest() -> None:
    waiting = queue(("a", 10.0), ("a", 10.1), ("a", 10.2), ("a", 10.3))
    assert next_batch(waiting, 10.3, POLICY) == Run((0, 1, 2))


def test_only_compatible_images_share_a_batch() -> None:
    waiting = queue(("a", 10.0), ("b", 10.1), ("a", 10.2))
    assert next_batch(waiting, 11.0, POLICY) == Run((0, 2))


def test_of_the_groups_that_are_due_the_oldest_goes_first() -> None:
    waiting = queue(("a", 10.0), ("b", 10.1), ("b", 10.1), ("b", 10.1))
    assert next_batch(waiting, 20.0, POLICY) == Run((0,))


def test_a_full_batch_overtakes_an_older_image_that_is_still_waiting_for_company() -> None:
    waiting = queue(("a", 10.0), ("b", 10.1), ("b", 10.1), ("b", 10.1))
    assert next_batch(waiting, 10.2, POLICY) == Run((1, 2, 3))


def test_it_wakes_when_the_first_window_ends() -> None:
    assert next_batch(queue(("a", 10.0), ("b", 10.5)), 10.6, POLICY) == Wait(11.0)


def test_one_at_a_time_without_a_window_is_a_plain_queue() -> None:
    waiting = queue(("a", 10.0), ("a", 10.0), ("b", 10.0))
    assert next_batch(waiting, 10.0, Policy(max_batch=1, window=0.0)) == Run((0,))


@pytest.mark.parametrize(("max_batch", "window"), [(0, 0.0), (1, -0.1)])
def test_a_policy_that_makes_no_sense_is_refused(max_batch: int, window: float) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        Policy(max_batch, window)


def test_only_images_whose_deadline_is_over_are_given_up() -> None:
    waiting = [Waiting("a", 1.0, deadline) for deadline in (None, 5.0, 5.1, 4.0)]
    assert expired(waiting, 5.0) == {1, 3}
    assert expired([], 5.0) == frozenset()
