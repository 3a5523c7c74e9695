"""A job for a Stable Diffusion, from its prompt to its latents, through services that know nothing
of it."""

from pathlib import Path

import msgspec
import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.loras.feature import Loras
from services.denoiser.node.model import Model
from services.denoiser.service import Denoiser
from services.prompt_encoder.service import PromptEncoder
from shared.jobs.advance import new_record
from shared.jobs.events import NodeFinished
from shared.jobs.graph import workflow
from shared.models.loras.library import AdapterLibrary
from shared.residency.loader import Loader
from shared.tensors.torch_io import get_tensor
from shared.worker.pull import Work
from shared.worker.task import Task
from tests.conftest import run
from tests.helpers import factories
from tests.helpers.flux import Wish, apart
from tests.helpers.sd import SdAtelier, make_sd
from tests.services.denoiser.world import EVERY_OTHER_STEP, Delivered, World

MODEL = "toy"


async def task(world: World, job_id: str, node: str) -> Task:
    revisioned = await world.records.load(job_id)
    work = Work(Delivered(1))  # type: ignore[arg-type]  # all else is the worker's
    return Task(revisioned, revisioned.record.nodes[node], work, world.records, world.transport)


def test_a_job_is_encoded_and_denoised_as_diffusers_does_it(tmp_path: Path) -> None:
    atelier = SdAtelier(make_sd(tmp_path / "toy", "2-v"))
    wish = Wish("a blue ball", seed=5, steps=5, guidance=3.0, negative="a blur", sampler="ddim")

    async def main() -> torch.Tensor:
        world = await World.create()
        library = AdapterLibrary(
            world.loras, atelier.family, atelier.network.check, 2**30, Loader()
        )
        plain = factories.spec(job_id="job", width=64, height=64, steps=wish.steps)
        spec = msgspec.structs.replace(
            plain,
            prompt=wish.prompt,
            negative_prompt=wish.negative,
            model=MODEL,
            seed=wish.seed,
            sampler=wish.sampler,
            guidance=wish.guidance,
        )
        await world.records.open(new_record("job", spec, workflow(spec), at=0.0))
        encoder = PromptEncoder({MODEL: atelier.encoder}, {MODEL: library})
        encode = await task(world, "job", "encode")
        outputs = await encoder.run(encode)
        encoder.close()
        assert list(outputs) == ["embeds", "negative_embeds"]
        revisioned = await world.records.load("job")
        await world.records.advance(
            revisioned, NodeFinished("encode", 1, outputs, "encoder", 1.0, 2.0)
        )
        model = Model(Engine(atelier.network), atelier.sampling, (Loras(library),))
        denoiser = Denoiser(
            {MODEL: model},
            world.transport,
            world.publisher,
            capacity=4,
            burst_capacity=4,
            interval=EVERY_OTHER_STEP,
        )
        async with model.engine:
            done = await denoiser.run(await task(world, "job", "denoise-0"))
        return get_tensor(world.transport, done["latents"])

    [picture] = atelier.decoder.decode([run(main())])
    assert apart(picture, atelier.expected(wish)) <= 1
