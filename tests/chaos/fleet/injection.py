"""Faults inside a service process, as its environment asks for them.

| variable                 | what happens                                                        |
|--------------------------|---------------------------------------------------------------------|
| DARKROOM_CHAOS_POINTS    | a directory: the process that reaches point P and finds the file    |
|                          | `P@service` there takes it away, and ends by SIGKILL at that moment;|
|                          | if it finds `P@service.hold`, it waits (`holds.py`)                 |
| DARKROOM_CHAOS_POISON    | text: a prompt that contains it kills whoever takes a step of it    |
| DARKROOM_CHAOS_MUTANT    | `no_fence` or `ack_first`: a mistake that the suite has to find     |
| DARKROOM_CHAOS_SLOTS     | tensors of this many bytes and more take a slot, so that small      |
|                          | models use arenas as large ones do                                  |

Removing or renaming a file succeeds for one process only, so each file is exactly one crash or one
hold. The points are those of `shared/host/crash_points.py`, and for holds also `step-K`: a denoiser
is about to take a step of a row that has taken K.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.host.forking.messages import SERVER

if TYPE_CHECKING:
    from shared.worker.task import Task

AT_POINTS: Final = "DARKROOM_CHAOS_POINTS"
POISON: Final = "DARKROOM_CHAOS_POISON"
MUTANT: Final = "DARKROOM_CHAOS_MUTANT"
SLOTS: Final = "DARKROOM_CHAOS_SLOTS"
PASSED: Final = "passed"
"""In the directory of crashes: a file `P@service` with a byte for each time that it came by P."""


def install(environ: Mapping[str, str] = os.environ) -> None:
    """Do what the variables of this process ask for. What is forked from a fork server asks for
    itself."""
    if SERVER in sys.orig_argv:
        return
    if directory := environ.get(AT_POINTS):
        stop_at_points(Path(directory), service_of(sys.orig_argv))
        hold_at_steps()
    if marker := environ.get(POISON):
        die_of(marker)
    if mutant := environ.get(MUTANT):
        MUTANTS[mutant]()
    if smallest := environ.get(SLOTS):
        use_slots(int(smallest))


def service_of(command: list[str]) -> str:
    """`denoiser` for `python -m services.denoiser` and for its stand-in."""
    return command[-1].rpartition(".")[2]


def stop_at_points(directory: Path, service: str) -> None:
    from shared.host import crash_points

    def stop(point: str) -> None:
        name = f"{point}@{service}"
        append(directory / PASSED / name, b".")
        hold(point)
        try:
            (directory / name).unlink()
        except FileNotFoundError:
            return
        append(directory / "crashes.log", f"{point} {service} {os.getpid()}\n".encode())
        die()

    crash_points.hook = stop


def hold(point: str) -> None:
    """Wait at `point` until it is released, if a hold is armed there for this service."""
    if AT_POINTS not in os.environ:
        return
    armed = Path(os.environ[AT_POINTS]) / f"{point}@{service_of(sys.orig_argv)}.hold"
    held = armed.with_name(f"{armed.name}.{os.getpid()}")
    try:
        armed.rename(held)
    except FileNotFoundError:
        return
    while held.exists():
        time.sleep(0.005)


def hold_at_steps() -> None:
    """The step loop waits just before a step: what was taken until then is told, and the event
    loop goes on."""
    if sys.orig_argv[-1] != "services.denoiser":
        return  # stand-ins call `hold` themselves
    from services.denoiser.engine import executor

    _expect(executor, "step")
    step: Callable[..., Any] = vars(executor)["step"]

    def held(network: Any, batch: Any, *rest: Any) -> Any:
        for row in batch.rows:
            hold(f"step-{row.step}")
        return step(network, batch, *rest)

    vars(executor)["step"] = held


def append(path: Path, data: bytes) -> None:
    """At once, so that a process that dies next has written it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, data)
    os.close(file)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_of(marker: str) -> None:
    """The denoiser that takes a step of a row whose prompt contains `marker` ends."""
    if sys.orig_argv[-1] != "services.denoiser":
        return  # stand-ins ask `is_poison` themselves
    from services.denoiser.node.progress import ProgressReports

    _expect(ProgressReports, "publish")
    publish = ProgressReports.publish

    def fatal(self: Any, task: "Task", report: Any) -> None:
        if marker in task.spec.prompt:
            die()
        publish(self, task, report)

    ProgressReports.publish = fatal  # type: ignore[method-assign]


def is_poison(prompt: str) -> bool:
    marker = os.environ.get(POISON)
    return marker is not None and marker in prompt


def use_slots(smallest: int) -> None:
    from shared.tensors import arena

    vars(arena)["INLINE_LIMIT"] = smallest - 1


# ------------------------------------------------------------------------------------- the mutants


def leave_out_the_fence() -> None:
    """Whatever is reported about a live job is believed, whoever holds the lease."""
    from shared.jobs import advance

    _expect(advance, "_is_stale")
    advance._is_stale = lambda record, event: (
        getattr(event, "node", None) not in (None, *record.nodes)
    )


def acknowledge_first() -> None:
    """A delivery is acknowledged when it is taken up, not when its work is on record."""
    from shared.worker.pull import PullLoop, Work

    _expect(PullLoop, "_guarded")
    guarded = PullLoop._guarded

    async def acknowledged(self: PullLoop, work: Work) -> None:
        await work.delivery.ack()
        work.delivery = _Settled(work.delivery)
        await guarded(self, work)

    PullLoop._guarded = acknowledged  # type: ignore[method-assign]


class _Settled:
    """A delivery that the server knows no more of."""

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    async def ack(self) -> None: ...

    async def extend(self) -> None: ...

    async def retry(self, delay: float) -> None: ...


def _expect(owner: object, name: str) -> None:
    """A mutant that no longer changes anything would prove nothing."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner!r} has no {name}: mend the mutant in {__file__}")


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    "no_fence": leave_out_the_fence,
    "ack_first": acknowledge_first,
}
