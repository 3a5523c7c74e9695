"""The one that brings large things up: a thread, which moves one piece at a time."""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from shared.errors import QueueFull
from shared.policy.residency.fetch_order import Wanted, due, fetch_order, precedence
from shared.residency.item import Item, Pieces
from shared.residency.rates import Pace, Rate
from shared.telemetry.residency import LoaderReading, TierReading

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING: Final = 16_384
"""Loads that are wanted at a time: more than the experts of a large mixture."""
IDLE_SECONDS: Final = 5.0
"""After so long with nothing to bring the thread ends; the next load starts another one."""
SHORTEST: Final = 1e-6
"""Seconds that a load is taken to need at least."""


@dataclass(frozen=True, slots=True)
class LoaderStatistics:
    """`waiting`: loads that are wanted and not over; the others are counts since the start."""

    waiting: int
    loads: int
    bytes: int
    failures: int
    cancelled: int


class Tiered(Protocol):
    """A tier, as far as its loader knows it."""

    def tier_reading(self) -> TierReading: ...


class Load(Generic[T]):
    """An item on its way. `future` has what its load returns or raises, and may be waited for in
    any thread; to cancel it is to give the load up."""

    def __init__(
        self, item: Item[Any, T], rate: Rate, wanted: Wanted, wish: Callable[[float], float]
    ) -> None:
        """Only for `Loader`. `wish`: when something is due that is wanted within so many
        seconds."""
        self.item, self.rate, self.wanted = item, rate, wanted
        self.future: Future[T] = Future()
        self._wish = wish
        self.pieces: Pieces[T] | None = None
        self.waits_for: Future[Any] | None = None
        self.moved = 0
        self.spent = 0.0
        """Bytes that it moved, and the seconds of the link or of its own thread for them."""

    def __repr__(self) -> str:
        return f"<Load of {self.item.key!r}, {self.moved}/{self.item.nbytes} bytes>"

    def hasten(self, within: float = 0.0, likelihood: float = 1.0) -> None:
        """It is wanted within so many seconds, and so likely, if that is sooner or likelier than
        it was."""
        self.wanted = replace(
            self.wanted,
            due=min(self.wanted.due, self._wish(within)),
            likelihood=max(self.wanted.likelihood, likelihood),
        )

    @property
    def ready(self) -> bool:
        """There is something to do for it on the loader's thread."""
        return self.waits_for is None or self.future.cancelled()

    def next_piece(self) -> int | Future[Any]:
        """Raises `StopIteration` with what is loaded, or whatever the load raises."""
        if self.pieces is None:
            self.pieces = self.item.load()
        return next(self.pieces)

    def close(self) -> None:
        pieces, self.pieces = self.pieces, None
        if pieces is not None:
            try:
                pieces.close()
            except Exception as error:
                log.warning("%r did not end in order: %s", self, error)


class Loader:
    """Brings items in the order of `fetch_order`, on a thread that it starts when there is
    something to bring. Thread-safe; a load that fails fails alone."""

    def __init__(
        self, bytes_per_second: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`bytes_per_second`: of all loads together, at most; 0: as fast as they come."""
        self._clock = clock
        self._pace = Pace(bytes_per_second) if bytes_per_second else None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loads: list[Load[Any]] = []
        self._numbers = itertools.count()
        self._tiers: WeakSet[Tiered] = WeakSet()
        self._closed = False
        self._over = self._bytes = self._failures = self._cancelled = 0

    def __repr__(self) -> str:
        return f"<Loader, then {self.waiting()}>"

    def waiting(self) -> list[object]:
        """The keys of what is wanted, in the order in which it comes."""
        with self._changed:
            wanted = [(load.item.key, load.wanted) for load in self._loads]
        return fetch_order(wanted, self._clock())

    def statistics(self) -> LoaderStatistics:
        with self._changed:
            waiting = len(self._loads)
            return LoaderStatistics(
                waiting, self._over, self._bytes, self._failures, self._cancelled
            )

    def serves(self, tier: Tiered) -> None:
        """Items for `tier`, as long as that is there."""
        with self._changed:
            self._tiers.add(tier)

    def reading(self) -> LoaderReading:
        """Of itself, and of all tiers that it serves."""
        with self._changed:
            tiers = list(self._tiers)
            waiting, moved = len(self._loads), self._bytes
        return LoaderReading(waiting, moved, tuple(tier.tier_reading() for tier in tiers))

    def bring(
        self,
        item: Item[Any, T],
        within: float = 0.0,
        likelihood: float = 1.0,
        rate: Rate | None = None,
    ) -> Load[T]:
        """Begin to bring `item`, which is wanted `within` so many seconds, as likely as
        `likelihood` says; `rate` is how fast what comes this way has come. Raises `QueueFull`."""
        rate = rate or Rate()
        seconds = max(SHORTEST, rate.seconds(item.nbytes))

        def wish(within: float) -> float:
            return due(self._clock(), within, seconds)

        wanted = Wanted(next(self._numbers), wish(within), seconds, likelihood)
        load = Load(item, rate, wanted, wish)
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the loader is closed, and does not bring {item.key!r}")
            if len(self._loads) >= MAX_WAITING:
                raise QueueFull("the loader's queue", MAX_WAITING)
            self._loads.append(load)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        load.future.add_done_callback(self._wake)
        return load

    def close(self) -> None:
        """Give up what is not there yet, and return when nothing moves any more."""
        with self._changed:
            self._closed = True
            thread, loads = self._thread, list(self._loads)
            self._changed.notify_all()
        for load in loads:
            load.future.cancel()
        if thread is not None:
            thread.join()

    def _wake(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while (load := self._first()) is not None:
            self._advance(load)
            del load  # who waits for the next one does not hold what the last one brought

    def _first(self) -> Load[Any] | None:
        """What takes the next piece; None: the thread ends, for there is nothing."""
        with self._changed:
            while True:
                ready = [load for load in self._loads if load.ready]
                if ready:
                    now = self._clock()
                    return min(ready, key=lambda load: _turn(load, now))
                if self._loads:
                    self._changed.wait()
                elif (self._closed or not self._changed.wait(IDLE_SECONDS)) and not self._loads:
                    self._thread = None
                    return None

    def _advance(self, load: Load[T]) -> None:
        began = self._clock()
        if load.future.cancelled():
            load.close()
            self._forget(load)
            return
        try:
            piece = load.next_piece()
        except StopIteration as end:
            load.spent += self._clock() - began
            self._arrived(load, end.value)
        except BaseException as error:  # whatever it is, the others go on
            self._forget(load, failed=True)
            if load.future.set_running_or_notify_cancel():
                load.future.set_exception(error)
        else:
            if isinstance(piece, Future):
                self._park(load, piece, began)
            else:
                self._count(load, piece)
                load.spent += self._clock() - began

    def _arrived(self, load: Load[T], value: T) -> None:
        self._forget(load)
        load.rate.observe(load.moved, load.spent)
        if load.future.set_running_or_notify_cancel():
            load.future.set_result(value)

    def _count(self, load: Load[Any], nbytes: int) -> None:
        """`nbytes` were moved; where loads are slowed down, wait until they are through."""
        load.moved += nbytes
        with self._changed:
            self._bytes += nbytes
        if self._pace is not None:
            self._rest(self._pace.wait(nbytes, self._clock()))

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _park(self, load: Load[Any], until: Future[Any], began: float) -> None:
        """Others come until the future is done that the load waits for."""
        load.waits_for = until

        def go_on(_: Future[Any]) -> None:
            with self._changed:
                load.spent += self._clock() - began
                load.waits_for = None
                self._changed.notify_all()

        until.add_done_callback(go_on)

    def _forget(self, load: Load[Any], failed: bool = False) -> None:
        """It is over."""
        with self._changed:
            self._loads.remove(load)
            if load.future.cancelled():
                self._cancelled += 1
            elif failed:
                self._failures += 1
            else:
                self._over += 1


def _turn(load: Load[Any], now: float) -> tuple[bool, tuple[float, float, float, int]]:
    """By which loads take turns, smallest first: what is given up ends before anything comes."""
    return not load.future.cancelled(), precedence(load.wanted, now)
