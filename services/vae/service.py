"""The `decode` node: final latents become a committed image. Also previews of running latents."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from PIL import Image

from services.vae.autoencoder import WIDENED, Autoencoder, Decoded
from services.vae.images import encode_image, less_quality
from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import NotFinite
from shared.host.crash_points import reached
from shared.jobs.graph import LATENTS, ORIGINAL
from shared.media.profiles import from_srgb
from shared.messages import ComponentReport, ImageResult, Preview, PreviewTask, decode, encode
from shared.messages.handle import TensorHandle
from shared.messages.nodes import Decode
from shared.models.cards import ModelCard
from shared.policy.batch_bounds import DECODING
from shared.services import NodeKind
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.batched_compute import BatchedCompute
from shared.worker.task import Handler, Task, Tensors

log = logging.getLogger(__name__)

SOURCE_TENSORS: Final = ("original", "shown")
PROFILE: Final = "profile"
"""Tensors that come with a mask; see `ImageEncoder.run`."""
MAX_PREVIEWS: Final = 4
"""Previews in hand; further ones are dropped."""


class ImageDecoder(Handler):
    """Decodes with `autoencoders` (by model name)."""

    kind: NodeKind = "decode"
    capacity = DECODING.capacity

    def __init__(
        self, autoencoders: Mapping[str, Autoencoder], bus: Bus, transport: Transport
    ) -> None:
        self._bus = bus
        self._transport = transport
        self._compute: dict[str, BatchedCompute[torch.Tensor, Decoded | NotFinite]] = {}
        for name, autoencoder in autoencoders.items():
            self.hold(name, autoencoder)

    def hold(self, name: str, autoencoder: Autoencoder) -> None:
        """Nodes of model `name` can be run from now on."""
        self._compute[name] = BatchedCompute(
            f"decode-{name}",
            autoencoder.decode_each,
            max_batch=DECODING.max_batch,
            max_waiting=4 * DECODING.capacity,
        )
        self.models = tuple(self._compute)

    async def drop(self, name: str) -> None:
        """No node of model `name` is in hand, or comes any more."""
        compute = self._compute.pop(name)
        self.models = tuple(self._compute)
        await compute.leave()

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Commits the image to the results stream: the first to do so wins. What a mask keeps of
        the image that it began from is put back first. No outputs."""
        asked = task.parameters(Decode)
        index = asked.output
        latents = await asyncio.to_thread(
            get_tensor, self._transport, task.inputs(LATENTS)["latents"]
        )
        pixels, widened = await self._decoded(task.model, latents)
        task.progressed()
        profile = None
        if widened:
            task.warnings.add(f"image {index}: {WIDENED}")
        if asked.pasted:
            original = task.inputs(ORIGINAL)
            pixels, profile = await asyncio.to_thread(self._with_source, pixels, original)
        form, wanted = asked.output_format, asked.output_compression
        encoded = await asyncio.to_thread(encode_image, pixels, form, wanted, profile)
        if (said := less_quality(index, form, wanted, encoded.quality)) is not None:
            task.warnings.add(said)
        result = ImageResult(
            job_id=task.job_id,
            index=index,
            seed=asked.seed,
            width=asked.width,
            height=asked.height,
            output_format=form,
            data=encoded.data,
        )
        reached("commit.before")
        await self._bus.store(subjects.image_result(task.job_id, index), encode(result))
        reached("commit.after")
        return {}

    async def _decoded(self, model: str, latents: torch.Tensor) -> Decoded:
        """Raises `NotFinite`."""
        found = await self._compute[model].submit(latents)
        if isinstance(found, NotFinite):
            raise found
        return found

    def _with_source(
        self, pixels: torch.Tensor, inputs: Tensors
    ) -> tuple[torch.Tensor, bytes | None]:
        """`pixels` where the mask shows them, those of the source image everywhere else; all of
        them in the colours of its profile, if it has one."""
        source, shown = (get_tensor(self._transport, inputs[name]) for name in SOURCE_TENSORS)
        profile = None
        if PROFILE in inputs:
            profile = get_tensor(self._transport, inputs[PROFILE]).numpy().tobytes()
            drawn = from_srgb(Image.fromarray(pixels.numpy()), profile)
            pixels = torch.from_numpy(np.array(drawn))
        return torch.where(shown[..., None] > 0, pixels, source), profile

    def components(self) -> list[ComponentReport]:
        """What is in hand, and how long it takes, for planners."""
        return [c.report(self.kind, name) for name, c in self._compute.items()]

    async def serve_previews(self, model: str) -> None:
        """Answer preview tasks of `model` for as long as this runs. Lossy, by design."""
        in_hand: set[asyncio.Task[None]] = set()
        async with (
            self._bus.subscribe(subjects.preview(model), queue="vae") as tasks,
            asyncio.TaskGroup() as group,
        ):
            async for message in tasks:
                if len(in_hand) < MAX_PREVIEWS:
                    preview = group.create_task(self._preview(model, message))
                    in_hand.add(preview)
                    preview.add_done_callback(in_hand.discard)

    async def _preview(self, model: str, message: Message) -> None:
        """Whatever goes wrong with a preview costs that preview, and nothing else."""
        try:
            task = decode(message.data, PreviewTask)
            latents = await asyncio.to_thread(get_tensor, self._transport, task.latents)
            pixels, _ = await self._decoded(model, latents)
            encoded = await asyncio.to_thread(
                encode_image, pixels, task.output_format, task.output_compression
            )
            preview = Preview(
                job_id=task.job_id,
                index=task.index,
                partial_index=task.partial_index,
                step=task.step,
                data=encoded.data,
                output_format=task.output_format,
            )
            await self._bus.publish(subjects.event(task.job_id), encode(preview))
        except Exception as error:
            log.info("a preview was dropped: %s", error)

    def close(self) -> None:
        """Let what is computed finish; nothing comes any more."""
        for compute in self._compute.values():
            compute.close()


def load(card: ModelCard, device: str, dtype: str) -> Autoencoder:
    """The autoencoder of this model, which was asked for an image as a request gets that says
    nothing. Raises `NotFinite`, or whatever loading does."""
    autoencoder = Autoencoder(card.source, device, getattr(torch, dtype))
    autoencoder.ask(card.default_width // card.scale, card.default_height // card.scale)
    return autoencoder
