"""What a feature of rows does for one model's tasks, outside the step loop.

A feature is a subclass in its own folder, beside its extension (`extension.py`) and the predictor
that computes with it (`forward/predictors.py`). Each method here says what a plain row needs.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from services.denoiser.rows.extension import RowExtension
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.worker.task import Task

Reading = Callable[[], Awaitable[RowExtension]]
"""What a row is given, read now."""


@dataclass(frozen=True, slots=True)
class Running:
    """The row of a task, in its engine."""

    task: Task
    row: Row
    change: Callable[[Row, Callable[[Row], None]], None]
    """See `Engine.change`."""
    together: Callable[[], AbstractAsyncContextManager[None]]
    """See `ExclusiveRun.together`."""


class RowFeature:
    """In the event loop, but for `extend`."""

    async def fetch(self, task: Task) -> Reading | None:
        """Bring to this host what the task's row needs, however long that takes, and return how it
        is read while nobody is alone. None: nothing is."""
        return None

    def extend(self, task: Task, row: Row, image: SourceImage | None) -> RowExtension | None:
        """What `row` is given, which was built for `task` and begins from `image`; it has the
        extensions of the features before this one. Blocks, and is called in any thread."""
        return None

    def running(self, running: Running) -> AbstractAsyncContextManager[None]:
        """Within, the row is computed. What it raises is why the row fails."""
        return nullcontext()

    def close(self) -> None:
        """No row is computed here any more."""
