"""What is brought one tier up, and how: piece by piece."""

import threading
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

PIECE_BYTES: Final = 8 * 1024 * 1024
"""Of a piece, at most, where a load can be divided as one likes."""

Pieces = Generator[int | Future[Any], None, T]
"""A load as a generator, which the loader's thread drives. Each piece moves some bytes and yields
how many; between two pieces others may come first. A piece that is waited for elsewhere yields its
future instead, and the load goes on when that is done. What the generator returns is what the tier
holds. A load that is given up is closed at a `yield`, so what it has to clean up is in a
`finally`."""


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[K, T]):
    """`key` names it in its tier; `nbytes`: what it takes there, as far as that is known before;
    `load` begins to bring it there from the tier below."""

    key: K
    nbytes: int
    load: Callable[[], Pieces[T]]


def undivided(call: Callable[[], T], nbytes: int) -> Pieces[T]:
    """A load of `nbytes` by a library's function, which cannot be divided: on a thread of its own,
    so that it holds up nothing. Where loads are slowed down it has taken as long as its bytes at
    the end."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="undivided-load", daemon=True).start()
    yield result
    value = result.result()
    for start in range(0, nbytes, PIECE_BYTES):
        yield min(PIECE_BYTES, nbytes - start)
    return value


def at_once(pieces: Pieces[T]) -> T:
    """All pieces one after another, on the thread that calls."""
    while True:
        try:
            waits = next(pieces)
        except StopIteration as end:
            value: T = end.value
            return value
        if isinstance(waits, Future):
            waits.exception()  # the load itself asks for what it is
