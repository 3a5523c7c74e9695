"""Crashes at exactly the moments between which nothing may be lost; see
`shared/host/crash_points.py`.

A file `point@service` lets the first process that reaches that point crash there, once. Each
service has at most one at a time, and gets the next one when every job that was under way at the
crash has ended: what crashes is the process, and no job is to blame for two of them.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Final

from shared.host.crash_points import POINTS
from tests.chaos.fleet.injection import AT_POINTS, PASSED
from tests.chaos.fleet.polling import until
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

REACHED_WITHIN: Final = HANG_SECONDS
"""Seconds in which some process must come by an armed point."""
KNOWN_WITHIN: Final = HANG_SECONDS
"""Seconds of undisturbed load within which every point is somebody's."""
COMMON: Final = 5
"""Passes in undisturbed load that make a point a service's own. Fewer can be chance: any service
commits the outcome of a job whose planner has died, and may never do so again."""


def prepared(directory: Path) -> dict[str, str]:
    """What a fleet has to have injected, for crashes and holds to be armed in `directory`."""
    (directory / PASSED).mkdir(parents=True)
    return {AT_POINTS: str(directory)}


async def crash_everywhere(trial: Trial, each: int) -> None:
    """`each` crashes at every point, under load."""
    directory = Path(trial.fleet.plan.injected[AT_POINTS])
    crashes: Counter[str] = Counter()

    async def disturb() -> None:
        points = await _common(directory)
        async with asyncio.TaskGroup() as group:
            for service, own in points.items():
                group.create_task(_crash(trial, directory, service, own, each, crashes))

    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb())
        await trial.load.run(disturbing.done)
    trial.figures |= {"points": len(POINTS), "fewest at a point": min(crashes[p] for p in POINTS)}
    trial.remarks += [f"{crashes[p]} crashes at {p}" for p in POINTS if crashes[p] < each]


async def _crash(
    trial: Trial, directory: Path, service: str, own: set[str], each: int, crashes: Counter[str]
) -> None:
    """Crashes of one service, where there have been fewest, until there were enough everywhere."""
    while wanted := [point for point in own if crashes[point] < each]:
        point = min(wanted, key=lambda point: (crashes[point], POINTS.index(point)))
        crashes[point] += 1  # at once, so that other services choose other points
        await _crash_at(directory / f"{point}@{service}")
        trial.runs += 1
        await trial.load.others_than(set(trial.load.under_way), REACHED_WITHIN)
        await trial.room(len(trial.fleet.children))


async def _crash_at(armed: Path) -> None:
    armed.touch()  # noqa: ASYNC240 (it lies in memory)
    await until(lambda: not armed.exists(), f"{armed.name} to be reached", REACHED_WITHIN)


async def _common(directory: Path) -> dict[str, set[str]]:
    """The points that each service comes by under load as it is now; together they are all."""
    before = _passes(directory)
    points: dict[str, set[str]] = {}

    def all_known() -> bool:
        points.clear()
        for name, passes in (_passes(directory) - before).items():
            if passes >= COMMON:
                point, _, service = name.partition("@")
                points.setdefault(service, set()).add(point)
        return set().union(*points.values()) == set(POINTS)

    await until(all_known, f"all of {POINTS} to be passed {COMMON} times", KNOWN_WITHIN)
    return points


def _passes(directory: Path) -> Counter[str]:
    """By `point@service`."""
    return Counter({path.name: path.stat().st_size for path in (directory / PASSED).iterdir()})
