"""Jobs whose prompts are encoded, on a bus in memory, and denoisers on tiny networks for them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.loras.feature import Loras
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.node.event_publisher import EventPublisher
from services.denoiser.node.model import Model
from services.denoiser.sampling.model_sampling import Sampling
from services.denoiser.service import Denoiser
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import ArenaFull
from shared.jobs.advance import new_record
from shared.jobs.events import Claimed, NodeFinished
from shared.jobs.graph import Graph, workflow
from shared.jobs.record import NodeState
from shared.jobs.record_store import RecordStore
from shared.messages import JobSpec, LoraChoice, StepProgress
from shared.messages.handle import TensorHandle
from shared.models.contracts.network import Network
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.directory import LoraDirectory
from shared.policy.checkpoint_interval import Interval
from shared.policy.step_scheduler import Limits
from shared.residency.loader import Loader
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.worker.pull import Work
from shared.worker.task import Task
from tests.conftest import run
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.models import conditioning, family, network
from tests.services.denoiser.sampling.test_step_table import SDXL

STEPS = 8
EVERY_OTHER_STEP = Interval(2)
MODEL = "pocket-sdxl"


class Watched(EventPublisher):
    """Keeps what is posted, and lets a test act at that moment."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.messages: list[object] = []
        self.at_step: Callable[[int], None] = lambda step: None

    def post(self, subject: str, message: object) -> None:
        self.messages.append(message)
        if isinstance(message, StepProgress):
            self.at_step(message.step)

    def steps(self, job_id: str = "job-1") -> list[int]:
        """Those that were told of the job's row, in order."""
        progress = [m for m in self.messages if isinstance(m, StepProgress)]
        return [m.step for m in progress if m.job_id == job_id]


class NoRoom(MemoryTransport):
    """An arena that is full for as long as `full` is set."""

    full = False

    def put(self, *arguments: Any, **options: Any) -> TensorHandle:
        if self.full:
            raise ArenaFull("arena-1", 1, 1, 1)
        return super().put(*arguments, **options)


@dataclass(frozen=True)
class Delivered:
    """As much of a delivery as a task looks at."""

    deliveries: int


class WatchedTask(Task):
    """Counts the signs of life."""

    beats = 0

    def progressed(self) -> None:
        self.beats += 1
        super().progressed()


class World:
    def __init__(self, bus: MemoryBus) -> None:
        self.records = RecordStore(bus)
        self.transport = NoRoom()
        self.publisher = Watched(bus)
        self.loras = LoraFiles(LoraDirectory())
        """Where jobs find their LoRAs."""

    @classmethod
    async def create(cls) -> "World":
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        return cls(bus)

    async def add(
        self,
        job_id: str,
        model: str = MODEL,
        loras: tuple[LoraChoice, ...] = (),
        late: int = 0,
        graph: Callable[[JobSpec], Graph] = workflow,
        **changes: Any,
    ) -> None:
        """A job whose prompt is its id, encoded; it may take `late` steps without its `loras`.
        `graph`: its nodes."""
        settings = {"steps": STEPS, "width": 64, "height": 64, "sampler": "dpmpp_2m"} | changes
        wanted = msgspec.structs.replace(
            spec(job_id=job_id, **settings), model=model, loras=loras, lora_late_steps=late
        )
        revisioned = await self.records.open(new_record(job_id, wanted, graph(wanted), at=0.0))
        outputs: dict[str, TensorHandle] = {}
        for prefix, half in (("", conditioning(job_id)), ("negative_", conditioning("nothing"))):
            for name, tensor in half.tensors.items():
                outputs[prefix + name] = put_tensor(
                    self.transport, tensor[0], job_id=job_id, attempt=1, lifetime=60.0
                )
        await self.records.advance(
            revisioned, NodeFinished("encode", 1, outputs, "encoder", 1.0, 2.0)
        )

    def denoiser(self, *engines: Engine, interval: Interval = EVERY_OTHER_STEP) -> Denoiser:
        """One with a model for each of `engines`: `MODEL`, then `other-1`, `other-2` …"""
        models = {
            f"other-{k}" if k else MODEL: self.model(engine) for k, engine in enumerate(engines)
        }
        return Denoiser(
            models,
            self.transport,
            self.publisher,
            capacity=4,
            burst_capacity=4,
            interval=interval,
        )

    def model(self, engine: Engine) -> Model:
        return Model(engine, Sampling(family(), SDXL, scale=8), (Loras(self.library()),))

    def library(self) -> AdapterLibrary:
        return AdapterLibrary(self.loras, family(), network().check, 2**30, Loader())

    async def task(
        self, job_id: str = "job-1", deliveries: int = 1, node: str = "denoise-0"
    ) -> WatchedTask:
        """As the first holder has it, or a later one to whom it was given; after more `deliveries`
        than one, as somebody has it whose only predecessor vanished."""
        task = await self._delivered(job_id, deliveries, node)
        if task.unclaimed:
            assert await task.claim()
        return task

    async def suspect(self, job_id: str = "job-1") -> WatchedTask:
        """As somebody has it whose predecessors vanished."""
        await self.vanish(job_id)
        return await self._delivered(job_id, deliveries=2)

    async def _delivered(
        self, job_id: str, deliveries: int, node: str = "denoise-0"
    ) -> WatchedTask:
        revisioned = await self.records.load(job_id)
        work = Work(Delivered(deliveries))  # type: ignore[arg-type]  # all else is the worker's
        return WatchedTask(
            revisioned, revisioned.record.nodes[node], work, self.records, self.transport
        )

    async def state(self, job_id: str = "job-1") -> NodeState:
        return (await self.records.load(job_id)).record.nodes["denoise-0"]

    async def vanish(self, job_id: str = "job-1") -> None:
        """Somebody else claims the job, as if its holder were gone."""
        revisioned, state = await self.records.load(job_id), await self.state(job_id)
        await self.records.advance(
            revisioned, Claimed("denoise-0", state.attempt, state.lease, 3.0)
        )

    def latents(self, outputs: dict[str, TensorHandle]) -> torch.Tensor:
        return get_tensor(self.transport, outputs["latents"])


def in_world(scenario: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        await scenario(await World.create())

    run(main())


def engine(network: Network, **bounds: Any) -> Engine:
    return Engine(network, Limits(**bounds), predictors=[LoraWeights(network)])


async def settled() -> None:
    """Return when everything that could run now has run."""
    for _ in range(20):
        await asyncio.sleep(0)
