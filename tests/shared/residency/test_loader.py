"""One loader brings all items, in the order in which they are wanted."""

import threading
from concurrent.futures import CancelledError, Future, wait

import pytest

from shared.errors import QueueFull
from shared.residency import loader as loader_module
from shared.residency.item import PIECE_BYTES, Item, Pieces, at_once, undivided
from shared.residency.loader import Load, Loader
from shared.residency.rates import Rate
from tests.conftest import HANG_SECONDS, until
from tests.shared.residency.loading import Gate, Source


def held(loader: Loader, gate: Gate) -> None:
    """From now on the thread is in the gate."""
    loader.bring(gate.item)
    gate.reached()


def no_load() -> Pieces[str]:
    raise ZeroDivisionError


def test_what_is_wanted_sooner_comes_sooner(loader: Loader, source: Source, gate: Gate) -> None:
    held(loader, gate)
    loads = [
        loader.bring(source.item(key), within)
        for key, within in (("c", 30.0), ("a", 10.0), ("d", 40.0), ("b", 20.0))
    ]
    loads[2].hasten(within=5.0)
    assert loader.waiting() == ["gate", "d", "a", "b", "c"]
    gate.open()
    assert [load.future.result(HANG_SECONDS) for load in loads] == ["C", "A", "D", "B"]
    assert source.order == ["d", "a", "b", "c"]


def test_a_large_load_lets_others_come_between_its_pieces(
    loader: Loader, source: Source, gate: Gate
) -> None:
    def load() -> Pieces[str]:
        source.moved.append(("large", 0))
        yield 1
        yield from gate.item.load()
        source.moved.append(("large", 2))
        yield 1
        return "LARGE"

    slow = Rate(bytes_per_second=1e3)
    large = loader.bring(Item("large", 10**6, load), rate=slow)
    gate.reached()
    small = loader.bring(source.item("small", pieces=3), rate=slow)
    gate.open()
    assert (small.future.result(HANG_SECONDS), large.future.result(HANG_SECONDS)) == (
        "SMALL",
        "LARGE",
    )
    assert source.order == ["large", "small", "large"]


def test_a_load_that_fails_fails_alone(loader: Loader, source: Source) -> None:
    broken = loader.bring(source.item("broken", error=OSError("the file is gone")))
    never: Load[str] = loader.bring(Item("never", 1, no_load))
    good = loader.bring(source.item("good"))
    with pytest.raises(OSError, match="the file is gone"):
        broken.future.result(HANG_SECONDS)
    with pytest.raises(ZeroDivisionError):
        never.future.result(HANG_SECONDS)
    assert good.future.result(HANG_SECONDS) == "GOOD"
    found = loader.statistics()
    assert (found.loads, found.failures, found.waiting) == (1, 2, 0)


def test_a_load_that_nobody_wants_is_closed_at_its_next_piece(
    loader: Loader, source: Source, gate: Gate
) -> None:
    begun = loader.bring(source.item("begun", pieces=10**9))
    until(lambda: bool(source.moved))
    held(loader, gate)
    never = loader.bring(source.item("never"))
    assert begun.future.cancel()
    assert never.future.cancel()
    gate.open()
    assert loader.bring(source.item("next")).future.result(HANG_SECONDS) == "NEXT"
    until(lambda: loader.statistics().waiting == 0)
    assert source.closed == ["begun", "next"]
    assert ("never", 0) not in source.moved
    assert loader.statistics().cancelled == 2


def test_what_cannot_be_divided_holds_up_nothing(loader: Loader, source: Source) -> None:
    opened = threading.Event()

    def call() -> str:
        assert opened.wait(HANG_SECONDS)
        return "WHOLE"

    whole = loader.bring(Item("whole", 3 * PIECE_BYTES, lambda: undivided(call, 3 * PIECE_BYTES)))
    assert loader.bring(source.item("other")).future.result(HANG_SECONDS) == "OTHER"
    assert not whole.future.done()
    opened.set()
    assert whole.future.result(HANG_SECONDS) == "WHOLE"
    assert loader.statistics().bytes == 3 * PIECE_BYTES + 10


def test_what_cannot_be_divided_fails_as_it_would_alone(loader: Loader) -> None:
    def call() -> str:
        raise MemoryError("no memory for it")

    load = loader.bring(Item("whole", 1, lambda: undivided(call, 1)))
    with pytest.raises(MemoryError, match="no memory for it"):
        load.future.result(HANG_SECONDS)
    with pytest.raises(MemoryError, match="no memory for it"):
        at_once(undivided(call, 1))


def test_what_cannot_be_divided_can_be_given_up(loader: Loader, source: Source) -> None:
    forever: Future[str] = Future()
    load = loader.bring(Item("whole", 1, lambda: undivided(forever.result, 1)))
    until(lambda: loader.statistics().waiting == 1)
    assert load.future.cancel()
    until(lambda: loader.statistics().waiting == 0)
    forever.set_result("too late")
    assert loader.bring(source.item("other")).future.result(HANG_SECONDS) == "OTHER"


def test_all_pieces_at_once_give_what_the_loader_would_have_brought(source: Source) -> None:
    assert at_once(source.item("some", pieces=3).load()) == "SOME"
    assert len(source.moved) == 3


class Timed(Loader):
    """In time of its own, which passes while the loader rests, and while a piece moves."""

    def __init__(self, bytes_per_second: float) -> None:
        self.now = 0.0
        super().__init__(bytes_per_second, clock=lambda: self.now)

    def _rest(self, seconds: float) -> None:
        self.now += seconds


def test_a_slow_link_takes_as_long_as_its_bytes_for_all_together() -> None:
    loader, source, rate = Timed(bytes_per_second=100.0), Source(), Rate()
    loads = [loader.bring(source.item(key, pieces=4), rate=rate) for key in "abc"]
    wait([load.future for load in loads], HANG_SECONDS)
    assert loader.now == pytest.approx(3 * 4 * 10 / 100.0, abs=0.03)
    loader.close()
    assert rate.seconds(100) == pytest.approx(1.0, rel=0.1)
    assert loader.statistics().bytes == 120


def test_a_loader_that_is_closed_gives_up_what_is_not_there(source: Source, gate: Gate) -> None:
    loader = Loader()
    begun = loader.bring(source.item("begun", pieces=10**9), within=1e6)
    until(lambda: bool(source.moved))
    held(loader, gate)
    closing = threading.Thread(target=loader.close)
    closing.start()
    gate.open()
    closing.join(HANG_SECONDS)
    assert not closing.is_alive()
    with pytest.raises(CancelledError):
        begun.future.result(HANG_SECONDS)
    assert source.closed == ["begun"]
    with pytest.raises(RuntimeError, match="closed"):
        loader.bring(source.item("late"))
    loader.close()


def test_a_loader_that_rests_on_a_slow_link_is_closed_at_once() -> None:
    loader, source = Loader(bytes_per_second=1e-6), Source()
    loader.bring(source.item("slow", pieces=2))
    until(lambda: bool(source.moved))
    loader.close()
    assert source.closed == ["slow"]


def test_no_more_than_the_bound_is_wanted_at_a_time(
    loader: Loader, source: Source, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(loader, gate)
    monkeypatch.setattr(loader_module, "MAX_WAITING", 2)
    loader.bring(source.item("one"))
    with pytest.raises(QueueFull, match="the loader's queue is full: its bound is 2"):
        loader.bring(source.item("two"))


def test_the_thread_ends_when_there_is_nothing_and_comes_back(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "IDLE_SECONDS", 0.001)
    loader = Loader()
    for number in range(3):
        assert loader.bring(source.item(f"k{number}")).future.result(HANG_SECONDS) == f"K{number}"
        until(lambda: loader._thread is None)
    loader.close()
