"""One trial: a fleet, users, harm, and then the question what came of it."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from services.fleet.supervisor.child import Child
from shared import subjects
from shared.client import Darkroom
from shared.errors import BusUnavailable
from shared.messages import GenerationRequest, JobDone, Outcome
from tests.chaos.check.audit import audit, outcomes
from tests.chaos.check.leaks import ownerless, slots_left
from tests.chaos.check.recovery import Recovery, following
from tests.chaos.check.watching import Watch, watched
from tests.chaos.fleet.fleets import ChaosFleet
from tests.chaos.fleet.polling import until
from tests.chaos.load import USERS, Load, requests
from tests.chaos.report import CaseResult
from tests.conftest import HANG_SECONDS

SETTLE_SECONDS: Final = HANG_SECONDS
"""How long jobs may take to end once nothing is harmed any more."""
MOST_DOWN: Final = 3
"""Processes that a case keeps from working at a time."""

Expected = Callable[[str, Outcome], bool]


@dataclass(slots=True)
class Trial:
    """What a case works with. It counts its `runs`, and adds `figures` and `remarks`."""

    fleet: ChaosFleet
    watch: Watch
    load: Load
    recovery: Recovery
    chance: random.Random
    runs: int = 0
    figures: dict[str, float | int | str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def down(self) -> int:
        """Processes that do not work now."""
        return len(self.fleet.children) - len(self.fleet.ready())

    async def room(self, most_down: int = MOST_DOWN) -> None:
        """Return when fewer than `most_down` processes do not work."""
        await until(lambda: self.down() < most_down, "processes to come back", HANG_SECONDS)

    async def ready(self, child: Child, other_than: int) -> None:
        """Return when `child` works again, as another process than the one killed."""
        await until(
            lambda: child.state == "ready" and child.pid not in (None, other_than),
            f"{child.spec.name} to come back",
            HANG_SECONDS,
        )


@asynccontextmanager
async def trial_on(
    fleet: ChaosFleet,
    seed: int,
    wanted: Sequence[GenerationRequest] | None = None,
    with_records: bool = True,
    users: int = USERS,
) -> AsyncIterator[Trial]:
    """Its jobs ask for what is `wanted`, else for `requests()`; each was painted by the undisturbed
    fleet first, to compare with."""
    async with (
        watched(fleet.bus, with_records) as watch,
        following(fleet.bus) as recovery,
        Darkroom(fleet.bus) as darkroom,
    ):
        load = Load(darkroom, wanted or requests(), users)
        await load.paint_references()
        yield Trial(fleet, watch, load, recovery, random.Random(seed))


async def settled(trial: Trial, within: float) -> None:
    """Return when every acknowledged job has ended, or after `within` seconds."""
    deadline = time.monotonic() + within
    left = set(trial.load.acknowledged)
    while left and time.monotonic() < deadline:
        try:
            left = {j for j in left if await trial.load.darkroom.stored_outcome(j) is None}
        except BusUnavailable:
            continue
        await asyncio.sleep(0.1)
    while time.monotonic() < deadline:
        if await trial.watch.caught_up():
            return
        await asyncio.sleep(0.1)


def is_done(job_id: str, outcome: Outcome) -> bool:
    return isinstance(outcome, JobDone)


async def measured(
    case: str,
    trial: Trial,
    body: Callable[[Trial], Awaitable[None]],
    *,
    long: bool,
    wanted_runs: int,
    limit: float,
    expected: Expected = is_done,
    settle: float = SETTLE_SECONDS,
) -> CaseResult:
    """Let `body` do its harm for at most `limit` seconds, then look at everything that was written
    and at everything that is still held."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            await body(trial)
    except* TimeoutError as errors:
        trial.remarks += [str(e) or f"not over after {limit:.0f} s" for e in _leaves(errors)]
    await settled(trial, settle)
    held = await slots_left(trial.fleet.bus, within=settle)
    files = await _files_left(trial.fleet, settle)
    history = trial.watch.history(trial.load.acknowledged)
    violations, ended = audit(history), outcomes(history)
    wrong = [j for j in trial.load.acknowledged if j in ended and not expected(j, ended[j])]
    counted = ("lost", "second result")
    return CaseResult(
        case=case,
        long=long,
        runs=trial.runs,
        wanted_runs=wanted_runs,
        jobs=len(trial.load.acknowledged),
        lost=sum(v.rule == "lost" for v in violations),
        failed=len(wrong),
        second_results=sum(v.rule == "second result" for v in violations),
        violations=[str(v) for v in violations if v.rule not in counted],
        slots_left=len(held),
        files_left=files,
        processes_left=0,
        differing=len(trial.load.differing(history)),
        remarks=[*trial.remarks, *(f"{j}: {ended[j]}"[:300] for j in wrong[:3])],
        figures={**trial.figures, **_unseen(trial.watch)},
        seconds=time.monotonic() - began,
    )


def _leaves(group: BaseExceptionGroup[TimeoutError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _unseen(watch: Watch) -> dict[str, int]:
    unseen = watch.records.unseen
    return {f"unseen revisions of {watch.records.last}": unseen} if unseen else {}


async def _files_left(fleet: ChaosFleet, within: float) -> int:
    """Arenas of dead owners, once their grace is over."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: not ownerless(fleet.arenas), "arenas to be removed", within)
    return len(ownerless(fleet.arenas))


async def dead_letters(trial: Trial) -> set[str]:
    """Jobs in the dead-letter stream."""
    listing = trial.fleet.bus.listing(subjects.DEAD, subjects.ALL_DEAD)
    return {subjects.job_of(subject) async for subject, _ in listing}
