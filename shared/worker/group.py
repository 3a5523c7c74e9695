"""Several workers in one process."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from shared.worker.pull import PullStatistics
from shared.worker.worker import Worker


async def run_together(
    workers: Sequence[Worker], stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Until `stop`. `ready` is called once work can arrive for all of them."""
    waited_for = set(workers)

    def is_ready(worker: Worker) -> None:
        waited_for.discard(worker)
        if not waited_for:
            ready()

    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(stop, partial(is_ready, worker)))


def total(workers: Sequence[Worker]) -> PullStatistics:
    """What they have in hand, and have done, together."""
    each = [worker.statistics() for worker in workers]
    return PullStatistics(
        in_flight=sum(one.in_flight for one in each),
        capacity=sum(one.capacity for one in each),
        handled=sum(one.handled for one in each),
        failed=sum(one.failed for one in each),
    )
