"""What computes: a GPU, or the cores of a machine.

What is computed at the same time shares it equally (processor sharing): a GPU does so by time
slices, cores do once there are more threads than cores.
"""

from collections.abc import Callable
from dataclasses import dataclass

from loadgen.simulator.cluster.clock import Clock


@dataclass(slots=True, eq=False)
class Computation:
    """`left`: seconds that it would still take alone, at the device's last change."""

    left: float
    done: Callable[[], None]


class Device:
    """Computes `capacity` things at full speed, and more of them slower. `busy`: seconds of
    computing so far, of all its capacity together."""

    def __init__(self, clock: Clock, capacity: float = 1.0) -> None:
        self.capacity = capacity
        self.busy = 0.0
        self._clock = clock
        self._running: dict[Computation, None] = {}
        self._since = 0.0
        self._plan = 0

    def __repr__(self) -> str:
        return f"<Device of {self.capacity:g}, {len(self._running)} at work>"

    def begin(self, seconds: float, done: Callable[[], None]) -> Computation:
        """Call `done()` after `seconds` of computing."""
        self._settle()
        one = Computation(max(seconds, 0.0), done)
        self._running[one] = None
        self._plan_next()
        return one

    def left(self, one: Computation) -> float:
        """Seconds of computing that `one` still needs."""
        self._settle()
        return one.left

    def shorten(self, one: Computation, left: float) -> None:
        """`one` is done after `left` more seconds of computing."""
        self._settle()
        one.left = left
        self._plan_next()

    @property
    def speed(self) -> float:
        """Of each thing that is computed now."""
        return min(1.0, self.capacity / len(self._running)) if self._running else 1.0

    def _settle(self) -> None:
        now = self._clock.now
        elapsed = now - self._since
        if elapsed > 0.0:
            self._since = now
            if self._running:
                progress = elapsed * self.speed
                for one in self._running:
                    one.left -= progress
                self.busy += progress * len(self._running)

    def _plan_next(self) -> None:
        """The event of an earlier plan finds itself outdated."""
        self._plan += 1
        if self._running:
            first = min(self._running, key=lambda one: one.left)
            self._clock.after(max(first.left, 0.0) / self.speed, self._due, self._plan, first)

    def _due(self, plan: int, first: Computation) -> None:
        if plan != self._plan:
            return
        self._settle()
        del self._running[first]
        self._plan_next()
        first.done()
