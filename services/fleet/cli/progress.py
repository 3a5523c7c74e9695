"""Shows a person how a job gets on: a live line per stage on a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.fleet.cli.stages import Stages
from services.fleet.supervisor.child import Child
from shared.messages import JobEvent


class Display(Protocol):
    def fleet(self, children: Sequence[Child]) -> None:
        """How far the fleet is, whenever one of its processes changes its state."""
        ...

    def event(self, stages: Stages, event: JobEvent | None) -> None:
        """`event` came in. None: the job has just been submitted, or is done."""
        ...


@contextmanager
def display(console: Console) -> Iterator[Display]:
    """The one that suits `console`."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield LiveDisplay(progress)


class LiveDisplay:
    """One line for the fleet while it starts, and one per stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def fleet(self, children: Sequence[Child]) -> None:
        total = len(children)
        stopped = sum(child.state == "stopped" for child in children)
        missing = [child.spec.name for child in children if child.state != "ready"]
        if stopped:
            self._show("fleet", total, total, "stopped" if stopped == total else "stopping", False)
        elif missing:
            state = f"starting {', '.join(missing)}"
            self._show("fleet", total - len(missing), total, state, True)
        else:
            self._show("fleet", total, total, "ready", False)

    def event(self, stages: Stages, event: JobEvent | None) -> None:
        if event is not None:
            stages.take(event)
        if stages.standing or "queue" in self._lines:
            self._show("queue", not stages.standing, 1, stages.standing, bool(stages.standing))
        for kind, stage in stages.by_kind.items():
            running = stage.state == "running"
            self._show(kind, stage.done, stage.total, stage.state, running)

    def _show(self, name: str, done: int, total: int, state: str, running: bool) -> None:
        if name not in self._lines:
            self._lines[name] = self._progress.add_task(name, start=False, state="", total=total)
        line = self._lines[name]
        if running and self._progress.tasks[line].start_time is None:
            self._progress.start_task(line)
        self._progress.update(line, completed=done, total=total, state=state)


class PlainDisplay:
    """One line per change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ready: set[str] = set()
        self._said: dict[str, str] = {}

    def fleet(self, children: Sequence[Child]) -> None:
        ready = {child.spec.name for child in children if child.state == "ready"}
        for name in sorted(ready - self._ready):
            self._say(f"fleet: {name} is ready")
        self._ready |= ready

    def event(self, stages: Stages, event: JobEvent | None) -> None:
        if event is not None:
            stages.take(event)
        if stages.standing and self._said.get("queue") != stages.standing:
            self._said["queue"] = stages.standing
            self._say(f"queue: {stages.standing}")
        for stage in stages.by_kind.values():
            if stage.state != "waiting" and self._said.get(stage.kind) != str(stage):
                self._said[stage.kind] = str(stage)
                self._say(str(stage))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
