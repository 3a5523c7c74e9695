"""The denoise node around the engine: checkpoints, resuming, previews, and rows nobody wants."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import torch

from services.denoiser.engine import Engine
from services.denoiser.model import Model
from services.denoiser.outbox import Outbox
from services.denoiser.service import Denoiser, NoLongerWanted
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.errors import ArenaFull
from shared.jobs.advance import CancelRequested, Checkpointed, NodeFinished, new_record
from shared.jobs.graph import text_to_image
from shared.jobs.ledger import Ledger, Page
from shared.jobs.record import Checkpoint
from shared.messages import PreviewTask, StepProgress
from shared.pull import Work
from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import MemoryTransport
from shared.topology import TOPOLOGY
from shared.worker import Task
from tests.conftest import run
from tests.factories import spec
from tests.services.denoiser.models import SHAPE, conditioning, network
from tests.services.denoiser.test_step_table import SDXL

STEPS = 8
LAST_CHECKPOINT = 6
LONG = 200
"""Steps of a row that is expected to leave long before its end."""


class Watched(Outbox):
    """Keeps what is posted, and lets a test act at that moment."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.messages: list[object] = []
        self.at_step: Callable[[int], None] = lambda step: None

    def post(self, subject: str, message: object) -> None:
        self.messages.append(message)
        if isinstance(message, StepProgress):
            self.at_step(message.step)


class NoRoom(MemoryTransport):
    """An arena that is full for as long as `full` is set."""

    full = False

    def put(self, *arguments: Any, **options: Any) -> TensorHandle:
        if self.full:
            raise ArenaFull("arena-1", 1, 1, 1)
        return super().put(*arguments, **options)


class World:
    """A bus with one job that is encoded, and a denoiser on a tiny network."""

    def __init__(self, bus: MemoryBus, page: Page, engine: Engine) -> None:
        self.ledger = Ledger(bus)
        self.page = page
        self.transport = NoRoom()
        self.outbox = Watched(bus)
        model = Model(engine, SDXL, latent_channels=SHAPE[0], scale=8)
        self.denoiser = Denoiser(
            {"pocket-sdxl": model}, self.transport, self.outbox, capacity=4, checkpoint_every=2
        )

    async def encode(self) -> None:
        """What the prompt encoder would have put."""
        outputs: dict[str, TensorHandle] = {}
        for prefix, half in (("", conditioning("a")), ("negative_", conditioning("b"))):
            for name, tensor in (("embeds", half.embeds[0]), ("pooled", half.pooled[0])):
                outputs[prefix + name] = put_tensor(
                    self.transport, tensor, job_id="job-1", attempt=1, lifetime=60.0
                )
        event = NodeFinished("encode", 1, outputs, "encoder", 1.0, 2.0)
        await self.ledger.advance(self.page, event)

    async def denoise(self) -> torch.Tensor:
        page = await self.ledger.load("job-1")
        work = Work(None)  # type: ignore[arg-type]  # a delivery is for the worker, not for us
        task = Task(page, page.record.nodes["denoise-0"], work, self.ledger)
        outputs = await self.denoiser.run(task)
        return get_tensor(self.transport, outputs["latents"])


def in_world(scenario: Callable[[World], Coroutine[None, None, None]], **changes: Any) -> None:
    async def main() -> None:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        settings = {"steps": STEPS, "width": 64, "height": 64, "sampler": "dpmpp_2m"} | changes
        wanted = spec(**settings)
        page = await Ledger(bus).open(new_record("job-1", wanted, text_to_image(wanted), at=0.0))
        async with Engine(network()) as engine:
            world = World(bus, page, engine)
            await world.encode()
            await scenario(world)

    run(main())


def test_every_step_is_told_and_checkpoints_reach_the_record() -> None:
    async def scenario(world: World) -> None:
        latents = await world.denoise()
        assert latents.shape == SHAPE
        steps = [m.step for m in world.outbox.messages if isinstance(m, StepProgress)]
        assert steps == list(range(1, STEPS + 1))
        page = await world.ledger.load("job-1")
        checkpoint = page.record.nodes["denoise-0"].checkpoint
        assert checkpoint is not None
        assert checkpoint.step in range(2, LAST_CHECKPOINT + 1)

    in_world(scenario)


def test_a_second_attempt_goes_on_from_the_checkpoint_and_ends_the_same() -> None:
    async def scenario(world: World) -> None:
        first = await world.denoise()
        checkpoint = (await world.ledger.load("job-1")).record.nodes["denoise-0"].checkpoint
        assert checkpoint is not None
        world.outbox.messages.clear()
        second = await world.denoise()
        steps = [m.step for m in world.outbox.messages if isinstance(m, StepProgress)]
        assert steps == list(range(checkpoint.step + 1, STEPS + 1))
        torch.testing.assert_close(second, first)

    in_world(scenario)


def test_a_checkpoint_that_cannot_be_read_costs_its_steps_and_no_more() -> None:
    async def scenario(world: World) -> None:
        first = await world.denoise()
        page = await world.ledger.load("job-1")
        whole = put_tensor(world.transport, first, job_id="job-1", attempt=1, lifetime=60.0)
        torn = msgspec.structs.replace(whole, checksum=whole.checksum ^ 1)
        checkpoint = Checkpoint(step=4, tensors={"latents": torn, "x0_prev": whole})
        await world.ledger.advance(page, Checkpointed("denoise-0", 1, checkpoint, 3.0))
        world.outbox.messages.clear()
        second = await world.denoise()
        assert len([m for m in world.outbox.messages if isinstance(m, StepProgress)]) == STEPS
        torch.testing.assert_close(second, first)

    in_world(scenario)


def test_previews_are_posted_evenly_with_latents_that_can_be_read() -> None:
    async def scenario(world: World) -> None:
        await world.denoise()
        previews = [m for m in world.outbox.messages if isinstance(m, PreviewTask)]
        assert [(p.partial_index, p.step) for p in previews] == [(0, 2), (1, 4), (2, 6)]
        for preview in previews:
            assert get_tensor(world.transport, preview.latents).shape == SHAPE

    in_world(scenario, previews=3)


def test_a_full_arena_costs_previews_and_checkpoints_but_not_the_row() -> None:
    async def scenario(world: World) -> None:
        def fill(step: int) -> None:
            world.transport.full = step < STEPS

        world.outbox.at_step = fill
        latents = await world.denoise()
        assert latents.isfinite().all()
        assert not [m for m in world.outbox.messages if isinstance(m, PreviewTask)]

    in_world(scenario, previews=3)


def test_a_row_whose_job_has_ended_leaves_after_its_next_checkpoint() -> None:
    async def scenario(world: World) -> None:
        cancelling: list[asyncio.Task[bool]] = []

        def cancel(step: int) -> None:
            if step == 1:  # the broadcast was lost: only the record knows
                change = world.ledger.advance(world.page, CancelRequested(3.0))
                cancelling.append(asyncio.ensure_future(change))

        world.outbox.at_step = cancel
        with pytest.raises(NoLongerWanted):
            await world.denoise()
        steps = [m.step for m in world.outbox.messages if isinstance(m, StepProgress)]
        assert steps[-1] < LONG
        assert await cancelling[0]

    in_world(scenario, steps=LONG)
