"""One supervised process: started, watched, started again when it ends, stopped for good."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from services.fleet.plan.processes import ProcessSpec
from services.fleet.supervisor.forks import Forks
from services.fleet.supervisor.launch import launch
from services.fleet.supervisor.logs import ENDED, ProcessLog
from shared.errors import Misconfigured
from shared.host.exits import MARK, MISCONFIGURED
from shared.policy.restarts import Exit, GiveUp, History, Restart, RestartPolicy, after_exit

OUTPUT_SECONDS: Final = 1.0
"""How long the end of the output of a process that ended is waited for."""

ChildState = Literal["starting", "ready", "backing off", "stopped"]


class Child:
    """Keeps the process of `spec` running from `supervise()` until `stop()`.

    starting --answers on the bus--> ready --exit--> backing off --delay over--> starting
    any --stop--> stopped
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log: ProcessLog,
        policy: RestartPolicy,
        changed: Callable[[], None] = lambda: None,
        forks: Forks | None = None,
    ) -> None:
        """`forks`: where processes are forked; None: they are started in the usual way."""
        self.spec = spec
        self.log = log
        self.state: ChildState = "starting"
        self.pid: int | None = None
        self.restarts = 0
        self.why = ""
        """How it ended last, while it is not ready again."""
        self._policy = policy
        self._changed = changed
        self._forks = forks
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Child {self.spec.name} {self.state} pid={self.pid} restarts={self.restarts}>"

    def mark_ready(self) -> None:
        self.why = ""
        self._become("ready")

    async def supervise(self) -> None:
        """Returns after `stop()`. Raises `Misconfigured` when the process has never been ready and
        says that it is misconfigured, or keeps ending: with its sentence, or the end of the log."""
        history = History()
        try:
            while not self._stopping.is_set():
                self._become("starting")
                began = time.monotonic()
                code = await self._run_once()
                if self._stopping.is_set():
                    break
                end = Exit(time.monotonic() - began, self.state == "ready", code == MISCONFIGURED)
                self._note_end(code)
                history, decision = after_exit(history, end, self._policy)
                await self._follow(decision, code)
        finally:
            self._become("stopped")
            self._ended.set()

    async def stop(self, patience: float) -> None:
        """SIGTERM, and SIGKILL to its whole process group `patience` seconds later."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self._ended.wait()
        except TimeoutError:
            self.log.write(f"{ENDED}killing {self.spec.name}\n".encode())
            self._signal(signal.SIGKILL)

    def _note_end(self, code: int) -> None:
        said = self.log.last_beginning(MARK) if code else ""
        self.log.write(f"{ENDED}{self.spec.name} ended with code {code}\n".encode())
        self.why = said or f"ended with code {code}"

    async def _follow(self, decision: Restart | GiveUp, code: int) -> None:
        if isinstance(decision, GiveUp) and code == MISCONFIGURED:
            raise Misconfigured(f"{self.spec.name}: {self.why}")
        if isinstance(decision, GiveUp):
            raise Misconfigured(
                f"{self.spec.name} ended {decision.exits} times before it was ready, last with "
                f"code {code}; the end of its log:\n{self.log.tail()}"
            )
        self._become("backing off")
        try:
            async with asyncio.timeout(decision.after):
                await self._stopping.wait()
        except TimeoutError:
            self.restarts += 1

    async def _run_once(self) -> int:
        """Start it, copy its output to the log, and return its exit code once it has ended."""
        process = await launch(self.spec, self.log.write, self._forks)
        self.pid = process.pid
        self._changed()
        if self._stopping.is_set():  # told while it was being started
            process.signal_group(signal.SIGTERM)
        try:
            await process.exited.wait()
            # Whoever it started and left behind goes with it; then nobody holds its output, but
            # one who left the group.
            process.signal_group(signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTPUT_SECONDS):
                    await process.silent.wait()
        finally:
            # Also when this task is cancelled.
            process.signal_group(signal.SIGKILL)
            await asyncio.shield(process.exited.wait())
            process.close()
            self.pid = None
        return process.code

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _become(self, state: ChildState) -> None:
        self.state = state
        self._changed()
