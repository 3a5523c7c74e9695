"""A model service in its process: components are loaded within its budget, and nodes are run."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from shared.bus.readiness import common
from shared.bus.unusable import Kind, Unusable
from shared.models.files.loading import load_each
from shared.models.weights.sharing import share_weights
from shared.process.process import Process
from shared.tensors.transport import Transport
from shared.worker.exclusive import ExclusiveLock
from shared.worker.group import run_together, total
from shared.worker.memory_budget import component_bytes
from shared.worker.task import Handler
from shared.worker.worker import Worker

T = TypeVar("T")
Loaded = tuple[dict[str, T], tuple[Unusable, ...]]


def load_components(
    running: Process,
    what: str,
    sources: Mapping[str, str],
    folders: Mapping[str, Sequence[str]],
    load: Callable[[str], T],
    kind: Kind = "model",
) -> Loaded[T]:
    """What `load` makes of each of these names, as `load_each` does it, and with its errors.
    `what`: it is, of a model; `folders`: below each source, those that are loaded. Raises
    `MemoryBudgetExceeded`, before anything is loaded, if all of it is more than fits."""
    dtype = running.settings.dtype
    weights = sum(
        component_bytes(source, *folders[name], dtype=dtype) for name, source in sources.items()
    )
    of = "of " if kind == "model" else ""
    share_weights(running.settings.weights_dir, running.settings.weights_disk_bytes)
    running.budget.refuse_larger(f"{what} {of}{', '.join(sources)}", weights)
    return load_each(sources, kind, what, load)


async def serve_nodes(
    running: Process,
    transport: Transport,
    handlers: Sequence[Handler],
    *,
    statistics: Callable[[], Mapping[str, object]] = dict,
    unusable: Sequence[Unusable] = (),
    background: Sequence[Callable[[], Coroutine[None, None, None]]] = (),
) -> None:
    """Run nodes of `handlers`, which have the same models, until the process is to stop; a node
    that may end the process runs beside no other one's. `statistics`: beside what the workers
    tell."""
    lock = ExclusiveLock()
    workers = [Worker(running, handler, transport, exclusive_lock=lock) for handler in handlers]
    await running.serve(
        partial(run_together, workers),
        statistics=lambda: {**asdict(total(workers)), **statistics()},
        refusal=lambda: common([worker.refusal() for worker in workers]),
        metadata={"models": " ".join(handlers[0].models)},
        unusable=unusable,
        loads=[handler.components for handler in handlers],
        background=background,
    )
