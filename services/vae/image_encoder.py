"""The `encode_image` node: the image that a job begins from, once for all of its rows."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

import torch

from services.vae.autoencoder import WIDENED, Autoencoder, Posterior
from services.vae.source_image import SourceImage, read_source_image, refuse_nothing
from shared import subjects
from shared.bus.base import Bus
from shared.errors import InvalidRequest, NotFinite
from shared.host.lru import LruCache
from shared.messages import ComponentReport
from shared.messages.handle import TensorHandle
from shared.messages.nodes import EncodeImage
from shared.services import NodeKind
from shared.worker.batched_compute import BatchedCompute
from shared.worker.task import Handler, Task

MAX_BATCH: Final = 1
"""Images per forward pass; an image is encoded once, however many begin from it."""
CAPACITY: Final = 4
"""Images in hand."""
MAX_REMEMBERED: Final = 64 * 1024 * 1024
"""Bytes of what images were encoded to: those that are edited again are not encoded again."""


_Key = tuple[str, int, tuple[int, ...], str]
"""The model, how often it was held, and the image."""


class ImageEncoder(Handler):
    """Encodes with `autoencoders` (by model name)."""

    kind: NodeKind = "encode_image"
    capacity = CAPACITY

    def __init__(self, autoencoders: Mapping[str, Autoencoder], bus: Bus) -> None:
        self._bus = bus
        self._times: Counter[str] = Counter()
        """By model, how often it was held: another one may come by the same name."""
        self._compute: dict[str, BatchedCompute[torch.Tensor, Posterior | NotFinite]] = {}
        for name, autoencoder in autoencoders.items():
            self.hold(name, autoencoder)
        self._encoded: LruCache[_Key, Posterior] = LruCache(MAX_REMEMBERED)

    def hold(self, name: str, autoencoder: Autoencoder) -> None:
        """Nodes of model `name` can be run from now on."""
        self._times[name] += 1
        self._compute[name] = BatchedCompute(
            f"encode-image-{name}",
            autoencoder.encode_each,
            max_batch=MAX_BATCH,
            max_waiting=2 * CAPACITY,
        )
        self.models = tuple(self._compute)

    async def drop(self, name: str) -> None:
        """No node of model `name` is in hand, or comes any more."""
        compute = self._compute.pop(name)
        self.models = tuple(self._compute)
        await compute.leave()

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Outputs `image_mean` and `image_std`, float32 (channels, height/8, width/8); with a mask
        also `image_mask` (1, height/8, width/8), 1 where the image is drawn anew, and for decoding
        `original`, uint8 pixels (height, width, 3), `shown` (height, width), 1 likewise, and the
        `profile` of those pixels, if they have one."""
        asked = task.parameters(EncodeImage)
        image = await self._file(task, "image")
        mask = await self._file(task, "mask") if asked.mask == "file" else None
        source = await asyncio.to_thread(read_source_image, asked, image, mask)
        task.progressed()
        posterior = await self._posterior(task.model, source.pixels)
        task.progressed()
        if posterior.widened:
            task.warnings.add(f"image: {WIDENED}")
        return task.put_all(_tensors(task, source, posterior))

    async def _posterior(self, model: str, pixels: torch.Tensor) -> Posterior:
        """Raises `NotFinite`."""
        digest = await asyncio.to_thread(lambda: hashlib.sha256(pixels.numpy().data).hexdigest())
        key = (model, self._times[model], tuple(pixels.shape), digest)
        known = self._encoded.get(key)
        if known is not None:
            return known
        found = await self._compute[model].submit(pixels)
        if isinstance(found, NotFinite):
            raise found
        self._encoded.put(key, found, found.mean.nbytes + found.std.nbytes)
        return found

    async def _file(self, task: Task, name: Literal["image", "mask"]) -> bytes:
        data = await self._bus.stored(subjects.job_input(task.job_id, name))
        if data is None:
            raise InvalidRequest(name, name, "one that has not been dropped yet")
        return data

    def components(self) -> list[ComponentReport]:
        """What is in hand, and how long it takes, for planners."""
        return [c.report(self.kind, name) for name, c in self._compute.items()]

    def close(self) -> None:
        """Let what is computed finish; nothing comes any more."""
        for compute in self._compute.values():
            compute.close()


def _tensors(task: Task, source: SourceImage, posterior: Posterior) -> dict[str, torch.Tensor]:
    tensors = {"image_mean": posterior.mean, "image_std": posterior.std}
    asked = task.parameters(EncodeImage)
    scale = asked.height // posterior.mean.shape[1]
    mask = source.latent_mask(scale)
    if mask is not None and source.mask is not None:
        refuse_nothing(mask, asked, scale)
        tensors["image_mask"] = mask
        tensors["original"] = source.own_colours
        tensors["shown"] = source.mask.to(torch.uint8)
        if source.profile is not None:
            tensors["profile"] = torch.frombuffer(bytearray(source.profile), dtype=torch.uint8)
    return tensors
