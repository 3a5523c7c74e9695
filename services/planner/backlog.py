"""The jobs that wait to be released, and the loop that decides about them.

They stay unacknowledged in JOBS meanwhile: if this planner dies, another one has them. What is
decided is `shared/policy/release`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final

from services.planner.asked import AskedTable
from services.planner.loads import LoadTable, promised_job
from services.planner.standing import NOTHING_KNOWN, Standing
from shared import subjects
from shared.bus.base import Bus
from shared.bus.model_states import ModelState
from shared.config import Settings
from shared.errors import (
    BusUnavailable,
    DarkroomError,
    DeadlineExceeded,
    DeadlineUnreachable,
    HandedOver,
    InvalidRequest,
    JobCancelled,
    ModelRemoved,
    NoLongerWanted,
    NotServed,
    QueueFull,
)
from shared.messages import PromiseReport, decode_load, encode
from shared.policy.release.cold import refuse_cold
from shared.policy.release.decide import release
from shared.policy.release.jobs import Component, Prediction, Refusal, Shares, WaitingJob
from shared.policy.release.load import Load
from shared.policy.release.pace import TICK_SECONDS, pause, settled_at
from shared.policy.release.plan import Margin
from shared.policy.release.rules import Bounds, Rules

log = logging.getLogger(__name__)

PUBLISH_SECONDS: Final = 0.5
"""Pause between two rounds in which the progress of waiting jobs is published, and what is
promised, if it has not changed."""
MOST_UPDATES: Final = 256
"""Jobs whose progress is published in a round, those that go first."""


@dataclass(slots=True, eq=False)
class _Entry:
    job: WaitingJob
    released: asyncio.Future[None]
    progressed: Callable[[], None]
    """The sign of life that keeps the submission ours."""
    prediction: Prediction | None = None
    waits_for: ModelState | None = None
    """What it waits for, if its model is not loaded."""
    published: Standing | None = None
    """What whoever watches the job heard last."""

    @property
    def standing(self) -> Standing:
        return Standing(self.prediction or NOTHING_KNOWN, self.waits_for)


def rules_of(settings: Settings) -> Rules:
    bounds = Bounds(
        settings.backlog_jobs,
        settings.backlog_bytes,
        settings.user_backlog_jobs,
        settings.user_backlog_bytes,
    )
    return Rules(bounds, Margin(settings.deadline_margin))


class Backlog:
    """Of the planner `name`."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        rules: Rules,
        waited_for: Callable[[str], ModelState | None] = lambda model: None,
    ) -> None:
        """`waited_for`: see `Serving`."""
        self._waited_for = waited_for
        self._bus = bus
        self._name = name
        self._rules = rules
        self._table = LoadTable(name)
        self._asked = AskedTable()
        self._entries: dict[str, _Entry] = {}
        self._coming: dict[str, tuple[float, WaitingJob]] = {}
        """When each was released."""
        self._shares = Shares()
        self._changed = asyncio.Event()
        self._leaving = False

    def __repr__(self) -> str:
        return f"<Backlog {len(self._entries)} waiting, {len(self._coming)} on their way>"

    def __len__(self) -> int:
        return len(self._entries)

    async def wait(self, job: WaitingJob, progressed: Callable[[], None]) -> float | None:
        """Return when the job is to be released, with the time by which it is promised to be
        finished, if any. Raises `DeadlineUnreachable`, `DeadlineExceeded` or `QueueFull` if it is
        refused, `JobCancelled`, `HandedOver` if this planner leaves, and `NoLongerWanted` if its
        submission was delivered again meanwhile, and waits here anew."""
        if self._leaving:
            raise HandedOver(job.job_id, "plan")
        self._end(job.job_id, NoLongerWanted(job.job_id, "plan"))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self._entries[job.job_id] = _Entry(job, future, progressed)
        self._asked.count(job, time.time())
        self._changed.set()
        try:
            await future
            return entry.job.promised
        finally:
            if self._entries.get(job.job_id) is entry:
                del self._entries[job.job_id]

    @property
    def models(self) -> frozenset[str]:
        """That jobs here are of."""
        return frozenset(entry.job.denoise.component[1] for entry in self._entries.values())

    def cancel(self, job_id: str) -> bool:
        """End the job, if it waits here."""
        return self._end(job_id, JobCancelled(job_id))

    def keep_models(self, served: Container[str]) -> None:
        """Jobs of other models wait here no more: these were removed."""
        for job_id, entry in list(self._entries.items()):
            _, model = entry.job.denoise.component
            if model not in served:
                self._end(job_id, ModelRemoved(model))

    async def leave(self) -> None:
        """Nobody waits here any more: other planners shall have them."""
        self._leaving = True
        for job_id in list(self._entries):
            self._end(job_id, HandedOver(job_id, "plan"))

    async def run(self) -> None:
        """Decide, for as long as this runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._answer())
            group.create_task(self._publish())
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS if self._entries else None):
                        await self._changed.wait()
                self._changed.clear()
                began = time.perf_counter()
                await self._decide()
                took = time.perf_counter() - began
                await asyncio.sleep(pause(took))

    async def _decide(self) -> None:
        now = time.time()
        self._coming = {
            job_id: (at, job)
            for job_id, (at, job) in self._coming.items()
            if now < settled_at(job, at)
        }
        load = self._table.load(now, [job for _, job in self._coming.values()])
        waiting = self._loaded(load, now)
        found = release(waiting, load, now, self._shares, self._rules)
        self._shares = found.shares
        for job_id, promised in found.admitted.items():
            entry = self._entries[job_id]
            entry.job = replace(entry.job, admitted=True, promised=promised)
        for refusal in found.refused:
            self._end(refusal.job_id, _error_of(refusal, self._entries[refusal.job_id].job))
        for job_id in found.released:
            entry = self._entries[job_id]
            self._coming[job_id] = (now, entry.job)
            entry.released.set_result(None)
        for job_id, prediction in found.predicted.items():
            self._entries[job_id].prediction = prediction
        if found.released or found.admitted:
            await self._publish_promises()

    def _loaded(self, load: Load, now: float) -> list[WaitingJob]:
        """The jobs whose models are loaded. The others wait for that, unless it is known that
        nobody can, or that it will be too late for them."""
        reported = {process.component for process in load.processes}
        standing: dict[str, ModelState | None] = {}
        ready, waiting = [], 0
        for entry in list(self._entries.values()):
            if entry.released.done():
                continue
            job, (_, model) = entry.job, entry.job.denoise.component
            if model not in standing:
                standing[model] = self._waited_for(model)
            stands = standing[model]
            if stands is not None and components(job) <= reported:
                stands = None  # it was loaded a moment ago
            entry.waits_for = stands
            over = job.deadline is not None and job.deadline <= now
            if stands is None or over:
                ready.append(job)
                continue
            entry.prediction = NOTHING_KNOWN
            waiting += 1
            refusal = self._refusal(job, stands, waiting, now)
            if refusal is not None:
                self._end(job.job_id, refusal)
        return ready

    def _refusal(
        self, job: WaitingJob, stands: ModelState, waiting: int, now: float
    ) -> DarkroomError | None:
        """Of the `waiting`-th job that waits for its model."""
        if stands.state == "failed":
            return NotServed(stands.service, stands.name, stands.reason)
        loading = stands.seconds if stands.state == "loading" else None
        refused = refuse_cold(job, waiting - 1, loading, self._rules.bounds, now)
        return None if refused is None else _error_of(refused, job)

    def _end(self, job_id: str, error: DarkroomError) -> bool:
        entry = self._entries.get(job_id)
        if entry is None or entry.released.done():
            return False
        entry.released.set_exception(error)
        return True

    async def _listen(self) -> None:
        """Take in what processes and planners report."""
        async with self._bus.subscribe(subjects.ALL_LOADS) as reports:
            async for message in reports:
                try:
                    seen = self._table.take(decode_load(message.data))
                except InvalidRequest as error:
                    log.warning("a load cannot be read: %s", error)
                    continue
                for job_id in seen.intersection(self._coming):
                    del self._coming[job_id]
                if self._entries:
                    self._changed.set()

    async def _answer(self) -> None:
        """Say how a job stands that waits here."""
        async with self._bus.subscribe(subjects.ALL_WAITING) as questions:
            async for message in questions:
                entry = self._entries.get(subjects.job_of(message.subject))
                if entry is not None and message.reply:
                    reply = entry.standing.reply(entry.job.job_id)
                    with contextlib.suppress(BusUnavailable):
                        await self._bus.publish(message.reply, encode(reply))

    async def _publish(self) -> None:
        """Publish how waiting jobs stand, and to other planners what is promised."""
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            for entry in self._entries.values():
                entry.progressed()
            if self._entries or self._coming:
                await self._publish_promises()
            entries = self._entries.values()
            changed = [e for e in entries if e.prediction and e.standing.shown != e.published]
            changed.sort(key=_position)
            for entry in changed[:MOST_UPDATES]:
                entry.published = entry.standing.shown
                await self._publish_progress(entry)

    async def _publish_progress(self, entry: _Entry) -> None:
        progress = entry.standing.progress(entry.job.job_id, self._name, time.time())
        with contextlib.suppress(BusUnavailable):  # events are lossy
            await self._bus.publish(subjects.event(entry.job.job_id), encode(progress))

    async def _publish_promises(self) -> None:
        jobs = [entry.job for entry in self._entries.values() if entry.job.promised is not None]
        jobs += [job for _, job in self._coming.values()]
        report = PromiseReport(
            process=self._name,
            at=time.time(),
            jobs=tuple(map(promised_job, jobs)),
            asked=self._asked.reports(entry.job for entry in self._entries.values()),
        )
        with contextlib.suppress(BusUnavailable):
            await self._bus.publish(subjects.load(self._name), encode(report))


def components(job: WaitingJob) -> frozenset[Component]:
    """That it needs, one after the other."""
    return frozenset(stage.component for stage in (*job.before, job.denoise, *job.after))


def _position(entry: _Entry) -> int:
    return (entry.prediction and entry.prediction.position) or 0


def _error_of(refusal: Refusal, job: WaitingJob) -> DarkroomError:
    if refusal.bound is not None:
        name, bound = refusal.bound
        return QueueFull(f"the planner's backlog ({name})", bound, refusal.retry_after)
    if refusal.reason == "deadline_exceeded":
        return DeadlineExceeded(job.job_id, job.deadline or 0.0)
    return DeadlineUnreachable(job.job_id, refusal.seconds, refusal.retry_after)
