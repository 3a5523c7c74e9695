"""Runs a set of processes side by side until told to stop; more and fewer of them on demand. Knows
no bus: who is ready is asked of a `probe`, and what to do about an exit of `restarts.py`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.fleet.plan.processes import Crew, ProcessSpec
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.forks import Forks, can_fork, in_common
from services.fleet.supervisor.logs import ProcessLog
from shared.errors import Misconfigured
from shared.host.tasks import single_error
from shared.policy.restarts import RestartPolicy

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 0.1
"""Pause between two questions who is ready, while somebody is not."""

Probe = Callable[[], Awaitable[Collection[int]]]
"""The process ids that are ready to work."""


class Supervisor:
    """The processes of `crew`. Use `supervised()`, which starts and stops them; `resize` starts
    those that are spare."""

    def __init__(
        self,
        crew: Crew,
        probe: Probe,
        log_directory: Path,
        *,
        patience: float,
        policy: RestartPolicy,
        verbose: bool,
        changed: Callable[[], None],
    ) -> None:
        log_directory.mkdir(parents=True, exist_ok=True)
        self._planned = crew.all
        self._probe = probe
        self._logs = log_directory
        self._patience = patience
        self._policy = policy
        self._verbose = verbose
        self._changed = changed
        self._forks = _forks(self._planned, log_directory)
        self._unready = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._leaving: set[Child] = set()
        self.children = [self._child(spec) for spec in crew.begin]
        self._note()

    def __repr__(self) -> str:
        return f"<Supervisor {self.children}>"

    async def ready(self, within: float) -> None:
        """Wait until every process is ready. Raises `Misconfigured` after `within` seconds, naming
        one that is not, with the end of its log."""
        try:
            async with asyncio.timeout(within):
                await self._all_ready.wait()
        except TimeoutError:
            late = next(child for child in self.children if child.state != "ready")
            raise Misconfigured(
                f"{late.spec.name} is not ready after {within:.0f} s; the end of its log:\n"
                f"{late.log.tail()}"
            ) from None

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Start all, as tasks of `group`: one that cannot be got to work ends them all."""
        self._group = group
        for child in self.children:
            group.create_task(self._supervise(child, needed=True))

    def resize(self, service: str, count: int) -> None:
        """Have `count` of the processes that were planned for `service`: the first ones. Others are
        told to leave, and have their time to hand over, or finish, what they have in hand."""
        assert self._group is not None
        planned = [spec for spec in self._planned if spec.service == service]
        there = {child.spec.name: child for child in self.children}
        for spec in planned[:count]:
            if spec.name not in there:
                child = self._child(spec)
                self.children.append(child)
                self._group.create_task(self._supervise(child, needed=False))
        for spec in planned[count:]:
            leaving = there.get(spec.name)
            if leaving is not None and leaving not in self._leaving:
                self._leaving.add(leaving)
                self._group.create_task(leaving.stop(self._patience))
        self._note()

    async def _supervise(self, child: Child, needed: bool) -> None:
        """One that is not `needed`, or was told to leave, is forgotten when it has ended."""
        try:
            await child.supervise()
        except Misconfigured as error:
            if needed:
                raise
            log.warning("%s is left out: %s", child.spec.name, error)
        if not needed or child in self._leaving:
            self._leaving.discard(child)
            self.children.remove(child)
            child.log.close()
            self._note()

    def _child(self, spec: ProcessSpec) -> Child:
        output = ProcessLog(self._logs / f"{spec.name}.log", spec.name, echo=self._verbose)
        return Child(spec, output, self._policy, self._note, self._forks)

    async def watch(self) -> None:
        """Ask who is ready for as long as somebody is not; forever."""
        while True:
            await self._unready.wait()
            ready = await self._probe()
            for child in self.children:
                if child.state == "starting" and child.pid in ready:
                    child.mark_ready()
            await asyncio.sleep(PROBE_SECONDS)

    async def stop(self) -> None:
        """All at once; each gets its time to leave by itself."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(child.stop(self._patience))
            if self._forks is not None:
                group.create_task(self._forks.close())

    def close(self) -> None:
        for child in self.children:
            child.log.close()

    def _note(self) -> None:
        """Some child changed its state."""
        complete = all(child.state == "ready" for child in self.children)
        _set(self._all_ready, complete)
        _set(self._unready, not complete)
        self._changed()


@asynccontextmanager
async def supervised(
    crew: Crew,
    probe: Probe,
    log_directory: Path,
    *,
    policy: RestartPolicy | None = None,
    patience: float = 10.0,
    verbose: bool = False,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Supervisor]:
    """Start the processes of `crew`, and stop them all when the context is left; none of them
    survives it. Each has `patience` seconds
    to leave by itself. Raises `Misconfigured` into the context if one cannot be got to work."""
    supervisor = Supervisor(
        crew,
        probe,
        log_directory,
        patience=patience,
        policy=policy or RestartPolicy(),
        verbose=verbose,
        changed=changed,
    )
    try:
        with single_error():
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(supervisor.watch())
                supervisor.begin(group)
                try:
                    yield supervisor
                finally:
                    await supervisor.stop()
                    watching.cancel()
    finally:
        supervisor.close()


def _forks(specs: Sequence[ProcessSpec], logs: Path) -> Forks | None:
    """None where processes cannot be forked."""
    if not specs or not can_fork():
        return None
    return Forks(in_common(spec.environment for spec in specs), logs)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
