"""Jobs whose masks are cached, from their records to what their results say."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from services.denoiser.controlnet.feature import Controls
from services.denoiser.engine.engine import Engine
from services.denoiser.loras.extension import RowLoras
from services.denoiser.loras.feature import Loras
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.mask_cache.feature import MaskCaches
from services.denoiser.mask_cache.lookup import CacheLookup
from services.denoiser.mask_cache.predictor import MaskedSteps
from services.denoiser.mask_cache.row_cache import RowCache
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.node.build_row import build_row
from services.denoiser.node.model import Model
from services.denoiser.service import Denoiser
from shared.jobs.advance import new_record
from shared.jobs.events import NodeFinished
from shared.jobs.graph import workflow
from shared.messages import EditSpec, LoraChoice
from shared.models.contracts.network import MaskedNetwork
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.directory import LoraDirectory
from shared.residency.loader import Loader
from shared.tensors.torch_io import put_tensor
from tests.helpers import factories
from tests.helpers.flux import Atelier, make_flux
from tests.services.denoiser.mask_cache.test_masked import STEPS, picture
from tests.services.denoiser.world import EVERY_OTHER_STEP, World, in_world

MODEL = "tiny-flux"
EDIT = EditSpec(strength=1.0, mask="file", mask_mode="cached")


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    return Atelier(make_flux(tmp_path_factory.mktemp("model")))


@pytest.fixture
def model(atelier: Atelier, tmp_path: Path) -> Iterator[Model]:
    """Of a denoiser; its engine is not started."""
    assert isinstance(atelier.network, MaskedNetwork)
    store = ActivationStore(tmp_path / "memory", tmp_path / "disk", 2**26, 0)
    loader = Loader()
    library = AdapterLibrary(
        LoraFiles(LoraDirectory()), atelier.family, atelier.network.check, 2**20, loader
    )
    with closing(CacheLookup(store, atelier.family, atelier.network, loader)) as lookup:
        yield Model(
            Engine(atelier.network, predictors=[LoraWeights(atelier.network), MaskedSteps()]),
            atelier.sampling,
            (Loras(library), Controls(), MaskCaches(lookup, atelier.family.rounds_up)),
        )


async def add(world: World, atelier: Atelier, job_id: str, **changes: Any) -> None:
    """A job of which all is done that comes before denoising. Its prompt is its id."""
    plain = factories.spec(width=128, height=128, steps=STEPS, guidance=1.0)
    settings = {"model": MODEL, "sampler": "flow_euler", "edit": EDIT} | changes
    wanted = msgspec.structs.replace(plain, **settings)
    await world.records.open(new_record(job_id, wanted, workflow(wanted), at=0.0))
    [text], image = atelier.encoder([job_id], [()]), picture()
    assert image.mask is not None
    assert image.std is not None
    done: dict[str, Mapping[str, torch.Tensor]] = {
        "encode": text.tensors,
        "encode_image": {
            "image_mean": image.mean[0],
            "image_std": image.std[0],
            "image_mask": image.mask[0],
        },
    }
    for node, tensors in done.items():
        outputs = {
            name: put_tensor(world.transport, tensor, job_id=job_id, attempt=1, lifetime=60.0)
            for name, tensor in tensors.items()
        }
        revisioned = await world.records.load(job_id)
        await world.records.advance(
            revisioned, NodeFinished(node, 1, outputs, "somebody", 1.0, 2.0)
        )


def test_a_result_says_what_was_cached_also_if_somebody_else_began_it(
    atelier: Atelier, model: Model
) -> None:
    async def scenario(world: World) -> None:
        denoiser = Denoiser(
            {MODEL: model},
            world.transport,
            world.publisher,
            capacity=4,
            burst_capacity=4,
            interval=EVERY_OTHER_STEP,
        )

        async def said(job_id: str) -> list[str]:
            task = await world.task(job_id)
            await denoiser.run(task)
            masks = model.features[-1]
            assert isinstance(masks, MaskCaches)
            masks.lookup.settle()
            return sorted(task.approximations)

        share = "mask_cached: image 0, 0.14 of tokens"
        await add(world, atelier, "first")
        await add(world, atelier, "second")
        async with model.engine:
            assert await said("first") == []
            assert await said("second") == [f"{share}, 4 of steps 1 to 4"]
            assert await said("second") == [
                f"{share}, 2 of steps 1 to 2",
                f"{share}, 2 of steps 3 to 4",
            ]

    in_world(scenario)


def test_exact_jobs_suspects_and_jobs_with_loras_have_no_cache(
    atelier: Atelier, model: Model
) -> None:
    async def scenario(world: World) -> None:
        await add(world, atelier, "cached")
        await add(world, atelier, "exact", edit=msgspec.structs.replace(EDIT, mask_mode="exact"))
        await add(world, atelier, "styled", loras=(LoraChoice(name="style"),))
        await add(world, atelier, "suspect")
        tasks = [await world.task(job_id) for job_id in ("cached", "exact", "styled")]
        tasks.append(await world.suspect("suspect"))
        rows = [
            build_row(task, model, [RowLoras()] * bool(task.spec.loras), world.transport)
            for task in tasks
        ]
        assert [row.extension(RowCache) is not None for row in rows] == [True, False, False, False]

    in_world(scenario)
