"""`python -m tests.chaos.stand_ins KIND`: a model service without a model, in half a second.

Everything but the arithmetic is the real thing: worker, leases, records, arenas, checkpoints, order
of deeds. The arithmetic is a chain of hashes over prompt, seed and step, so that a step which was
left out, taken twice or resumed from wrong bytes gives another picture.
"""

import asyncio
import hashlib
import io
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from PIL import Image

import shared.host.start_up  # noqa: F401 (as the services do)
from shared import subjects
from shared.errors import DarkroomError, HandedOver
from shared.host.crash_points import reached
from shared.jobs.graph import LATENTS, TEXTS
from shared.jobs.record import Checkpoint
from shared.messages import ImageResult, StepProgress, encode
from shared.messages.handle import INLINE_LIMIT, TensorHandle
from shared.messages.nodes import Decode, Denoise, Encode
from shared.models.catalogue import Catalogue
from shared.process.component_memory import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.served import ServedCatalogue
from shared.process.serving import serve_nodes
from shared.services import NodeKind
from shared.tensors.transport import Transport
from shared.worker.task import Handler, Task
from tests.chaos.fleet import injection

REPEATS: Final = INLINE_LIMIT // 32 + 1
"""A digest, so many times over, is too large to travel inside a handle: it needs a slot."""
LIFETIME: Final = 3600.0
STEP_SECONDS: Final = float(os.environ.get("DARKROOM_CHAOS_STEP_SECONDS", "0.02"))
SIDE: Final = 64
"""Pixels of a stand-in's picture."""


class Unwanted(DarkroomError):
    """The record would not take a checkpoint."""

    code = "no_longer_wanted"


class StandIn(Handler):
    """What the three have in common."""

    capacity = 8

    def __init__(self, running: Process, transport: Transport) -> None:
        self.models = ()
        self._running = running
        self._transport = transport

    @asynccontextmanager
    async def serving(self, name: str, loaded: str) -> AsyncIterator[None]:
        """Within, it holds the model of this name."""
        self.models = (*self.models, name)
        try:
            yield
        finally:
            self.models = tuple(other for other in self.models if other != name)

    def _put(self, task: Task, digest: bytes) -> TensorHandle:
        reached("write.before")
        handle = self._transport.put(
            digest * REPEATS,
            "uint8",
            (len(digest) * REPEATS,),
            job_id=task.job_id,
            attempt=task.state.attempt,
            lifetime=LIFETIME,
        )
        reached("write.after")
        return handle

    def _get(self, handle: TensorHandle) -> bytes:
        """The digest behind `handle`. Raises `HandleLost`."""
        return bytes(self._transport.get(handle)[:32])


class Encoder(StandIn):
    kind: NodeKind = "encode"

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        digest = hashlib.sha256(task.parameters(Encode).prompt.encode()).digest()
        task.progressed()
        return {"embeds": self._put(task, digest)}


class Denoiser(StandIn):
    kind: NodeKind = "denoise"
    capacity = 16

    def __init__(self, running: Process, transport: Transport) -> None:
        super().__init__(running, transport)
        self._leaving: set[str] = set()
        """Models whose rows are handed over."""

    async def drain(self) -> None:
        self._leaving.update(self.models)

    async def let_go(self, model: str) -> None:
        self._leaving.add(model)
        await asyncio.to_thread(injection.hold, "drain")

    @asynccontextmanager
    async def serving(self, name: str, loaded: str) -> AsyncIterator[None]:
        self._leaving.discard(name)
        async with super().serving(name, loaded):
            yield

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        asked = task.parameters(Denoise)
        step, digest = self._start(task)
        kept: TensorHandle | None = None
        while step < asked.steps:
            if task.model in self._leaving:
                raise HandedOver(task.job_id, task.node.name)
            await asyncio.to_thread(injection.hold, f"step-{step}")
            await asyncio.sleep(STEP_SECONDS)
            step, digest = step + 1, hashlib.sha256(digest + step.to_bytes(4)).digest()
            if injection.is_poison(task.spec.prompt):
                injection.die()
            task.progressed()
            await self._tell(task, step)
            if step % self._running.settings.checkpoint_every == 0:
                kept = await self._keep(task, step, digest, kept)
        return {"latents": self._put(task, digest)}

    def _start(self, task: Task) -> tuple[int, bytes]:
        """Steps taken, and where they led: at the last checkpoint if it can be read."""
        embeds = self._get(task.inputs(TEXTS)["embeds"])
        seed = task.parameters(Denoise).seed.to_bytes(8)
        checkpoint = task.state.checkpoint
        if checkpoint is not None:
            try:
                return checkpoint.step, self._get(checkpoint.tensors["x"])
            except DarkroomError:
                pass
        return 0, hashlib.sha256(embeds + seed).digest()

    async def _keep(
        self, task: Task, step: int, digest: bytes, before: TensorHandle | None
    ) -> TensorHandle:
        handle = self._put(task, digest)
        kept = await task.checkpoint(
            Checkpoint(step=step, tensors={"x": handle}), alone=task.suspect
        )
        if not kept:
            self._transport.free(handle)
            raise Unwanted("the checkpoint came too late")
        if before is not None:
            self._transport.free(before)
        return handle

    async def _tell(self, task: Task, step: int) -> None:
        progress = StepProgress(
            job_id=task.job_id,
            node=task.node.name,
            index=task.node.index,
            step=step,
            steps=task.parameters(Denoise).steps,
            rows=1,
            at=time.time(),
        )
        await self._running.bus.publish(subjects.event(task.job_id), encode(progress))


class Vae(StandIn):
    kind: NodeKind = "decode"

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        asked = task.parameters(Decode)
        index = asked.output
        result = ImageResult(
            job_id=task.job_id,
            index=index,
            seed=asked.seed,
            width=SIDE,
            height=SIDE,
            output_format="png",
            data=_picture(self._get(task.inputs(LATENTS)["latents"])),
        )
        task.progressed()
        reached("commit.before")
        await self._running.bus.store(subjects.image_result(task.job_id, index), encode(result))
        reached("commit.after")
        return {}


def _picture(digest: bytes) -> bytes:
    file = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), digest * (SIDE * SIDE // 32)).save(file, "PNG")
    return file.getvalue()


HANDLERS: Final[Mapping[str, Callable[..., StandIn]]] = {
    "prompt_encoder": Encoder,
    "denoiser": Denoiser,
    "vae": Vae,
}


def _load(name: str) -> str:
    injection.hold("load")
    return name


def main(service: str) -> None:
    async def serve(running: Process) -> None:
        sources = running.settings.sources
        served = await ServedCatalogue(running.bus, sources, Catalogue.load).begin()
        async with arena(running) as transport:
            handler = HANDLERS[service](running, transport)
            host = ComponentHost(
                what="the stand-in",
                sources=lambda: served.catalogue.sources,
                folders=lambda name: (),
                load=_load,
                serving=handler.serving,
            )
            await serve_nodes(running, transport, (handler,), host, served=served)

    run_process(service, serve)


if __name__ == "__main__":
    main(sys.argv[1])
