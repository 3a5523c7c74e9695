"""A model service in its process: components come and go within its budget, and nodes are run."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import msgspec

from shared.bus.discovery import COMPONENTS
from shared.bus.readiness import common
from shared.bus.unusable import Unusable
from shared.models.weights.sharing import share_weights
from shared.process.component_memory import ComponentHost
from shared.process.components import Components
from shared.process.process import Process
from shared.process.removed import RefusedQueues, RemovedModels
from shared.process.served import ServedCatalogue
from shared.tensors.transport import Transport
from shared.worker.exclusive import ExclusiveLock
from shared.worker.group import run_together, total
from shared.worker.task import Handler
from shared.worker.worker import Worker

T = TypeVar("T")


async def serve_nodes(
    running: Process,
    transport: Transport,
    handlers: Sequence[Handler],
    host: ComponentHost[T],
    *,
    statistics: Callable[[], Mapping[str, object]] = dict,
    served: ServedCatalogue | None = None,
    unusable: Callable[[], Sequence[Unusable]] = tuple,
    background: Sequence[Callable[[], Coroutine[None, None, None]]] = (),
) -> None:
    """Run nodes of `handlers`, which have the components of `host`, until the process is to stop; a
    node that may end the process runs beside no other one's. `statistics`: beside what the workers
    tell. `served`: what the components are of, where that may change. `unusable`: beside what
    cannot be loaded. Raises as `Components.running` does."""
    settings = running.settings
    share_weights(settings.weights_dir, settings.weights_disk_bytes)
    lock = ExclusiveLock()
    workers = [Worker(running, handler, transport, exclusive_lock=lock) for handler in handlers]
    components = Components(running, running.service, host, running.loader)
    refusing = [
        Worker(running, RemovedModels(handler.kind), transport, exclusive_lock=lock)
        for handler in handlers
    ]
    helpers = list(background)
    if served is not None:
        refused = RefusedQueues(lambda: served.gone, refusing)
        served.changed += [refused.look, components.look]
        helpers += [refused.run, served.follow]
    async with components.running(workers):
        await running.serve(
            partial(run_together, [*workers, *refusing]),
            statistics=lambda: {
                **asdict(total(workers)),
                COMPONENTS: msgspec.to_builtins(components.states()),
                **statistics(),
            },
            refusal=lambda: common([worker.refusal() for worker in workers]),
            metadata=components.metadata,
            unusable=lambda: [*unusable(), *components.unusable()],
            loads=[handler.components for handler in handlers],
            background=helpers,
        )
