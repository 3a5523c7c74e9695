"""What services do beside the nodes, one thing after another, on cores that nodes compute on."""

from collections import deque
from collections.abc import Callable

from loadgen.simulator.cluster.device import Device


class Beside:
    """One process."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._busy = False

    def __repr__(self) -> str:
        return f"<Beside with {len(self._waiting)} waiting>"

    def do(self, seconds: float, done: Callable[[], None]) -> None:
        """Call `done` after so many seconds of computing, once what came before is over."""
        if seconds <= 0.0:
            done()
            return
        self._waiting.append((seconds, done))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            seconds, done = self._waiting.popleft()
            self._device.begin(seconds, lambda: self._done(done))

    def _done(self, done: Callable[[], None]) -> None:
        self._begin()
        done()
