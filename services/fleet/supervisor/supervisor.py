"""Runs a set of processes side by side until told to stop. Knows no bus: who is ready is asked of
a `probe`, and what to do about an exit of `restarts.py`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.fleet.plan.processes import ProcessSpec
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.forks import Forks, can_fork, in_common
from services.fleet.supervisor.logs import ProcessLog
from shared.errors import Misconfigured
from shared.host.tasks import single_error
from shared.policy.restarts import RestartPolicy

PROBE_SECONDS: Final = 0.1
"""Pause between two questions who is ready, while somebody is not."""

Probe = Callable[[], Awaitable[Collection[int]]]
"""The process ids that are ready to work."""


class Supervisor:
    """The processes of `specs`. Use `supervised()`, which starts and stops them."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        probe: Probe,
        log_directory: Path,
        *,
        policy: RestartPolicy,
        verbose: bool,
        changed: Callable[[], None],
    ) -> None:
        log_directory.mkdir(parents=True, exist_ok=True)
        self._probe = probe
        self._changed = changed
        self._forks = _forks(specs, log_directory)
        self._unready = asyncio.Event()
        self._all_ready = asyncio.Event()
        self.children = [
            Child(
                spec,
                ProcessLog(log_directory / f"{spec.name}.log", spec.name, echo=verbose),
                policy,
                self._note,
                self._forks,
            )
            for spec in specs
        ]
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

    async def watch(self) -> None:
        """Ask who is ready for as long as somebody is not; forever."""
        while True:
            await self._unready.wait()
            ready = await self._probe()
            for child in self.children:
                if child.state == "starting" and child.pid in ready:
                    child.mark_ready()
            await asyncio.sleep(PROBE_SECONDS)

    async def stop(self, patience: float) -> None:
        """All at once; each gets `patience` seconds to leave by itself."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(child.stop(patience))
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
    specs: Sequence[ProcessSpec],
    probe: Probe,
    log_directory: Path,
    *,
    policy: RestartPolicy | None = None,
    patience: float = 10.0,
    verbose: bool = False,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Supervisor]:
    """Start every process of `specs`, and stop them all when the context is left; none of them
    survives it. Raises `Misconfigured` into the context if one cannot be got to work."""
    supervisor = Supervisor(
        specs,
        probe,
        log_directory,
        policy=policy or RestartPolicy(),
        verbose=verbose,
        changed=changed,
    )
    try:
        with single_error():
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(supervisor.watch())
                for child in supervisor.children:
                    group.create_task(child.supervise())
                try:
                    yield supervisor
                finally:
                    await supervisor.stop(patience)
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
