"""One row, two denoisers: the image is the same, whoever computes the halves of its steps."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from services.denoiser.cfg_parallel.remote import CfgWorker, RemoteBranches
from services.denoiser.cfg_parallel.split import (
    COMPARED,
    LEAST_SAMPLES,
    PAUSE,
    PRICE,
    CfgBranch,
    CfgParallel,
)
from services.denoiser.engine.engine import Engine
from services.denoiser.engine.occupation import Occupation
from services.denoiser.forward.predictors import StepTime
from services.denoiser.forward.step import Batch
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.rows.row import Row
from shared.bus.memory import MemoryBroker
from shared.errors import QueueFull
from shared.messages.handle import TensorHandle
from shared.models.contracts.network import Network
from shared.models.families.sdxl.family import Sdxl
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.loras.read import read_adapter
from shared.policy.cost_model import CostModel
from shared.policy.step_work import StepWork
from shared.tensors.torch_io import put_tensor
from tests.conftest import HANG_SECONDS, eventually, run
from tests.helpers.loras import write_lora
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.models import (
    Gated,
    conditioning,
    family,
    make_row,
    make_unet,
    network,
    with_diffusers,
)
from tests.services.denoiser.world import NoRoom, settled

MODEL = "tiny"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked for a half is waited for, however busy the machine is."""
    monkeypatch.setattr("services.denoiser.cfg_parallel.split.LEAST_WAIT", HANG_SECONDS)


class Pair:
    """An engine that asks, and one that answers while its process is idle."""

    def __init__(
        self, asking: Any = None, helping: Any = None, cost: CostModel | None = None
    ) -> None:
        broker = MemoryBroker()
        self.store: dict[tuple[str, int], tuple[TensorHandle, bytes]] = {}
        self.transport = NoRoom("asks", store=self.store)
        bus, other = broker.connect("asks"), broker.connect("helps")
        self.occupation = Occupation()
        self.ask = RemoteBranches(bus, self.transport, MODEL)
        self.one = Engine(asking or network(), cost=cost, predictors=[CfgParallel(self.ask)])
        helping = helping or SdxlUnet(make_unet())
        self.weights = LoraWeights(helping)
        self.two = Engine(helping, cost=cost, predictors=[self.weights])
        self.assistant = CfgWorker(
            other, MemoryTransport("helps", store=self.store), self.occupation
        )

    def row(self, prompt: str, **fields: Any) -> Row:
        texts = tuple(
            {name: self._put(tensor[0]) for name, tensor in half.tensors.items()}
            for half in (conditioning("nothing"), conditioning(prompt))
        )
        return make_row(prompt, texts=texts, **fields)

    def _put(self, tensor: torch.Tensor) -> Any:
        return put_tensor(self.transport, tensor, job_id="job", attempt=1, lifetime=60.0)


@asynccontextmanager
async def pair(
    names: Collection[str] = tuple(Sdxl.conditioning), **networks: Any
) -> AsyncIterator[Pair]:
    """`names`: of what the networks are told."""
    found = Pair(**networks)
    async with found.one, found.two:
        serving = found.assistant.serve(MODEL, names, found.two.when_idle)
        helping = asyncio.create_task(serving)
        await settled()
        try:
            yield found
        finally:
            helping.cancel()
            await asyncio.wait([helping])


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_row_that_is_alone_is_shared_and_its_image_is_the_same() -> None:
    async def main() -> None:
        async with pair() as p:
            assert close(await p.one.run(p.row("a")), with_diffusers("a"))
            assert p.one.statistics().features["shared_steps"] == p.assistant.halves[MODEL] > 0

    run(main())


def test_whoever_has_work_is_not_asked_and_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.denoiser.cfg_parallel.split.PAUSE", 0.0)

    async def main() -> None:
        async with pair() as p:
            with p.occupation.working():
                await settled()
                assert close(await p.one.run(p.row("a")), with_diffusers("a"))
                assert p.one.statistics().features["shared_steps"] == 0
            await settled()
            await p.one.run(p.row("b"))
            assert p.one.statistics().features["shared_steps"] > 0

    run(main())


def test_what_was_asked_of_someone_who_has_work_by_now_is_refused() -> None:
    async def main() -> None:
        helping = Gated("busy")
        async with pair(helping=helping) as p:
            busy = asyncio.create_task(p.two.run(make_row("busy")))
            await helping.stepping()
            with pytest.raises(QueueFull):
                await p.two.when_idle(_half())
            assert close(await p.one.run(p.row("a")), with_diffusers("a"))
            helping.open()
            await busy

    run(main())


def test_one_who_never_answers_costs_one_step_a_little_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.denoiser.cfg_parallel.split.LEAST_WAIT", 0.02)

    async def main() -> None:
        helping = Gated()
        async with pair(helping=helping) as p:
            assert close(await p.one.run(p.row("a")), with_diffusers("a"))
            assert p.one.statistics().features["shared_steps"] == 0
            helping.open()
            await eventually(lambda: _has(p.assistant, halves=1))

    async def _has(assistant: CfgWorker, halves: int) -> bool:
        return assistant.halves[MODEL] == halves

    run(main())


def test_one_who_gets_work_while_it_helps_says_so_and_lives_on() -> None:
    async def main() -> None:
        helping = Gated()
        async with pair(helping=helping) as p:
            asked = p.ask(p.row("a"), torch.zeros(1, 4, 8, 8))
            await helping.stepping()
            with p.occupation.working():
                assert await asyncio.wrap_future(asked) is None
                helping.open()
                assert close(await p.two.run(make_row("mine")), with_diffusers("mine"))

    run(main())


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    async def main() -> None:
        helping = Gated()
        async with Engine(helping) as two:
            busy = asyncio.create_task(two.when_idle(_half()))
            await helping.stepping()
            given_up = asyncio.create_task(two.when_idle(Unwanted()))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            helping.open()
            await busy
            assert close(await two.run(make_row("mine")), with_diffusers("mine"))

    run(main())


class Unwanted:
    work = StepWork.full(1, 64)

    def __call__(self, network: Network) -> torch.Tensor:
        pytest.fail("computed")


def test_shared_steps_teach_both_what_a_step_takes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both believe in a host that was a thousand times slower, and take no other steps."""
    monkeypatch.setattr(CfgParallel, "applies", lambda *_: True)

    async def main() -> None:
        slow = CostModel()
        for images in (1, 2):
            for _ in range(40):
                slow = slow.observe(StepWork.full(images, 64), 100.0 * images)
        async with pair(cost=slow) as p:
            await p.one.run(p.row("a", steps=40))
            assert p.one.statistics().features["shared_steps"] == 40
            for engine in (p.one, p.two):
                assert engine.cost.predict(StepWork.full(2, 64)) < 20.0

    run(main())


def _half() -> CfgBranch:
    return CfgBranch(torch.zeros(1, 4, 8, 8), 500.0, conditioning("nothing"))


def test_a_second_half_is_refused_at_once() -> None:
    async def main() -> None:
        helping = Gated()
        async with pair(helping=helping) as p:
            first = p.ask(p.row("a"), torch.zeros(1, 4, 8, 8))
            await helping.stepping()
            second = p.ask(p.row("b"), torch.zeros(1, 4, 8, 8))
            assert await asyncio.wrap_future(second) is None
            helping.open()
            assert await asyncio.wrap_future(first) is not None

    run(main())


def test_a_question_for_which_there_is_no_room_harms_no_row() -> None:
    async def main() -> None:
        async with pair() as p:
            row = p.row("a")
            p.transport.full = True
            assert close(await p.one.run(row), with_diffusers("a"))
            assert p.one.statistics().features["shared_steps"] == 0

    run(main())


def test_two_rows_need_no_help() -> None:
    async def main() -> None:
        async with pair() as p:
            found = await asyncio.gather(p.one.run(p.row("a")), p.one.run(p.row("b")))
            assert all(
                close(latents, with_diffusers(prompt))
                for latents, prompt in zip(found, "ab", strict=True)
            )
            assert p.one.statistics().features["shared_steps"] <= 6

    run(main())


def test_adapters_that_are_merged_where_help_comes_from_do_not_count(tmp_path: Path) -> None:
    unet = SdxlUnet(make_unet())
    path = write_lora(tmp_path / "a.safetensors", {"unet": make_unet()}, form="peft", rank=2)
    adapter = read_adapter("a", path, family())

    async def main() -> None:
        async with pair(helping=unet) as p:
            await p.two.run(make_row("mine", steps=50, adapters=((adapter, 1.0),)))
            assert p.weights.merging.merged
            assert close(await p.one.run(p.row("a")), with_diffusers("a"))
            assert p.one.statistics().features["shared_steps"] > 0

    run(main())


@pytest.mark.parametrize(
    "fields",
    [{"guidance": 1.0}, {"texts": ()}],
    ids=["unguided", "nobody knows what it is told"],
)
def test_a_row_without_two_halves_to_give_is_not_shared(fields: dict[str, Any]) -> None:
    sharing = CfgParallel(ask=lambda row, x: pytest.fail("asked"))
    row = make_row("a", **({"texts": (None, None)} | fields))
    assert not sharing.pays(Batch.of([row], network()), 1.0)


@pytest.mark.parametrize("late", [False, True], ids=["slow", "too late"])
def test_it_is_left_for_a_while_when_it_does_not_pay(late: bool) -> None:
    now = 0.0

    class Slow:
        def result(self, timeout: float) -> torch.Tensor:
            nonlocal now
            now += 2.0
            if late:
                raise TimeoutError
            return torch.zeros(1, 4, 8, 8)

    sharing = CfgParallel(lambda row, x: Slow(), clock=lambda: now)  # type: ignore[arg-type]
    row = make_row("a", texts=(None, None))
    batch = Batch.of([row], network())
    for _ in range(LEAST_SAMPLES):
        assert sharing.pays(batch, 1.0)  # one slow step says nothing
        sharing.predict(network(), batch, torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), StepTime())
        now += PAUSE
    assert sharing.pays(batch, 3.0)
    assert not sharing.pays(batch, 1.0)
    pause = LEAST_SAMPLES * (2.0 - 1.0) / PRICE
    now += pause - 1.0
    assert not sharing.pays(batch, 3.0)
    now += 2.0
    assert sharing.pays(batch, 1.0)


def test_what_a_step_takes_that_is_not_shared_stays_known() -> None:
    sharing = CfgParallel(lambda row, x: pytest.fail("asked"))
    batch = Batch.of([make_row("a", texts=(None, None))], network())
    shared = [sharing.pays(batch, 1.0) for _ in range(2 * COMPARED)]
    assert shared == ([True] * (COMPARED - 1) + [False]) * 2
