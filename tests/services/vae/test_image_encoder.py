"""A vae process: what it makes of an image and its mask, and what it puts back when it decodes."""

import io
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from pocket.captions import parse
from pocket.render import render
from services.vae.autoencoder import Autoencoder, Posterior
from services.vae.image_encoder import ImageEncoder
from services.vae.service import ImageDecoder, load
from services.vae.source_image import read_source_image
from shared import subjects
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import HandleLost, InvalidRequest, NotFinite
from shared.jobs.advance import new_record
from shared.jobs.events import NodeFinished
from shared.jobs.graph import image_parameters, workflow
from shared.jobs.record_store import RecordStore
from shared.messages import ImageResult, decode
from shared.messages.handle import TensorHandle
from shared.models.cards import read_card
from shared.shipped import DEFAULT_MODEL
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.worker.pull import Work
from shared.worker.task import Task
from tests.conftest import run
from tests.helpers import pictures
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.world import Delivered

MODEL = "pocket-sdxl"


class World:
    """A job's files on a bus in memory, and both handlers of a vae process."""

    def __init__(self, bus: MemoryBus, **fields: Any) -> None:
        self.bus, self.fields = bus, fields
        self.transport = MemoryTransport()
        autoencoders = {MODEL: load(read_card(DEFAULT_MODEL), "cpu", "float32")}
        self.encoder = ImageEncoder(autoencoders, bus)
        self.decoder = ImageDecoder(autoencoders, bus, self.transport)
        self.outputs: dict[str, dict[str, TensorHandle]] = {}

    @classmethod
    async def create(cls, **fields: Any) -> "World":
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        for name in ("image", "mask"):
            if name in fields:
                await bus.store(subjects.job_input("job-1", name), fields[name])
        return cls(bus, **fields)

    async def task(self, node: str) -> Task:
        """Of a node whose inputs are `outputs`."""
        wanted = spec(**self.fields)
        records = RecordStore(self.bus)
        revisioned = await records.open(new_record("job-1", wanted, workflow(wanted), at=0.0))
        for name, outputs in self.outputs.items():
            await records.advance(revisioned, NodeFinished(name, 1, outputs, "w", 1.0, 2.0))
        work = Work(Delivered(1))  # type: ignore[arg-type]  # all else is the worker's
        return Task(revisioned, revisioned.record.nodes[node], work, records, self.transport)

    async def encode(self) -> dict[str, torch.Tensor]:
        self.outputs["encode_image"] = await self.encoder.run(await self.task("encode_image"))
        found = self.outputs["encode_image"]
        return {name: get_tensor(self.transport, handle) for name, handle in found.items()}

    async def decoded(self, latents: torch.Tensor) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(io.BytesIO(await self.file(latents))))

    async def file(self, latents: torch.Tensor) -> bytes:
        handle = put_tensor(self.transport, latents, job_id="job-1", attempt=1, lifetime=60.0)
        self.outputs |= {"encode": {}, "denoise-0": {"latents": handle}}
        await self.decoder.run(await self.task("decode-0"))
        data = await self.bus.stored(subjects.image_result("job-1", 0))
        assert data is not None
        return decode(data, ImageResult).data

    def close(self) -> None:
        self.encoder.close()
        self.decoder.close()


@pytest.mark.parametrize("size", [(128, 128), (200, 90)])
def test_an_image_and_a_mask_are_brought_to_size_as_diffusers_does_it(
    size: tuple[int, int],
) -> None:
    image, box = pictures.picture(size), (30, 20, 71, 63)
    holes = Image.new("L", size, 0)
    holes.paste(255, box)
    files = {"image": pictures.file(image), "mask": pictures.file(pictures.mask(size, box))}
    wanted = spec(width=96, height=64, **files)
    source = read_source_image(image_parameters(wanted), files["image"], files["mask"])
    expected = VaeImageProcessor().preprocess(image, height=64, width=96)
    found = 2.0 * (source.pixels.permute(2, 0, 1)[None].float() / 255.0) - 1.0
    assert torch.equal(found, expected)
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    binary = processor.preprocess(holes, height=64, width=96)
    assert source.mask is not None
    assert torch.equal(source.mask[None, None].float(), binary)
    small = torch.nn.functional.interpolate(binary, size=(8, 12))
    mask = source.latent_mask(8)
    assert mask is not None
    assert torch.equal(mask[None], small)


def test_an_edit_is_encoded_once_and_equals_the_original_outside_its_mask() -> None:
    async def scenario() -> None:
        image, mask = pictures.picture(), pictures.mask()
        world = await World.create(image=pictures.file(image), mask=pictures.file(mask))
        tensors = await world.encode()
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        assert shapes == {
            "image_mean": (4, 16, 16),
            "image_std": (4, 16, 16),
            "image_mask": (1, 16, 16),
            "original": (128, 128, 3),
            "shown": (128, 128),
        }
        found = await world.decoded(torch.randn(4, 16, 16))
        inside = np.asarray(mask)[..., 3] == 0
        assert (found[~inside] == np.asarray(image)[~inside]).all()
        assert (found[inside] != np.asarray(image)[inside]).mean() > 0.9
        (await world.task("encode_image")).discard(world.outputs["encode_image"])
        with pytest.raises(HandleLost):
            get_tensor(world.transport, world.outputs["encode_image"]["original"])
        world.close()

    run(scenario())


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_an_edit_keeps_its_originals_profile_and_is_drawn_in_it(form: str) -> None:
    async def scenario() -> None:
        image, mask = pictures.picture(), pictures.mask()
        swapped = pictures.profile("swapped")
        files = {"image": pictures.file(image, icc_profile=swapped), "mask": pictures.file(mask)}
        world = await World.create(**files, output_format=form)
        plain = await World.create(**files, output_format=form)
        plain.fields["image"] = pictures.file(image)
        await plain.bus.remove(subjects.INPUTS, subjects.job_input("job-1", "image"))
        await plain.bus.store(subjects.job_input("job-1", "image"), plain.fields["image"])
        await world.encode()
        await plain.encode()
        latents = torch.randn(4, 16, 16)
        found = Image.open(io.BytesIO(await world.file(latents)))
        expected = np.asarray(Image.open(io.BytesIO(await plain.file(latents)))).astype(int)
        assert found.info["icc_profile"] == swapped
        pixels = np.asarray(found).astype(int)
        inside = np.asarray(mask)[..., 3] == 0
        if form == "png":
            assert (pixels[~inside] == np.asarray(image)[~inside]).all()
        # Red and blue are exchanged by its profile, so a viewer shows what was drawn.
        off = np.abs(pixels[inside] - expected[inside][..., ::-1])
        assert off.mean() < (2 if form == "png" else 12)
        world.close()
        plain.close()

    run(scenario())


def test_what_is_encoded_is_decoded_again() -> None:
    async def scenario() -> None:
        image = Image.fromarray(render(parse("a large red circle left on white"), Random(1)))
        world = await World.create(image=pictures.file(image))
        tensors = await world.encode()
        assert set(tensors) == {"image_mean", "image_std"}
        found = await world.decoded(tensors["image_mean"])
        difference = np.abs(found.astype(int) - np.asarray(image).astype(int))
        assert difference.mean() < 12
        world.close()

    run(scenario())


class Counting(Autoencoder):
    def __init__(self) -> None:
        super().__init__(DEFAULT_MODEL, "cpu", torch.float32)
        self.encoded: list[tuple[int, ...]] = []

    def encode_each(self, images: Sequence[torch.Tensor]) -> list[Posterior | NotFinite]:
        self.encoded += [tuple(image.shape) for image in images]
        return super().encode_each(images)


def test_an_image_that_is_edited_again_is_not_encoded_again() -> None:
    async def scenario() -> None:
        files = [pictures.file(pictures.picture(seed=seed)) for seed in (0, 1)]
        counting, found = Counting(), []
        world = await World.create(image=files[0])
        encoder = ImageEncoder({MODEL: counting}, world.bus)
        for image in (*files, *files):
            another = await World.create(image=image)
            encoder._bus = another.bus
            another.encoder, another.transport = encoder, world.transport
            found.append(await another.encode())
        assert len(counting.encoded) == 2
        for first, again in zip(found[:2], found[2:], strict=True):
            for name, tensor in first.items():
                assert torch.equal(tensor, again[name])
        assert not torch.equal(found[0]["image_mean"], found[1]["image_mean"])
        encoder.close()

    run(scenario())


def test_a_mask_that_latents_cannot_show_is_refused_by_name() -> None:
    async def scenario() -> None:
        tiny = pictures.file(pictures.mask(shown=(33, 33, 36, 36)))
        world = await World.create(image=pictures.file(pictures.picture()), mask=tiny)
        with pytest.raises(InvalidRequest, match=r"mask.*at least 8 pixels wide"):
            await world.encode()
        world.close()

    run(scenario())


def test_a_job_whose_image_has_been_dropped_fails_by_name() -> None:
    async def scenario() -> None:
        world = await World.create()
        world.fields = {"image": pictures.file(pictures.picture())}
        with pytest.raises(InvalidRequest, match=r"image.*dropped"):
            await world.encode()
        world.close()

    run(scenario())
