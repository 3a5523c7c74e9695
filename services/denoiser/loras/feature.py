"""Bounded asynchronous loading of adapters (SwiftDiffusion, arXiv 2407.02031 §4.2).

A row starts without its adapters, while they are read. Each joins at the first step boundary at
which it is there, or can be in the weights if that is about to pay; after so many steps the row
waits for them. An image that was begun without an
adapter is another one than with it, though hardly: so it happens only to who asked for it, and the
result says which adapter joined after how many steps.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.denoiser.loras.extension import LateLoras, RowLoras
from services.denoiser.rows.feature import Reading, RowFeature, Running
from services.denoiser.rows.row import Row
from shared.messages import LoraChoice
from shared.messages.nodes import Denoise
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.origins import label
from shared.models.lowrank.bank import Use
from shared.worker.task import Task


class Loras(RowFeature):
    """Those of one model's rows."""

    def __init__(self, library: AdapterLibrary) -> None:
        self.library = library

    async def fetch(self, task: Task) -> Reading | None:
        """A suspect never begins without its adapters, for it must not be alone for as long as a
        fetch takes; nor does a row that goes on elsewhere, which may have had them already. Raises
        `InvalidRequest` or `AdapterUnusable` if one cannot be had."""
        asked, steps = task.parameters(Denoise), 0
        if not task.suspect and task.state.checkpoint is None:
            steps = await self.library.late_steps(asked.loras, asked.steps, asked.lora_late_steps)

        async def late() -> RowLoras:
            return LateLoras(steps, {label(choice) for choice in asked.loras})

        async def read() -> RowLoras:
            uses = await self.library.uses(asked.loras)
            task.approximations.update(*(adapter.said for adapter, _ in uses))
            return RowLoras(uses)

        if not asked.loras:
            return None
        if steps:
            return late
        await self.library.fetch(asked.loras)
        return read

    @asynccontextmanager
    async def running(self, running: Running) -> AsyncIterator[None]:
        """Within, the adapters that the row still lacks are read, and join it as they come. Raises
        as `fetch` does if one cannot be had, or what the block raises."""
        task, late = running.task, running.row.extension(LateLoras)
        if late is None:
            yield
            return
        late.begin(running.row.table.steps)
        found: dict[int, Use] = {}
        wanted = task.parameters(Denoise).loras

        async def join(number: int, choice: LoraChoice) -> None:
            await self.library.fetch([choice])  # may take long: nobody who wants to be alone waits
            async with running.together():
                found[number] = (await self.library.get(choice), choice.scale)
            task.approximations |= found[number][0].said
            running.change(running.row, arrived)

        def arrived(row: Row) -> None:
            late.arrive(tuple(found[k] for k in sorted(found)), len(found) == len(wanted))

        try:
            async with asyncio.TaskGroup() as group:
                for number, choice in enumerate(wanted):
                    group.create_task(join(number, choice))
                yield
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
