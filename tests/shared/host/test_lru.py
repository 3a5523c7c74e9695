"""Values by key within a bound of bytes: what was not used for longest leaves."""

from shared.host.lru import LruCache


def test_what_was_not_used_for_longest_leaves() -> None:
    recent: LruCache[str, int] = LruCache(10)
    for number, key in enumerate("abc"):
        recent.put(key, number, 4)
        assert recent.get("a") == 0
    assert [recent.get(key) for key in "abc"] == [0, None, 2]


def test_a_value_takes_the_place_of_the_one_before() -> None:
    recent: LruCache[str, int] = LruCache(10)
    for number in range(5):
        recent.put("a", number, 6)
    recent.put("b", 9, 4)
    assert [recent.get(key) for key in "ab"] == [4, 9]


def test_the_last_one_stays_whatever_its_size() -> None:
    recent: LruCache[str, int] = LruCache(10)
    recent.put("a", 1, 5)
    recent.put("b", 2, 50)
    assert [recent.get(key) for key in "ab"] == [None, 2]
