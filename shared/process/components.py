"""The components of one process: taken in and let go while it runs, without holding up each other.

What follows from what is decided in `shared/policy/components/life.py`. Each component that is held
is a task: it is brought (`component_memory.py`), serves, drains when it is not wanted any more, and
is freed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from shared.bus.discovery import BUDGET
from shared.bus.document import follow
from shared.bus.placement import placed
from shared.bus.unusable import Unusable
from shared.errors import DarkroomError, Misconfigured
from shared.host.tasks import single_error
from shared.messages.components import ComponentState
from shared.models.files.directory import loading
from shared.policy.components.life import Event, Life, Next, decide, load_seconds, wanted_of
from shared.process.component_memory import ComponentHost, ComponentMemory, Haste, LoadedComponent
from shared.process.memory import weights_budget
from shared.residency.loader import Loader
from shared.subjects import PLACED
from shared.worker.context import Context
from shared.worker.memory_budget import component_bytes
from shared.worker.worker import Worker

T = TypeVar("T")
log = logging.getLogger(__name__)

MODELS: Final = "models"
"""In the metadata of a process: the names of what it holds."""
PATIENT_SECONDS: Final = 60.0
"""In which a component is wanted that no job waits for."""


class Components(Generic[T]):
    """Those that one process holds, or shall hold: items of a tier that `loader` serves. `budget`:
    bytes that their weights may take together; by default as DARKROOM_MEMORY says."""

    def __init__(
        self,
        context: Context,
        service: str,
        host: ComponentHost[T],
        loader: Loader,
        budget: int | None = None,
    ) -> None:
        self._context, self._service, self._host = context, service, host
        settings = context.settings
        self._budget = budget or settings.memory or weights_budget(settings.device)
        self._memory = ComponentMemory(context, host, loader, self._budget)
        self._workers: Sequence[Worker] = ()
        self._wanted: tuple[str, ...] = ()
        self._awaited: frozenset[str] = frozenset()
        """Those of which jobs wait."""
        self._lives: dict[str, Life] = {}
        self._next = Next()
        self._held: dict[str, _Held] = {}
        self._sizes: dict[str, int] = {}
        self._took: dict[str, float] = {}
        """Seconds of the last load of each."""
        self._changed, self._at_rest = asyncio.Event(), asyncio.Event()
        self.metadata: dict[str, str] = {MODELS: "", BUDGET: str(self._budget)}
        """Of the process: what it holds now."""
        context.metrics.watch_components(self.states)

    def __repr__(self) -> str:
        held = ", ".join(f"{name} {life.state}" for name, life in self._lives.items())
        return f"<Components {held or 'none'}>"

    # --------------------------------------------------------------------------- what is told

    def states(self) -> list[ComponentState]:
        """Of all that are served, or were a moment ago."""
        names = dict.fromkeys((*self._wanted, *self._lives, *self._host.sources()))
        return [self._state(name) for name in names]

    def unusable(self) -> list[Unusable]:
        """Those that could not be loaded, until they can."""
        sources, kind = self._host.sources(), self._host.kind
        return [
            Unusable(name=name, source=sources.get(name, ""), kind=kind, reason=life.reason)
            for name, life in self._lives.items()
            if life.failures
        ]

    def _state(self, name: str) -> ComponentState:
        life = self._lives.get(name, Life())
        seconds = self._seconds(name, life)
        return ComponentState(
            name=name,
            state=life.state,
            reason=life.reason or self._next.blocked.get(name, ""),
            bytes=self._sizes.get(name, 0),
            seconds=None if seconds is None else round(max(0.0, seconds), 1),
        )

    def _seconds(self, name: str, life: Life) -> float | None:
        """See `ComponentState.seconds`."""
        if life.state == "failed":
            return life.retry_at - _now()
        if life.state not in ("on disk", "loading"):
            return None
        others = {self._sizes.get(other, 0): seconds for other, seconds in self._took.items()}
        whole = load_seconds(self._sizes.get(name, 0), self._took.get(name), others)
        if whole is None or life.state == "on disk":
            return whole
        return whole - (_now() - self._held[name].since)

    # ----------------------------------------------------------------------------- what is done

    @asynccontextmanager
    async def running(self, workers: Sequence[Worker]) -> AsyncIterator[None]:
        """Within, what is wanted is held, and `workers` pull its nodes. It is entered once the
        first ones are loaded. Raises `Misconfigured` if none of them can be, and
        `MemoryBudgetExceeded`, before anything is loaded, if all of them are more than fits."""
        self._workers = workers
        with single_error():
            async with asyncio.TaskGroup() as group:
                helpers = []
                try:
                    await self.look()
                    self._refuse_larger()
                    helpers.append(group.create_task(self._act(group)))
                    await self._at_rest.wait()
                    self._refuse_nothing()
                    bus = self._context.bus
                    helpers.append(group.create_task(follow(bus, PLACED, self.look)))
                    yield
                finally:
                    for helper in (*helpers, *(held.task for held in self._held.values())):
                        helper.cancel()

    async def look(self) -> None:
        """See what is wanted now."""
        said = await placed(self._context.bus, self._context.name, self._service)
        sources = self._host.sources()
        self._wanted = wanted_of(tuple(sources), said.held, said.away)
        self._awaited = frozenset(said.awaited)
        for name in self._wanted:
            if name not in self._held:
                self._sizes[name] = self._size(name, sources[name])
        for name, held in self._held.items():
            if name in self._wanted and held.source != sources[name]:
                held.leave.set()  # and then what is there now is loaded
        self._changed.set()

    def _size(self, name: str, source: str) -> int:
        try:
            folders, dtype = self._host.folders(name), self._context.settings.dtype
            return component_bytes(source, *folders, dtype=dtype)
        except (DarkroomError, OSError) as error:  # loading it says so
            log.info("the weights of %s cannot be measured: %s", name, error)
            return 0

    def _refuse_larger(self) -> None:
        weights = sum(self._sizes[name] for name in self._wanted)
        of = "of " if self._host.kind == "model" else ""
        what = f"{self._host.what} {of}{', '.join(self._wanted)}"
        self._context.budget.refuse_larger(what, weights)

    def _refuse_nothing(self) -> None:
        failed = self.unusable()
        if failed and len(failed) == len(self._wanted):
            raise Misconfigured("; ".join(one.reason for one in failed))

    async def _act(self, group: asyncio.TaskGroup) -> None:
        """Do what is to be done next, for as long as this runs."""
        while True:
            self._changed.clear()
            now = _now()
            found = decide(self._lives, self._wanted, self._sizes, self._budget, now)
            self._next = found
            for name in found.drain:
                self._held[name].leave.set()
            for name in found.drop:
                self._happen(name, "dropped")
            if found.load is not None:
                self._hold(group, found.load)
            elif not any(life.state == "loading" for life in self._lives.values()):
                self._at_rest.set()
            with suppress(TimeoutError):
                pause = None if found.look_at is None else max(0.0, found.look_at - now)
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _hold(self, group: asyncio.TaskGroup, name: str) -> None:
        self._happen(name, "load")
        source, leave = self._host.sources().get(name, ""), asyncio.Event()
        task = group.create_task(self._live(name, leave))
        self._held[name] = _Held(source, leave, task, _now())

    async def _live(self, name: str, leave: asyncio.Event) -> None:
        """From its load until it is let go, and its memory is free."""
        end: Event = "dropped"
        reason = ""
        try:
            loaded = await self._load(name)
            try:
                if not leave.is_set() and name in self._wanted:
                    await self._serve(name, loaded.component[0], leave)
                    end = "drained"
            except DarkroomError as error:
                end, reason = self._ends(name, error)
            await self._memory.let_go(name, loaded)
        except DarkroomError as error:
            end, reason = self._ends(name, error)
        finally:
            del self._held[name]
        self._happen(name, end, reason)

    def _ends(self, name: str, error: DarkroomError) -> tuple[Event, str]:
        """By `error`, and what that says."""
        log.warning("%s is not served from here: %s", name, error)
        end: Event = "drained" if self._lives[name].state == "draining" else "failed"
        return end, error.message

    async def _load(self, name: str) -> LoadedComponent[T]:
        """The component, which stays until it is let go. Raises `DarkroomError`."""
        began = _now()
        beside = self._at_rest.is_set()  # until then nobody computes here
        haste: Haste = "alone" if not beside else "urgent" if name in self._awaited else "patient"
        loaded = await self._memory.bring(name, self._sizes.get(name, 0), haste)
        self._took[name] = _now() - began
        log.info("%s is loaded, in %.1f s", self._host.called(name), self._took[name])
        return loaded

    async def _serve(self, name: str, loaded: T, leave: asyncio.Event) -> None:
        """Until it is to leave, and nothing of it is in hand."""
        async with AsyncExitStack() as stack:
            with loading(self._host.called(name)):
                await stack.enter_async_context(self._host.serving(name, loaded))
                for worker in self._workers:
                    stack.push_async_callback(worker.remove, name)
                    await worker.add(name)
            self._happen(name, "loaded")
            await leave.wait()
            self._happen(name, "drain")

    def _happen(self, name: str, event: Event, reason: str = "") -> None:
        life = self._lives.get(name, Life()).after(event, reason, _now())
        self._lives[name] = life
        loaded = [n for n in self._wanted if self._lives.get(n, Life()).state == "loaded"]
        self.metadata[MODELS] = " ".join(loaded)
        self._changed.set()


@dataclass(frozen=True, slots=True)
class _Held:
    """A component that is loaded, or is about to be."""

    source: str
    leave: asyncio.Event
    """Set when it is to leave."""
    task: asyncio.Task[None]
    since: float


def _now() -> float:
    return asyncio.get_running_loop().time()
