"""How long a row stands still when its denoiser dies: from the kill to its next step elsewhere."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable, InvalidRequest
from shared.messages import JobEvent, NodeProgress, StepProgress, decode_event
from tests.chaos.check.leaks import workers

Row = tuple[str, str]
"""Job and node."""


@dataclass(slots=True)
class Recovery:
    """Takes progress events in; `killed` says what they are to be compared with."""

    bus: Bus
    seconds: list[float] = field(default_factory=list)
    """One figure for each row that took its next step elsewhere."""
    holders: dict[Row, str] = field(default_factory=dict)
    """Row under way -> name of the process that started it last."""
    steps: dict[Row, int] = field(default_factory=dict)
    """Row under way -> steps taken, as told last."""
    _stopped: dict[Row, float] = field(default_factory=dict)

    def take(self, event: JobEvent) -> None:
        match event:
            case NodeProgress(kind="denoise", state="started"):
                self.holders[event.job_id, event.node] = event.worker
            case NodeProgress(kind="denoise", state="finished"):
                self._forget((event.job_id, event.node))
            case StepProgress():
                row = event.job_id, event.node
                self.steps[row] = event.step
                died = self._stopped.get(row)
                if died is not None and event.at > died:
                    self.seconds.append(event.at - died)
                    del self._stopped[row]

    def rows_of(self, worker: str) -> list[Row]:
        """Rows that this process has taken a step of, and not finished."""
        return [row for row, name in self.holders.items() if name == worker and row in self.steps]

    def killed(self, worker: str, at: float) -> int:
        """The process is gone since `at` (Unix seconds). Returns how many rows it had."""
        rows = self.rows_of(worker)
        self._stopped.update(dict.fromkeys(rows, at))
        return len(rows)

    async def worker_of(self, pid: int) -> str | None:
        """The name that the events of process `pid` carry."""
        try:
            return (await workers(self.bus)).get(pid)
        except BusUnavailable:
            return None

    def standing(self) -> int:
        """Rows that have not gone on yet."""
        return len(self._stopped)

    def figures(self) -> dict[str, float | int | str]:
        if not self.seconds:
            return {}
        p50, p95 = np.percentile(self.seconds, (50, 95))
        return {
            "rows resumed": len(self.seconds),
            "next step p50 s": float(p50),
            "next step p95 s": float(p95),
            "next step max s": max(self.seconds),
        }

    def _forget(self, row: Row) -> None:
        for known in (self.holders, self.steps, self._stopped):
            known.pop(row, None)


@contextlib.asynccontextmanager
async def following(bus: Bus) -> AsyncIterator[Recovery]:
    recovery = Recovery(bus)

    async def follow() -> None:
        async with bus.subscribe(subjects.event("*")) as events:
            async for message in events:
                with contextlib.suppress(InvalidRequest):
                    recovery.take(decode_event(message.data))

    task = asyncio.create_task(follow())
    try:
        yield recovery
    finally:
        task.cancel()
        await asyncio.wait([task])


def now() -> float:
    """As events tell the time."""
    return time.time()
