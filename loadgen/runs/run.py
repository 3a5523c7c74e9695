"""Sends shots and notes what becomes of them.

Open loop: every shot goes out at its intended time, whatever the server does. Closed loop: N users,
each of whom waits for the answer, thinks, and asks again.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.targets.base import Answer, Target
from loadgen.workload.workload import Workload, requests

INTERRUPTED: Final = Answer("lost", "interrupted")
NOT_DRAINED: Final = Answer("timeout", "drain")
RETRY_SECONDS: Final = 0.5
"""How long a user at least waits after a request that failed: a server that is down would
otherwise be asked as fast as the processor allows."""


class Interrupted(Exception):
    """Something that needs an answer was told to stop before it had one."""


class Observer(Protocol):
    """Looks on while a run goes; `at` is in seconds from the run's start."""

    def sent(self, shot: Shot, at: float) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


class Nobody:
    """An observer that does not care."""

    def sent(self, shot: Shot, at: float) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass


@dataclass
class _Run:
    """What both loops share: the clock, what is in flight, and what has ended."""

    target: Target
    observer: Observer
    limits: Limits
    stop: asyncio.Event
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    flying: dict[asyncio.Task[Outcome], None] = field(default_factory=dict)
    """What is in flight, in the order it was sent."""
    outcomes: list[Outcome] = field(default_factory=list)
    cut_off: Answer = INTERRUPTED
    """How a shot that is cancelled ends."""

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def sleep_until(self, at: float) -> None:
        """Returns at `at`, or when the run is to stop."""
        await self.wait(self.stop.wait(), at)

    async def wait(self, what: Coroutine[Any, Any, Any], until: float) -> None:
        """Returns when `what` has, at the latest at `until`."""
        try:
            async with asyncio.timeout_at(self.began + until):
                await what
        except TimeoutError:
            pass

    def launch(self, group: asyncio.TaskGroup, shot: Shot) -> None:
        if len(self.flying) >= self.limits.in_flight:
            self.note(shot, self.now(), Answer("lost", "in_flight_limit"))
            return
        self.fly_in(group, shot)

    def fly_in(self, group: asyncio.TaskGroup, shot: Shot) -> asyncio.Task[Outcome]:
        task = group.create_task(self.fly(shot))
        self.flying[task] = None
        task.add_done_callback(self.flying.pop)
        return task

    async def fly(self, shot: Shot) -> Outcome:
        """Never raises but `CancelledError`, and that only from outside of the run."""
        sent_at = self.now()
        self.observer.sent(shot, sent_at)
        try:
            async with asyncio.timeout(self.limits.timeout):
                answer = await self.target.send(shot)
        except TimeoutError:
            answer = Answer("timeout", "timeout")
        except asyncio.CancelledError:
            self.note(shot, sent_at, self.cut_off)
            raise
        return self.note(shot, sent_at, answer)

    def note(self, shot: Shot, sent_at: float, how: Answer) -> Outcome:
        outcome = Outcome(shot, sent_at, self.now(), how.status, how.failure, how.images, how.bytes)
        self.outcomes.append(outcome)
        self.observer.ended(outcome)
        return outcome

    async def drain(self) -> None:
        """Wait for what is in flight, as long as the limits and `stop` allow; then cut it off."""
        if self.flying:
            landed = asyncio.create_task(_all_of(tuple(self.flying)))
            await self.wait(_first(landed, self.stop), self.now() + self.limits.drain)
            landed.cancel()
        self.cut_off = INTERRUPTED if self.stop.is_set() else NOT_DRAINED
        for task in self.flying:
            task.cancel()


async def run_open(
    shots: Iterable[Shot],
    target: Target,
    *,
    observer: Observer | None = None,
    limits: Limits | None = None,
    stop: asyncio.Event | None = None,
) -> list[Outcome]:
    """Send `shots` (in the order of their times) to `target`; their outcomes, as they ended.

    Setting `stop` ends the run: what is in flight is `lost` as `interrupted`, and what was not
    due yet has no outcome."""
    run = _Run(target, observer or Nobody(), limits or Limits(), stop or asyncio.Event())
    async with asyncio.TaskGroup() as group:
        for shot in shots:
            await run.sleep_until(shot.at)
            if run.stop.is_set():
                break
            run.launch(group, shot)
        await run.drain()
    return run.outcomes


async def run_closed(
    workload: Workload,
    target: Target,
    *,
    users: int,
    think: float = 0.0,
    observer: Observer | None = None,
    limits: Limits | None = None,
    stop: asyncio.Event | None = None,
) -> list[Outcome]:
    """For `workload.seconds`, `users` users each ask, wait, and think for a time that is
    exponential with mean `think` seconds. What each asks is decided by the workload's seed; its
    arrivals and trace do not count here. Outcomes as for `run_open`."""
    run = _Run(target, observer or Nobody(), limits or Limits(), stop or asyncio.Event())
    count = itertools.count()
    async with asyncio.TaskGroup() as group:
        async with asyncio.TaskGroup() as everybody:
            for user in range(users):
                everybody.create_task(_user(run, group, workload, user, think, count))
        await run.drain()
    return run.outcomes


async def _user(
    run: _Run,
    group: asyncio.TaskGroup,
    workload: Workload,
    user: int,
    think: float,
    count: Iterator[int],
) -> None:
    """One user, until the workload's time is over; the last answer may still be on its way."""
    thoughts = Random(f"{workload.seed}/think/{user}")
    for tenant, template, request in requests(workload, f"user/{user}"):
        if run.stop.is_set() or run.now() >= workload.seconds:
            return
        shot = Shot(next(count), run.now(), tenant, template, request)
        task = run.fly_in(group, shot)
        await run.wait(_first(task, run.stop), workload.seconds)
        pause = thoughts.expovariate(1 / think) if think else 0.0
        if task.done() and task.result().status != "done":
            pause = max(pause, RETRY_SECONDS)
        await run.sleep_until(min(run.now() + pause, workload.seconds))


async def _all_of(tasks: Iterable[asyncio.Task[Outcome]]) -> None:
    """Returns when all `tasks` have ended; cancelling it leaves them alone."""
    await asyncio.wait(tasks)


async def _first(task: asyncio.Task[Any], stop: asyncio.Event) -> None:
    """Returns when `task` has ended or `stop` is set; neither is touched."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
