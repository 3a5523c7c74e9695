"""Jobs of models that were removed end by that, wherever they wait."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from shared.errors import DarkroomError, ModelRemoved
from shared.messages.handle import TensorHandle
from shared.services import NodeKind
from shared.worker.task import Handler, Task
from shared.worker.worker import Worker

REFUSING_SECONDS: Final = 60.0
"""For so long after a removal, or a start, nodes may still come: of jobs that were let in before,
or by a planner that had not heard."""

log = logging.getLogger(__name__)


class RemovedModels(Handler):
    """Fails the nodes of `kind` of models that were removed."""

    capacity = 32

    def __init__(self, kind: NodeKind) -> None:
        self.kind = kind
        self.models = ()

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        raise ModelRemoved(task.node.model)


class RefusedQueues:
    """Of models that were removed lately: `gone()`. `workers`: each of a `RemovedModels`."""

    def __init__(self, gone: Callable[[], Sequence[str]], workers: Sequence[Worker]) -> None:
        self._gone, self._workers = gone, workers
        self._until: dict[str, float] = {}
        """When each is refused no more."""
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<RefusedQueues of {', '.join(self._until) or 'none'}>"

    async def look(self) -> None:
        """See what is gone now. A model that is back is let go at once."""
        self._changed.set()
        back = [name for name in self._until if name not in self._gone()]
        await asyncio.gather(*map(self._leave, back))

    async def run(self) -> None:
        """For as long as this runs."""
        refused: set[str] = set()
        while True:
            self._changed.clear()
            now = _now()
            for name in self._gone():
                if name not in refused:
                    await self._take(name, now)
            refused = set(self._gone())
            over = [name for name, until in self._until.items() if until <= now]
            await asyncio.gather(*map(self._leave, over))
            soonest = min(self._until.values(), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if soonest is None else max(0.0, soonest - now)):
                    await self._changed.wait()

    async def _take(self, name: str, now: float) -> None:
        try:
            for worker in self._workers:
                await worker.add(name)
        except DarkroomError as error:  # somebody else does, or its jobs end by their deadlines
            log.warning("jobs of the removed model %s are not ended from here: %s", name, error)
        self._until[name] = now + REFUSING_SECONDS

    async def _leave(self, name: str) -> None:
        self._until.pop(name, None)
        await asyncio.gather(*(worker.remove(name) for worker in self._workers))


def _now() -> float:
    return asyncio.get_running_loop().time()
