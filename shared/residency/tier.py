"""A place for items, such as the memory of the host or of a device: what is there, what is coming,
and what leaves for it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

from shared.residency.budget import Budget
from shared.residency.item import Item, Pieces
from shared.residency.loader import Load, Loader
from shared.residency.rates import Rate
from shared.telemetry.caches import CacheReading
from shared.telemetry.residency import TierReading

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


UNBOUNDED: Final = 1 << 62
"""Bytes of a tier that may hold any number."""


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """`hits`: what was there when it was wanted; `loads`: what had to be brought."""

    items: int
    bytes: int
    bound: int
    coming: int
    hits: int
    loads: int
    evictions: int
    failures: int


@dataclass(slots=True, eq=False)
class _Coming(Generic[T]):
    """`waiters`: who waits for it, and whether it is pinned for them; `kept`: the tier has it."""

    likelihood: float
    waiters: dict[Future[T], bool] = field(default_factory=dict)
    kept: bool = False


class Tier(Generic[K, T]):
    """Items that one loader brings. Thread-safe; what is asked for is waited for as a future, in a
    thread or (`asyncio.wrap_future`) in an event loop."""

    def __init__(
        self,
        name: str,
        bound: int,
        loader: Loader,
        nbytes: Callable[[T], int],
        *,
        strict: bool = False,
        rate: Rate | None = None,
    ) -> None:
        """`bound`: of all items, by their `nbytes`. Not `strict`: one item may be larger by itself,
        and what is coming counts once it is there. `strict`: never, and what is wanted fails with
        `NoRoom` when too much is pinned. `rate`: how fast items come here."""
        self._budget: Budget[K] = Budget(name, bound, strict)
        self._loader, self._nbytes = loader, nbytes
        self.rate = rate or Rate()
        self._lock = threading.Lock()
        self._held: dict[K, T] = {}
        self._coming: dict[K, tuple[Load[T], _Coming[T]]] = {}
        self._hits = self._loads = self._failures = self._moved = 0
        self._seconds = 0.0
        loader.serves(self)

    def __repr__(self) -> str:
        return f"<Tier {self._budget}, {len(self._coming)} coming>"

    def get(self, key: K) -> T | None:
        """Item `key`, used now; None: it is not there."""
        with self._lock:
            if key not in self._held:
                return None
            self._hits += 1
            self._budget.use(key)
            return self._held[key]

    def bring(
        self, item: Item[K, T], within: float = 0.0, likelihood: float = 1.0, pinned: bool = False
    ) -> Future[T]:
        """`item`, once it is there: it is wanted `within` so many seconds, as likely as
        `likelihood` says. `pinned`: it then stays until it is unpinned. Whoever cancels the future
        does not want it any more, and what nobody wants is given up. The future raises whatever the
        load raises, and `NoRoom`. Raises `QueueFull`."""
        waiter: Future[T] = Future()
        with self._lock:
            if item.key in self._held:
                self._hits += 1
                self._budget.use(item.key)
                self._budget.expect(item.key, likelihood)
                self._budget.pin(item.key, int(pinned))
                waiter.set_result(self._held[item.key])
                return waiter
            known = self._coming.get(item.key)
            load, coming = self._begin(item, within, likelihood) if known is None else known
            coming.waiters[waiter] = pinned
            coming.likelihood = max(coming.likelihood, likelihood)
        if known is None:
            load.future.add_done_callback(partial(self._over, item.key, load, coming))
        else:
            load.hasten(within, likelihood)
        waiter.add_done_callback(partial(self._unwanted, item.key, load, coming))
        return waiter

    def expect(self, key: K, likelihood: float) -> None:
        """How likely item `key` is wanted again, if it is there."""
        with self._lock:
            if key in self._held:
                self._budget.expect(key, likelihood)

    def unpin(self, key: K) -> None:
        """One of those that it was pinned for does not need item `key` any more."""
        with self._lock:
            self._budget.pin(key, -1)

    def drop(self, key: K) -> bool:
        """Whether item `key` has left; not if it is pinned."""
        with self._lock:
            if key not in self._held or self._budget.pinned(key):
                return False
            self._budget.release(key)
            del self._held[key]
            return True

    def resize(self, bound: int) -> None:
        """From now on `bound` bytes; what is pinned stays, though it be more."""
        with self._lock:
            self._leave(self._budget.resize(bound))

    def statistics(self) -> TierStatistics:
        with self._lock:
            return TierStatistics(
                items=len(self._held),
                bytes=self._budget.bytes,
                bound=self._budget.bound,
                coming=len(self._coming),
                hits=self._hits,
                loads=self._loads,
                evictions=self._budget.evictions,
                failures=self._failures,
            )

    def reading(self) -> CacheReading:
        found = self.statistics()
        return CacheReading(found.bytes, found.bound, found.hits, found.loads, found.evictions)

    def tier_reading(self) -> TierReading:
        found = self.statistics()
        with self._lock:
            moved, seconds = self._moved, self._seconds
        return TierReading(
            name=self._budget.name,
            items=found.items,
            bytes=found.bytes,
            bound=0 if found.bound == UNBOUNDED else found.bound,
            coming=found.coming,
            rate=self.rate.measured,
            loads=found.loads,
            moved=moved,
            seconds=seconds,
            evictions=found.evictions,
            failures=found.failures,
        )

    def _begin(
        self, item: Item[K, T], within: float, likelihood: float
    ) -> tuple[Load[T], _Coming[T]]:
        """Under the lock, which the load takes first: it is known to be coming by then."""
        coming: _Coming[T] = _Coming(likelihood)
        arriving = Item(item.key, item.nbytes, lambda: self._arriving(item, coming))
        load = self._loader.bring(arriving, within, likelihood, self.rate)
        self._coming[item.key] = load, coming
        self._loads += 1
        return load, coming

    def _arriving(self, item: Item[K, T], coming: _Coming[T]) -> Pieces[T]:
        with self._lock:
            self._leave(self._budget.reserve(item.key, item.nbytes))
        try:
            value = yield from item.load()
        except BaseException:
            with self._lock:
                self._budget.release(item.key)
            raise
        with self._lock:
            self._keep(item.key, value, coming)
        return value

    def _keep(self, key: K, value: T, coming: _Coming[T]) -> None:
        if not self._is_coming(key, coming):  # given up as it arrived
            self._budget.release(key)
            return
        nbytes, pins = self._nbytes(value), sum(coming.waiters.values())
        self._leave(self._budget.take(key, nbytes, self.rate, coming.likelihood, pins))
        self._held[key] = value
        coming.kept = True

    def _is_coming(self, key: K, coming: _Coming[T]) -> bool:
        return key in self._coming and self._coming[key][1] is coming

    def _leave(self, keys: tuple[K, ...]) -> None:
        for key in keys:
            del self._held[key]

    def _over(self, key: K, whole: Load[T], coming: _Coming[T], load: Future[T]) -> None:
        """The load has ended, in whichever way: who waits is told."""
        with self._lock:
            self._moved += whole.moved
            self._seconds += whole.spent
            if self._is_coming(key, coming):
                del self._coming[key]
            waiters, coming.waiters = coming.waiters, {}
            error = None if load.cancelled() else load.exception()
            self._failures += error is not None
        for waiter, pinned in waiters.items():
            if load.cancelled():
                waiter.cancel()
            if not waiter.set_running_or_notify_cancel():
                if pinned and coming.kept:
                    self.unpin(key)
            elif error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(load.result())

    def _unwanted(self, key: K, load: Load[T], coming: _Coming[T], waiter: Future[T]) -> None:
        """Who waited has what it waited for, or does not want it any more."""
        if not waiter.cancelled():
            return
        with self._lock:
            pinned = coming.waiters.pop(waiter, None)
            if pinned is None:
                return
            if pinned and coming.kept:
                self._budget.pin(key, -1)
            if coming.waiters:
                return
            if self._is_coming(key, coming):
                del self._coming[key]
        load.future.cancel()
