"""A ControlNet process: a job's picture is embedded once, and steps are answered in batches."""

import asyncio
from typing import Any

import msgspec
import pytest
import torch

from services.controlnet.service import MAX_STEPS, ControlNetService
from services.controlnet.steps import ReadRow, Step, compute
from shared import subjects
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import ArenaFull, HandleLost, InvalidRequest, Misconfigured
from shared.jobs.advance import new_record
from shared.jobs.graph import workflow
from shared.jobs.record_store import RecordStore
from shared.messages import (
    ControlledRow,
    ControlReply,
    ControlRequest,
    ControlSpec,
    decode,
    encode,
)
from shared.messages.handle import TensorHandle
from shared.models.families.sdxl.unet import SdxlControlNet
from shared.tensors.cache import TensorCache
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.worker.pull import Work
from shared.worker.task import Task
from tests.conftest import run
from tests.helpers.controls import control, hint, make_control
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.services.controlnet.test_hints import encoded, picture
from tests.services.denoiser.models import SHAPE, TIME_IDS, conditioning
from tests.services.denoiser.world import Delivered

EDGES = ControlSpec(model="edges", scale=1.0, start=0.0, end=1.0, guess_mode=False)


def put(transport: MemoryTransport, tensor: torch.Tensor) -> TensorHandle:
    return put_tensor(transport, tensor, job_id="job", attempt=1, lifetime=60.0)


def row(transport: MemoryTransport, prompt: str, images: int = 2, **fields: Any) -> ControlledRow:
    halves = (conditioning("nothing"), conditioning(prompt))[-images:]
    settings: dict[str, Any] = {"job_id": "job", "t": 500.0, "scale": 1.0, "guess_mode": False}
    return ControlledRow(
        scalars=tuple(TIME_IDS[0].tolist()),
        texts=tuple(
            tuple(put(transport, tensor[0]) for tensor in half.tensors.values()) for half in halves
        ),
        hint=put(transport, control("edges").embed(hint(1))[0]),
        **settings | fields,
    )


def latents(rows: int) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(rows))


async def _task(bus: MemoryBus, transport: MemoryTransport, job_id: str) -> Task:
    records = RecordStore(bus)
    wanted = spec(job_id=job_id, width=64, height=64)
    wanted = msgspec.structs.replace(wanted, controls=(EDGES, EDGES))
    revisioned = await records.open(new_record(job_id, wanted, workflow(wanted), at=0.0))
    work = Work(Delivered(1))  # type: ignore[arg-type]
    return Task(revisioned, revisioned.record.nodes["hint-1"], work, records, transport)


def test_a_jobs_picture_is_embedded() -> None:
    async def main() -> None:
        bus, transport = MemoryBroker().connect("test"), MemoryTransport()
        await bus.ensure(TOPOLOGY)
        await bus.store(subjects.job_input("job-1", 1), encoded(picture(size=(64, 64))))
        service = ControlNetService({"edges": control("edges")}, bus, transport)
        outputs = await service.run(await _task(bus, transport, "job-1"))
        assert list(outputs) == ["hint"]
        assert get_tensor(transport, outputs["hint"]).shape == (8, 8, 8)
        with pytest.raises(InvalidRequest, match=r"controls.*dropped"):
            await service.run(await _task(bus, transport, "job-2"))
        service.close()

    run(main())


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_step_is_answered_whoever_is_asked(replicas: int) -> None:
    """With what the network says of each image by itself."""

    async def main() -> None:
        broker, transport = MemoryBroker(), MemoryTransport()
        services = [
            ControlNetService({"edges": control("edges")}, broker.connect(f"c{k}"), transport)
            for k in range(replicas)
        ]
        serving = [asyncio.create_task(one.serve_steps("edges")) for one in services]
        await asyncio.sleep(0)
        asker = broker.connect("denoiser")
        x = latents(3)
        rows = (row(transport, "a"), row(transport, "b", 1), row(transport, "c", scale=0.5))
        question = encode(ControlRequest(rows=rows, x=put(transport, x)))
        for _ in range(2 * replicas):
            message = await asker.request(subjects.control("edges"), question, 10.0)
            reply = decode(message.data, ControlReply)
            assert reply.failures == {}
            assert reply.residuals is not None
            assert {shape[0] for shape in reply.shapes} == {5}
            flat = get_tensor(transport, reply.residuals)
            first = flat[: torch.Size(reply.shapes[0]).numel()].view(reply.shapes[0])
            for image, k, prompt in ((0, 0, "nothing"), (1, 2, "nothing"), (3, 1, "b")):
                alone = _alone(x[k : k + 1], prompt, rows[k].scale)
                torch.testing.assert_close(first[image : image + 1], alone, atol=1e-5, rtol=1e-5)
        for one, task in zip(services, serving, strict=True):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            one.close()

    run(main())


def _alone(x: torch.Tensor, prompt: str, scale: float) -> torch.Tensor:
    half, network = conditioning(prompt), control("edges")
    residuals = network.residuals(
        x,
        torch.tensor([500.0]),
        half,
        network.embed(hint(1)),
        network.scales([(scale, False)]),
    )
    return residuals[0]


class Counting:
    """A ControlNet, with the number of images of each forward."""

    def __init__(self, network: SdxlControlNet) -> None:
        self._network = network
        self.forwards: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def residuals(self, x: torch.Tensor, *others: Any) -> list[torch.Tensor]:
        self.forwards.append(len(x))
        return self._network.residuals(x, *others)


def test_steps_of_several_denoisers_share_a_forward_if_their_shapes_agree() -> None:
    async def main() -> None:
        transport = MemoryTransport()
        cache, counting = TensorCache(transport), Counting(control("edges"))

        async def step(rows: int, images: int, side: int = 8) -> Step:
            read = [
                await ReadRow.read(
                    row(transport, f"{k}", images, scale=k + 1.0), control("edges"), cache
                )
                for k in range(rows)
            ]
            x = torch.randn(rows, 4, side, side)
            return Step(x, tuple(_of_size(one, side) for one in read))

        steps = [await step(2, 2), await step(1, 1), await step(1, 2, side=16), await step(30, 1)]
        found = compute(counting, lambda job, flat: put(transport, flat), steps)
        assert sorted(counting.forwards) == [2, 5, 30]
        assert [one.shapes[0][0] for one in found] == [4, 1, 2, 30]
        by_itself = compute(control("edges"), lambda job, flat: put(transport, flat), steps[1:2])
        assert found[1].residuals is not None
        assert by_itself[0].residuals is not None
        torch.testing.assert_close(
            get_tensor(transport, found[1].residuals),
            get_tensor(transport, by_itself[0].residuals),
            atol=1e-5,
            rtol=1e-5,
        )

    run(main())


def test_a_guidance_that_the_network_is_told_is_nothing_to_controlnets() -> None:
    async def main() -> None:
        transport = MemoryTransport()
        cache, flats = TensorCache(transport), []
        for more in ((), (7.5,)):
            own = row(transport, "a red cube", images=1)
            own = msgspec.structs.replace(own, scalars=(*own.scalars, *more))
            step = Step(latents(1), (await ReadRow.read(own, control("edges"), cache),))
            [found] = compute(control("edges"), lambda job, flat: put(transport, flat), [step])
            assert found.residuals is not None
            flats.append(get_tensor(transport, found.residuals))
        assert torch.equal(*flats)

    run(main())


def test_rows_whose_residuals_are_no_numbers_fail_by_themselves_and_by_name() -> None:
    class Spoiling(Counting):
        def residuals(self, x: torch.Tensor, *others: Any) -> list[torch.Tensor]:
            not_finite = x.flatten(1).isinf().any(1).view(-1, 1, 1, 1)
            return [
                torch.where(not_finite, torch.inf if k == 2 else 0.0, one)
                for k, one in enumerate(super().residuals(x, *others))
            ]

    async def main() -> None:
        transport = MemoryTransport()
        cache = TensorCache(transport)
        read = [
            await ReadRow.read(row(transport, f"{k}"), control("edges"), cache) for k in range(3)
        ]
        step = Step(latents(3), tuple(read))
        step.x[1, 0, 0, 0] = torch.inf
        network = Spoiling(control("edges"))
        [found] = compute(network, lambda job, flat: put(transport, flat), [step])
        assert found.not_finite == (1,)
        assert found.shapes[0][0] == 4  # both images of the two other rows
        step.x[:] = torch.inf
        [found] = compute(network, lambda job, flat: put(transport, flat), [step])
        assert (found.not_finite, found.residuals) == ((0, 1, 2), None)

    run(main())


def test_what_overflows_in_half_precision_is_computed_again_in_float32() -> None:
    class Narrow(Counting):
        dtype = torch.float16

        def residuals(self, x: torch.Tensor, *others: Any) -> list[torch.Tensor]:
            large = (x.flatten(1).abs() > 50.0).any(1).view(-1, 1, 1, 1)
            found = super().residuals(
                x.float(), *(each.to(x.device, torch.float32) for each in others)
            )
            return [torch.where(large, torch.inf, one).half() for one in found]

        wide = control("edges")

    async def main() -> None:
        transport = MemoryTransport()
        cache = TensorCache(transport)
        read = [
            await ReadRow.read(row(transport, f"{k}"), control("edges"), cache) for k in range(2)
        ]
        step = Step(latents(2), tuple(read))
        step.x[1] *= 100.0
        narrow, wide = (
            compute(network, lambda job, flat: put(transport, flat), [step])[0]
            for network in (Narrow(control("edges")), control("edges"))
        )
        assert (narrow.not_finite, narrow.widened, wide.widened) == ((), (1,), ())
        assert narrow.residuals is not None
        assert wide.residuals is not None
        found, expected = (get_tensor(transport, one.residuals) for one in (narrow, wide))  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2)

    run(main())


def test_a_controlnet_in_half_precision_has_a_wide_one() -> None:
    narrow = SdxlControlNet(make_control("edges").half())
    assert (narrow.wide.dtype, narrow.dtype) == (torch.float32, torch.float16)
    narrow.wide.ask()


def test_a_step_that_fails_or_finds_no_room_fails_by_itself() -> None:
    class Picky(Counting):
        def residuals(self, x: torch.Tensor, *others: Any) -> list[torch.Tensor]:
            if x.isnan().any():
                raise RuntimeError("out of memory")
            return super().residuals(x, *others)

    async def main() -> None:
        transport = MemoryTransport()
        cache = TensorCache(transport)
        read = [
            await ReadRow.read(row(transport, f"{k}", job_id=f"{k}"), control("edges"), cache)
            for k in range(3)
        ]
        steps = [Step(latents(1), (one,)) for one in read]
        steps[1].x[:] = torch.nan

        def give(job: str, flat: torch.Tensor) -> TensorHandle:
            if job == "2":
                raise ArenaFull("arena", 1, 1, 1)
            return put(transport, flat)

        found = compute(Picky(control("edges")), give, steps)
        assert [type(one.error) for one in found] == [type(None), RuntimeError, ArenaFull]
        assert found[0].residuals is not None

    run(main())


def _of_size(one: ReadRow, side: int) -> ReadRow:
    return ReadRow(one.row, one.conditioning, one.hint[:, :1, :1].expand(-1, side, side))


def test_a_row_whose_tensors_are_lost_or_too_few_fails_by_itself() -> None:
    async def main() -> None:
        broker, transport = MemoryBroker(), MemoryTransport()
        service = ControlNetService({"edges": control("edges")}, broker.connect("c"), transport)
        gone = put(transport, torch.zeros(64, 64, 64))
        transport.free(gone)
        good = row(transport, "b")
        rows = (
            msgspec.structs.replace(row(transport, "a"), hint=gone),
            good,
            msgspec.structs.replace(good, texts=tuple(text[:1] for text in good.texts)),
        )
        request = ControlRequest(rows=rows, x=put(transport, latents(3)))
        reply = await service._step("edges", request, in_hand=0)
        assert list(reply.failures) == [0, 2]
        assert reply.failures[2].message.endswith("2 of them: embeds, pooled")
        assert reply.failures[0].code == HandleLost.code
        assert reply.failures[0].fields["handle"] == gone.name
        assert reply.shapes[0][0] == 2
        busy = await service._step("edges", request, in_hand=MAX_STEPS)
        assert {failure.code for failure in busy.failures.values()} == {"queue_full"}
        assert busy.residuals is None
        service.close()

    run(main())


def test_what_jobs_bring_is_read_once_and_leaves_when_room_is_needed() -> None:
    async def main() -> None:
        transport = MemoryTransport()
        cache = TensorCache(transport, max_bytes=3000)
        first, second = (put(transport, torch.zeros(512)) for _ in range(2))
        held = await cache.get(first)
        assert await cache.get(first) is held
        await cache.get(second)
        assert await cache.get(first) is not held

    run(main())


def test_one_that_pools_what_it_says_is_refused() -> None:
    net = make_control("edges")
    net.register_to_config(global_pool_conditions=True)
    with pytest.raises(Misconfigured, match="global_pool_conditions"):
        SdxlControlNet(net)


def test_hints_for_a_network_that_wants_blue_first_are_turned_round() -> None:
    net = make_control("edges")
    net.register_to_config(controlnet_conditioning_channel_order="bgr")
    assert torch.equal(SdxlControlNet(net).embed(hint(1)), control("edges").embed(hint(1).flip(1)))
