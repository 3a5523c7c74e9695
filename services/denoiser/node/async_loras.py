"""Bounded asynchronous loading of adapters (SwiftDiffusion, arXiv 2407.02031 §4.2).

A row starts without its adapters, while they are read. Each joins at the first step boundary at
which it is there; after so many steps the row waits for them. A picture that was begun without an
adapter is another one than with it, though hardly: so it happens only to who asked for it, and the
result says which adapter joined after how many steps.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from services.denoiser.node.exclusive_run import ExclusiveRun
from services.denoiser.node.model import Model
from services.denoiser.rows.extension import RowExtension
from services.denoiser.rows.row import Row
from shared.messages import LoraChoice
from shared.models.loras.sources.origins import label
from shared.models.lowrank.bank import Use
from shared.worker.task import Task


class LateLoras(RowExtension):
    """Of one row, which may take `most` steps while LoRAs are still missing."""

    def __init__(self, most: int, names: Collection[str]) -> None:
        """`names`: of all its LoRAs, as the result tells them."""
        self._most, self._names = most, frozenset(names)
        self._complete = False
        self._joined: dict[str, int] = {}
        """By name: the steps that were done when it joined."""

    def __repr__(self) -> str:
        return f"<LateLoras {sorted(self._joined)} of {sorted(self._names)}>"

    def blocked(self, step: int) -> bool:
        return not self._complete and step >= self._most

    @property
    def lacks_adapters(self) -> bool:
        return not self._complete

    def stepping(self, step: int, adapters: Collection[Use]) -> None:
        for adapter, _ in adapters:
            self._joined.setdefault(adapter.name, step)

    def completed(self) -> None:
        """The row has all its LoRAs."""
        self._complete = True

    def approximations(self, index: int, steps: int) -> set[str]:
        """Which LoRAs the first `steps` steps, or some of them, lacked."""
        missed = {name: min(self._joined.get(name, steps), steps) for name in self._names}
        return {
            f"late_lora {name}: image {index}, step {lacked + 1}"
            for name, lacked in missed.items()
            if lacked
        }


async def begin(task: Task, model: Model) -> LateLoras | None:
    """What the task's row has if it may begin without its adapters; None: their files are here
    then. So it is for a suspect, which must not be alone for as long as a fetch takes, and for a
    row that goes on elsewhere, which may have had them already. Raises as `joining` does."""
    spec, steps = task.spec, None
    if not task.suspect and task.state.checkpoint is None:
        steps = await model.library.late_steps(spec.loras, spec.steps, spec.lora_late_steps)
    if not steps:
        await model.library.fetch(spec.loras)
        return None
    return LateLoras(steps, {label(choice) for choice in spec.loras})


@asynccontextmanager
async def joining(
    row: Row, model: Model, task: Task, isolation: ExclusiveRun
) -> AsyncIterator[None]:
    """Within, the adapters that `row` still lacks are read, and join it as they come; not while
    somebody is alone. Raises `InvalidRequest` or `AdapterUnusable` if one cannot be had, or what
    the block raises."""
    late = row.extension(LateLoras)
    if late is None:
        yield
        return
    spec = task.spec
    found: dict[int, Use] = {}

    async def join(number: int, choice: LoraChoice) -> None:
        await model.library.fetch([choice])  # may take long: nobody who wants to be alone waits
        async with isolation.together():
            found[number] = (await model.library.get(choice), choice.scale)
        task.approximations |= found[number][0].said
        model.engine.change(row, joined)

    def joined(row: Row) -> None:
        row.adapters = tuple(found[k] for k in sorted(found))
        if len(found) == len(spec.loras):
            late.completed()

    try:
        async with asyncio.TaskGroup() as group:
            for number, choice in enumerate(spec.loras):
                group.create_task(join(number, choice))
            yield
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
