"""A tier holds what there is room for, brings each item once, and keeps what is pinned."""

import asyncio
import gc
from concurrent.futures import CancelledError, Future
from threading import Thread

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared.errors import NoRoom
from shared.residency.item import Item, undivided
from shared.residency.loader import Loader
from shared.residency.rates import Rate
from shared.residency.tier import Tier
from shared.telemetry.metrics import Metrics
from tests.conftest import HANG_SECONDS, run, until
from tests.shared.residency.loading import Gate, Source


def tier_of(loader: Loader, bound: int = 30, strict: bool = False) -> Tier[str, str]:
    """Every item has ten bytes, but what has a longer name has ten for each letter."""
    return Tier("the tier", bound, loader, lambda name: 10 * len(name), strict=strict)


def there(tier: Tier[str, str], keys: str) -> str:
    """Those of `keys` that are there, which are not used by that."""
    return "".join(key for key in keys if key in tier._held)


def brought(tier: Tier[str, str], source: Source, keys: str, pinned: bool = False) -> None:
    for key in keys:
        future = tier.bring(source.item(key), pinned=pinned)
        assert future.result(HANG_SECONDS) == key.upper()


def test_each_item_is_brought_once_for_all_who_want_it(
    loader: Loader, source: Source, gate: Gate
) -> None:
    tier = tier_of(loader)
    loader.bring(gate.item)
    futures = [tier.bring(source.item("a")) for _ in range(3)]
    assert tier.get("a") is None
    assert tier.statistics().coming == 1
    gate.open()
    assert [future.result(HANG_SECONDS) for future in futures] == ["A"] * 3
    assert tier.get("a") == "A"
    assert tier.bring(source.item("a")).result(0) == "A"
    found = tier.statistics()
    assert (found.loads, found.hits, found.items, found.bytes) == (1, 2, 1, 10)
    assert source.moved == [("a", 0)]


def test_what_was_not_used_for_longest_leaves(loader: Loader, source: Source) -> None:
    tier = tier_of(loader)
    brought(tier, source, "abc")
    assert tier.get("a") == "A"
    brought(tier, source, "d")
    assert there(tier, "abcd") == "acd"
    assert tier.reading().evictions == 1


def test_what_is_likely_wanted_again_stays(loader: Loader, source: Source) -> None:
    tier = tier_of(loader)
    brought(tier, source, "abc")
    tier.expect("c", 0.1)
    tier.expect("nothing", 0.1)
    brought(tier, source, "d")
    assert there(tier, "abcd") == "abd"


def test_what_is_pinned_stays_until_it_is_unpinned_as_often(loader: Loader, source: Source) -> None:
    tier = tier_of(loader)
    brought(tier, source, "aa", pinned=True)
    brought(tier, source, "bcde")
    assert there(tier, "abcde") == "ade"
    assert not tier.drop("a")
    tier.unpin("a")
    assert not tier.drop("a")
    tier.unpin("a")
    assert tier.drop("a")
    assert not tier.drop("a")
    assert there(tier, "ade") == "de"


def test_one_item_may_be_larger_than_a_tier_that_is_not_strict(
    loader: Loader, source: Source
) -> None:
    tier = tier_of(loader)
    brought(tier, source, "ab")
    assert tier.bring(source.item("large")).result(HANG_SECONDS) == "LARGE"
    assert tier.get("large") == "LARGE"
    assert (tier.statistics().items, tier.statistics().bytes) == (1, 50)


def test_a_strict_tier_makes_room_before_anything_comes(loader: Loader, source: Source) -> None:
    tier = tier_of(loader, strict=True)
    brought(tier, source, "abc")
    arrives: Future[str] = Future()
    coming = tier.bring(Item("d", 10, lambda: undivided(arrives.result, 10)))
    until(lambda: there(tier, "abc") == "bc")
    assert tier.statistics().bytes == 30
    coming.cancel()
    until(lambda: tier.statistics().bytes == 20)
    arrives.set_result("D")


def test_a_strict_tier_refuses_what_pinned_items_leave_no_room_for_and_nothing_leaves(
    loader: Loader, source: Source
) -> None:
    tier = tier_of(loader, strict=True)
    brought(tier, source, "a")
    brought(tier, source, "bc", pinned=True)
    with pytest.raises(NoRoom, match="the tier has no room for 20 bytes: 20 of its 30") as refused:
        tier.bring(source.item("dd", nbytes=20)).result(HANG_SECONDS)
    assert refused.value.fields["pinned"] == 20
    assert there(tier, "abc") == "abc"
    tier.unpin("b")
    assert tier.bring(source.item("dd", nbytes=20)).result(HANG_SECONDS) == "DD"


def test_nothing_else_has_the_room_of_what_a_strict_tier_is_bringing(
    loader: Loader, source: Source
) -> None:
    tier = tier_of(loader, strict=True)
    arrives: Future[str] = Future()
    coming = tier.bring(Item("dd", 20, lambda: undivided(arrives.result, 20)))
    brought(tier, source, "ab")
    assert there(tier, "ab") == "b"
    with pytest.raises(NoRoom, match="no room for 20 bytes: 20 of its 30"):
        tier.bring(source.item("cc", nbytes=20)).result(HANG_SECONDS)
    arrives.set_result("DD")
    assert coming.result(HANG_SECONDS) == "DD"
    assert tier.get("dd") == "DD"


def test_a_load_that_fails_leaves_nothing_and_may_be_wanted_again(
    loader: Loader, source: Source
) -> None:
    tier = tier_of(loader, strict=True)
    futures = [tier.bring(source.item("a", error=OSError("gone"))) for _ in range(2)]
    for future in futures:
        with pytest.raises(OSError, match="gone"):
            future.result(HANG_SECONDS)
    assert (tier.statistics().bytes, tier.statistics().coming) == (0, 0)
    assert tier.statistics().failures >= 1
    brought(tier, source, "a")


def test_what_nobody_wants_any_more_is_given_up(loader: Loader, source: Source, gate: Gate) -> None:
    tier = tier_of(loader, strict=True)
    loader.bring(gate.item)
    futures = [tier.bring(source.item("a"), pinned=True) for _ in range(2)]
    futures[0].cancel()
    assert tier.statistics().coming == 1
    futures[1].cancel()
    assert tier.statistics().coming == 0
    again = tier.bring(source.item("a"))
    gate.open()
    assert again.result(HANG_SECONDS) == "A"
    assert tier.drop("a")  # those that gave it up have not pinned it
    assert loader.statistics().cancelled == 1


def test_who_waits_in_an_event_loop_can_be_cancelled_alone(
    loader: Loader, source: Source, gate: Gate
) -> None:
    tier = tier_of(loader)
    loader.bring(gate.item)

    async def wanting() -> str:
        return await asyncio.wrap_future(tier.bring(source.item("a")))

    async def both() -> None:
        one, other = asyncio.create_task(wanting()), asyncio.create_task(wanting())
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        gate.open()
        assert await other == "A"

    run(both())


def test_a_tier_that_shrinks_keeps_what_is_pinned(loader: Loader, source: Source) -> None:
    tier = tier_of(loader)
    brought(tier, source, "a", pinned=True)
    brought(tier, source, "bc")
    tier.resize(20)
    assert there(tier, "abc") == "ac"
    tier.resize(0)
    assert there(tier, "abc") == "a"
    assert tier.statistics().bound == 0


def test_those_who_wait_are_told_when_the_loader_is_closed(source: Source, gate: Gate) -> None:
    loader = Loader()
    tier = tier_of(loader)
    loader.bring(gate.item)
    gate.reached()
    waiting = tier.bring(source.item("a"))
    closing = Thread(target=loader.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(HANG_SECONDS)
    gate.open()
    closing.join(HANG_SECONDS)
    assert tier.statistics().coming == 0


def test_what_comes_a_slower_way_stays_longer(loader: Loader, source: Source) -> None:
    slow = Tier[str, str]("slow", 20, loader, lambda name: 10, rate=Rate(1.0))
    assert slow.rate.seconds(10) == 10.0
    brought(slow, source, "a")
    assert slow.rate.seconds(10) < 10.0


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.tuples(st.sampled_from(["bring", "pin", "unpin", "drop", "cancel"]),
                          st.sampled_from("abcde")), max_size=25))  # fmt: skip
def test_whatever_is_asked_for_bounds_hold_and_pins_count(asked: list[tuple[str, str]]) -> None:
    loader, source = Loader(), Source()
    tier, pins = tier_of(loader, strict=True), dict.fromkeys("abcde", 0)
    for what, key in asked:
        if what in ("bring", "pin"):
            future = tier.bring(source.item(key), pinned=what == "pin")
            if future.exception(HANG_SECONDS) is None:
                pins[key] += what == "pin"
            else:
                assert isinstance(future.exception(), NoRoom)
                assert sum(count > 0 for count in pins.values()) >= 3
        elif what == "unpin" and pins[key]:
            tier.unpin(key)
            pins[key] -= 1
        elif what == "drop":
            assert tier.drop(key) in ((False,) if pins[key] else (False, True))
        elif what == "cancel":
            future = tier.bring(source.item(key), pinned=True)
            if not future.cancel() and future.exception(HANG_SECONDS) is None:
                pins[key] += 1
        assert tier.statistics().bytes <= 30
        assert set(there(tier, "abcde")) >= {key for key, count in pins.items() if count}
    loader.close()


def test_metrics_have_what_a_tier_holds_and_what_came_to_it(loader: Loader, source: Source) -> None:
    tiers = tier_of(loader), tier_of(loader)
    for tier in tiers:
        brought(tier, source, "abcd")
    failing = tiers[0].bring(source.item("e", error=ValueError("no file")))
    with pytest.raises(ValueError, match="no file"):
        failing.result(HANG_SECONDS)
    until(lambda: loader.reading().waiting == 0)
    metrics = Metrics("denoiser")
    metrics.watch_loader(loader.reading)
    found = metrics.render().decode()
    for name, value in (
        ("items", 6),
        ("bytes", 60),
        ("bound_bytes", 60),
        ("coming_items", 0),
        ("loads_total", 9),
        ("loaded_bytes_total", 90),
        ("evictions_total", 2),
        ("failures_total", 1),
    ):
        line = f'darkroom_tier_{name}{{service="denoiser",tier="the tier"}} {value}.0'
        assert line in found
    assert 'darkroom_loader_bytes_total{service="denoiser"} 90.0' in found
    assert 'darkroom_loader_waiting_loads{service="denoiser"} 0.0' in found
    [rate] = [one for one in found.splitlines() if one.startswith("darkroom_tier_bytes_per_second")]
    assert float(rate.split()[-1]) > 0.0


def test_a_tier_that_is_gone_is_no_longer_in_the_metrics(loader: Loader) -> None:
    tier = tier_of(loader)
    assert [one.name for one in loader.reading().tiers] == ["the tier"]
    del tier
    gc.collect()
    assert loader.reading().tiers == ()
