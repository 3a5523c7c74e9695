"""When a process that ended is started again. Pure: no clock, no processes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Bounded exponential backoff; all durations in seconds."""

    first: float = 0.2
    factor: float = 2.0
    longest: float = 10.0
    steady_after: float = 30.0
    """A process that lived this long starts anew with the shortest delay."""
    give_up_after: int = 3
    """Exits in a row of a process that has never been ready, after which it is given up: what
    never worked is misconfigured, what did work once comes back. One that says itself that it is
    misconfigured is given up at once."""


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one process from exit to exit."""

    exits: int = 0
    """In a row, without a steady life in between."""
    ever_ready: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    lived: float
    """Seconds."""
    was_ready: bool
    misconfigured: bool = False
    """It said so, by its status: the same start again will end in the same way."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again `after` this many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It ended `exits` times in a row and has never been ready."""

    exits: int


def after_exit(
    history: History, end: Exit, policy: RestartPolicy
) -> tuple[History, Restart | GiveUp]:
    """What to do with a process that ended, and what to remember of it."""
    steady = end.was_ready and end.lived >= policy.steady_after
    exits = 1 if steady else history.exits + 1
    remembered = History(exits=exits, ever_ready=history.ever_ready or end.was_ready)
    futile = end.misconfigured or exits >= policy.give_up_after
    if futile and not remembered.ever_ready:
        return remembered, GiveUp(exits)
    return remembered, Restart(_delay(exits, policy))


def _delay(exits: int, policy: RestartPolicy) -> float:
    delay = policy.first
    for _ in range(exits - 1):
        delay *= policy.factor
        if delay >= policy.longest:
            return policy.longest
    return min(delay, policy.longest)
