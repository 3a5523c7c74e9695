"""kill -9 of denoisers while they load a model, and while they let one go, under load."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final, Literal

from shared.bus.placement import placement, within, without
from shared.shipped import DEFAULT_MODEL
from tests.chaos.fleet.holds import hold
from tests.chaos.fleet.injection import AT_POINTS
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

SERVICE: Final = "denoiser"
PLACES: Final[tuple[Literal["drain", "load"], ...]] = ("drain", "load")
"""Where stand-ins can be held."""
MODEL: Final = Path(DEFAULT_MODEL).name


async def come_and_go(trial: Trial, kills: int) -> None:
    """All denoisers are told to let their model go, again and again, and jobs have it loaded again;
    one of them dies on the way there or back."""

    async def disturb() -> None:
        while trial.runs < kills:
            await _kill_at(trial, PLACES[trial.runs % len(PLACES)])
            trial.runs += 1
            await trial.load.others_than(set(trial.load.under_way), HANG_SECONDS)
            await trial.room(1)

    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb())
        await trial.load.run(disturbing.done)
    await placement(trial.fleet.bus, SERVICE).change(within([MODEL]))


async def _kill_at(trial: Trial, place: str) -> None:
    """A job comes in each case, for users come back: so what was let go is loaded."""
    directory = Path(trial.fleet.plan.injected[AT_POINTS])
    with hold(directory, f"{place}@{SERVICE}") as held:
        await placement(trial.fleet.bus, SERVICE).change(without([MODEL]))
        os.kill(await held.reached(), signal.SIGKILL)
