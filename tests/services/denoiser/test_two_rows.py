"""Jobs of two denoise nodes: the second goes on from the first one's latents."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.sampling.initial_latents import SourceImage
from services.denoiser.sampling.schedule_part import WHOLE, SchedulePart
from services.denoiser.sampling.step_table import build_step_table
from services.denoiser.service import Denoiser
from shared.errors import InvalidRequest
from shared.jobs.events import NodeFinished
from shared.jobs.graph import IMAGE, Graph, node, workflow
from shared.messages import JobSpec
from shared.messages.nodes import Beginning, Denoise
from tests.services.denoiser.models import make_row, network
from tests.services.denoiser.sampling.test_initial_latents import assert_close, finished
from tests.services.denoiser.sampling.test_step_table import SDXL
from tests.services.denoiser.world import STEPS, World, in_world

SPLIT = 0.5
SAMPLER = "dpmpp_2m"


def refined(spec: JobSpec) -> Graph:
    """The first half of the steps by `base`, the second by `denoise-0`."""
    return _two(spec, {"end": SPLIT}, {"start": SPLIT}, Beginning(strength=1.0))


def drawn_over(spec: JobSpec) -> Graph:
    """All of the steps by `base`, and half of them again by `denoise-0`."""
    return _two(spec, {}, {}, Beginning(strength=0.5))


def _two(
    spec: JobSpec, first: dict[str, float], second: dict[str, float], beginning: Beginning | None
) -> Graph:
    graph = workflow(spec)
    own = graph["denoise-0"]
    assert isinstance(own.parameters, Denoise)
    before = msgspec.structs.replace(own.parameters, **first)
    after = msgspec.structs.replace(
        own.parameters, **second, seed=spec.seed + 1, beginning=beginning
    )
    base = node("base", spec.model, before, own.ports)
    again = node("denoise-0", spec.model, after, {**own.ports, IMAGE: "base"})
    return {**graph, "base": base, "denoise-0": again}


async def run_base(world: World, denoiser: Denoiser) -> None:
    task = await world.task(node="base")
    outputs = await denoiser.run(task)
    done = NodeFinished("base", 1, outputs, "denoiser", 1.0, 2.0, *task.lease)
    assert await task.advance(done)


def _row(
    number: int, seed: int, part: SchedulePart = WHOLE, start: int = 0, **fields: Any
) -> torch.Tensor:
    table = build_step_table(SDXL, SAMPLER, STEPS, start=start, part=part)
    [latents] = finished(make_row("job-1", seed=seed + number, table=table, **fields))
    return latents


def expected(seed: int) -> dict[str, torch.Tensor]:
    """What each of the two jobs ends with."""
    half, whole = _row(0, seed, SchedulePart(end=SPLIT)), _row(0, seed)
    goes_on = SourceImage(half, None, noised=False)
    return {
        "refined": _row(1, seed, SchedulePart(start=SPLIT), image=goes_on)[0],
        "drawn_over": _row(1, seed, start=STEPS // 2, image=SourceImage(whole, None))[0],
    }


@pytest.mark.parametrize("graph", [refined, drawn_over])
def test_the_second_row_goes_on_from_the_first_also_when_its_denoiser_ends(
    graph: Callable[[JobSpec], Graph],
) -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", graph=graph, seed=7)
        async with Engine(network()) as engine:
            denoiser = world.denoiser(engine)
            await run_base(world, denoiser)
            first = world.latents(await denoiser.run(await world.task()))
            checkpoint = (await world.state()).checkpoint
            assert checkpoint is not None
            world.publisher.messages.clear()
            again = world.latents(await denoiser.run(await world.task()))
        assert world.publisher.steps() == list(range(checkpoint.step + 1, STEPS // 2 + 1))
        assert_close(first, expected(7)[graph.__name__])
        assert_close(again, first)

    in_world(scenario)


def _from_noise(spec: JobSpec) -> Graph:
    return _two(spec, {}, {"start": SPLIT}, None)


def _masked(spec: JobSpec) -> Graph:
    return _two(spec, {}, {}, Beginning(strength=0.5, masked=True))


def _larger(spec: JobSpec) -> Graph:
    graph = drawn_over(spec)
    second = graph["denoise-0"]
    assert isinstance(second.parameters, Denoise)
    larger = msgspec.structs.replace(second.parameters, width=2 * spec.width)
    return {**graph, "denoise-0": msgspec.structs.replace(second, parameters=larger)}


@pytest.mark.parametrize(
    ("graph", "field"), [(_from_noise, "start"), (_masked, "mask"), (_larger, "image")]
)
def test_what_cannot_begin_so_is_refused_by_name(
    graph: Callable[[JobSpec], Graph], field: str
) -> None:
    async def scenario(world: World) -> None:
        await world.add("job-1", graph=graph, seed=7)
        async with Engine(network()) as engine:
            denoiser = world.denoiser(engine)
            await run_base(world, denoiser)
            with pytest.raises(InvalidRequest) as refused:
                await denoiser.run(await world.task())
        assert refused.value.fields["field"] == field

    in_world(scenario)
