"""Halves of steps between denoisers: asked of whoever is idle, and computed while we are."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from typing import Final

import torch

from services.denoiser.cfg_parallel.split import CfgBranch
from services.denoiser.engine.executor import Errand
from services.denoiser.engine.occupation import Occupation
from services.denoiser.rows.row import Row
from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import DarkroomError
from shared.messages import (
    CfgBranchReply,
    CfgBranchRequest,
    ReleaseTensor,
    decode,
    encode,
    named_handles,
)
from shared.messages.handle import TensorHandle
from shared.models.contracts.network import Conditioning
from shared.tensors.cache import TensorCache
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 10.0
"""After this an answer is of no use; the one who asked computed it long ago."""
LIFETIME: Final = 30.0
"""Seconds after which a branch may be dropped, if nobody released it."""


class RemoteBranches:
    """Implements `AskBranch`. To be made in the event loop that shall do the talking."""

    def __init__(self, bus: Bus, transport: Transport, model: str) -> None:
        self._bus, self._transport, self._model = bus, transport, model
        self._loop = asyncio.get_running_loop()

    def __call__(self, row: Row, x: torch.Tensor) -> Future[torch.Tensor | None]:
        """Raises `ArenaFull` if there is no room for x."""
        handle = put_tensor(self._transport, x, job_id=row.job_id, attempt=0, lifetime=LIFETIME)
        request = CfgBranchRequest(
            job_id=row.job_id,
            x=handle,
            t=row.t,
            scalars=row.scalars,
            text=tuple(row.texts[0].values()),
        )
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)

    async def _ask(self, request: CfgBranchRequest) -> torch.Tensor | None:
        try:
            subject = subjects.assist(self._model)
            message = await self._bus.request(subject, encode(request), ASK_SECONDS)
            out = decode(message.data, CfgBranchReply).out
            if out is None:
                return None
            found = await asyncio.to_thread(get_tensor, self._transport, out)
            if out.slot is not None:
                released = encode(ReleaseTensor(tensor=out))
                await self._bus.publish(subjects.release(out.slot.arena), released)
            return found
        finally:
            self._transport.free(request.x)


WhenIdle = Callable[[Errand], Awaitable[torch.Tensor]]
"""See `Engine.when_idle`."""


class CfgWorker:
    """Computes halves for others while its process is idle."""

    def __init__(self, bus: Bus, transport: Transport, occupation: Occupation) -> None:
        self._bus, self._transport, self._occupation = bus, transport, occupation
        self._tensors = TensorCache(transport)
        self.halves: Counter[str] = Counter()
        """Computed for others, by model."""

    async def serve(self, model: str, names: Collection[str], when_idle: WhenIdle) -> None:
        """For as long as this runs. `names`: of the network's conditioning; see
        `Family.conditioning`."""
        while True:
            await self._occupation.idle()
            listening = asyncio.create_task(self._listen(model, names, when_idle))
            try:
                await self._occupation.busy()
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    async def _listen(self, model: str, names: Collection[str], when_idle: WhenIdle) -> None:
        """One branch at a time: a second one would come too late for who asked."""
        subject = subjects.assist(model)
        async with (
            asyncio.TaskGroup() as group,
            self._bus.subscribe(subject, queue="denoiser") as asked,
        ):
            helping: asyncio.Task[None] | None = None
            async for message in asked:
                if helping is None or helping.done():
                    helping = group.create_task(self._answer(model, message, names, when_idle))
                else:
                    await self._reply(message, None)

    async def _answer(
        self, model: str, message: Message, names: Collection[str], when_idle: WhenIdle
    ) -> None:
        """Whatever goes wrong, who asked can do without, and is told so: also when this is
        cancelled because there is other work."""
        out = None
        try:
            request = decode(message.data, CfgBranchRequest)
            out = self._put(request, await when_idle(await self._read(request, names)))
            self.halves[model] += 1
        except Exception as error:
            log.info("no help is given: %s", error)
        finally:
            await self._reply(message, out)

    async def _reply(self, message: Message, out: TensorHandle | None) -> None:
        with contextlib.suppress(DarkroomError):
            await self._bus.publish(message.reply, encode(CfgBranchReply(out=out)))

    async def _read(self, request: CfgBranchRequest, names: Collection[str]) -> CfgBranch:
        handles = named_handles(names, request.text)
        tensors = {name: await self._tensors.get(handle) for name, handle in handles.items()}
        x = get_tensor(self._transport, request.x)
        return CfgBranch(x, request.t, Conditioning.of_one(tensors, request.scalars))

    def _put(self, request: CfgBranchRequest, out: torch.Tensor) -> TensorHandle:
        return put_tensor(self._transport, out, job_id=request.job_id, attempt=0, lifetime=LIFETIME)
