"""Bounded asynchronous loading of adapters (SwiftDiffusion, arXiv 2407.02031 §4.2).

A row starts without its adapters, while they are read. Each joins at the first step boundary at
which it is there; after so many steps the row waits for them. A picture that was begun without an
adapter is another one than with it, though hardly: so it happens only to who asked for it, and the
result says which adapter joined after how many steps.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.denoiser.isolation import Isolation
from services.denoiser.model import Model
from services.denoiser.row import Row
from shared.adapters.bank import Use
from shared.adapters.origins import label
from shared.messages import JobSpec, LoraChoice
from shared.task import Task


async def begin(task: Task, model: Model) -> int | None:
    """Steps that the task's row may take without its adapters; None: none, their files are here
    then. So it is for a suspect, which must not be alone for as long as a fetch takes, and for a
    row that goes on elsewhere, which may have had them already. Raises as `joining` does."""
    spec, late = task.spec, None
    if not task.suspect and task.state.checkpoint is None:
        late = await model.library.late_steps(spec.loras, spec.steps, spec.lora_late_steps) or None
    if late is None:
        await model.library.fetch(spec.loras)
    return late


@asynccontextmanager
async def joining(row: Row, model: Model, task: Task, isolation: Isolation) -> AsyncIterator[None]:
    """Within, the adapters that `row` still lacks are read, and join it as they come; not while
    somebody is alone. Raises `InvalidRequest` or `AdapterUnusable` if one cannot be had, or what
    the block raises."""
    if row.late is None:
        yield
        return
    spec = task.spec
    found: dict[int, Use] = {}

    async def join(number: int, choice: LoraChoice) -> None:
        await model.library.fetch([choice])  # may take long: nobody who wants to be alone waits
        async with isolation.together():
            found[number] = (await model.library.get(choice), choice.scale)
        uses = tuple(found[k] for k in sorted(found))
        task.approximations |= found[number][0].said
        model.engine.adapt(row, uses, complete=len(found) == len(spec.loras))

    try:
        async with asyncio.TaskGroup() as group:
            for number, choice in enumerate(spec.loras):
                group.create_task(join(number, choice))
            yield
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def approximations(row: Row, spec: JobSpec, steps: int) -> set[str]:
    """What to say of `row` after so many steps: which adapters those, or some of them, lacked."""
    if row.late_from_the_start is None:
        return set()
    found = set()
    for name in {label(choice) for choice in spec.loras}:
        missed = min(row.joined.get(name, steps), steps)
        if missed:
            found.add(f"late_lora {name}: image {row.index}, step {missed + 1}")
    return found
