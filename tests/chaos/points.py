"""Crashes at exactly the moments between which nothing may be lost; see `shared/crash_points.py`.

A file `point@service` lets the first process that reaches that point crash there, once. Each
service has at most one at a time, and gets the next one when every job that was under way at the
crash has ended: what crashes is the process, and no job is to blame for two of them.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Final

from shared.crash_points import POINTS
from tests.chaos.injection import CRASHES
from tests.chaos.polling import until
from tests.chaos.trial import Trial

REACHED_WITHIN: Final = 60.0
"""Seconds in which some process must come by an armed point."""
KNOWN_WITHIN: Final = 20.0
"""Seconds of undisturbed load after which a point that nobody came by is nobody's."""


def prepared(directory: Path) -> dict[str, str]:
    """What a fleet has to have injected, for crashes to be armed in `directory`."""
    (directory / "seen").mkdir(parents=True)
    return {CRASHES: str(directory)}


async def crash_everywhere(trial: Trial, each: int) -> None:
    """`each` crashes at every point, under load."""
    directory = Path(trial.fleet.plan.injected[CRASHES])
    crashes: Counter[str] = Counter()

    async def disturb() -> None:
        await _all_seen(directory)
        services = sorted({name.partition("@")[2] for name in _seen(directory)})
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(_crash(trial, directory, service, each, crashes))

    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb())
        await trial.load.run(disturbing.done)
    trial.figures |= {"points": len(POINTS), "fewest at a point": min(crashes[p] for p in POINTS)}
    trial.remarks += [f"{crashes[p]} crashes at {p}" for p in POINTS if crashes[p] < each]


async def _crash(
    trial: Trial, directory: Path, service: str, each: int, crashes: Counter[str]
) -> None:
    """Crashes of one service, where there have been fewest, until there were enough everywhere."""
    mine = {point for point, _, who in _names(directory) if who == service}
    while wanted := [point for point in mine if crashes[point] < each]:
        point = min(wanted, key=lambda point: (crashes[point], POINTS.index(point)))
        crashes[point] += 1  # at once, so that other services choose other points
        await _crash_at(directory / f"{point}@{service}")
        trial.runs += 1
        await trial.load.others_than(set(trial.load.under_way), REACHED_WITHIN)
        await trial.room(len(trial.fleet.children))


async def _crash_at(armed: Path) -> None:
    armed.touch()  # noqa: ASYNC240 (it lies in memory)
    await until(lambda: not armed.exists(), f"{armed.name} to be reached", REACHED_WITHIN)


def _names(directory: Path) -> list[tuple[str, str, str]]:
    return [name.partition("@") for name in _seen(directory)]


def _seen(directory: Path) -> list[str]:
    return [path.name for path in (directory / "seen").iterdir()]


async def _all_seen(directory: Path) -> None:
    """Return when some process came by every point; that takes a few jobs."""
    await until(
        lambda: {point for point, _, _ in _names(directory)} == set(POINTS),
        f"all of {POINTS} to be reached",
        KNOWN_WITHIN,
    )
