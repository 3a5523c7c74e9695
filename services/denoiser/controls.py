"""Asks ControlNets over the bus, one after another if need be, and reads their answers."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Final

import torch

from services.denoiser.steered import Answer, Traffic
from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable, ControlUnavailable, DarkroomError, HandleLost
from shared.messages import (
    ControlledRow,
    ControlReply,
    ControlRequest,
    Failure,
    ReleaseTensor,
    decode,
    encode,
)
from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.1
"""Pause after a question that nobody could answer."""
LEAST_TIMEOUT: Final = 1.0
TIMEOUT_ROUNDS: Final = 8.0
"""Mean rounds without an answer after which somebody else is asked."""
MOST_UNANSWERED: Final = 3
"""Replicas that may have had a question and vanished: it may be what ended them."""
SMALL_BYTES: Final = 1024 * 1024
"""A tensor of at most this many is read in the event loop."""
_NEWEST: Final = 0.2
"""Weight of the last round in their mean."""


class ControlNets:
    """Implements `Ask`. To be made in the event loop that shall do the talking."""

    def __init__(self, bus: Bus, transport: Transport, seconds: float) -> None:
        """`seconds`: without an answer after which a question is given up."""
        self._bus, self._transport, self._seconds = bus, transport, seconds
        self._loop = asyncio.get_running_loop()
        self._rounds: dict[str, float] = {}
        """By model: the mean seconds of a round."""
        self.retries = 0
        """Questions that had to be asked again."""

    def __repr__(self) -> str:
        return f"<ControlNets of {sorted(self._rounds)}, {self.retries} retries>"

    def __call__(
        self, model: str, rows: Sequence[ControlledRow], x: torch.Tensor
    ) -> Future[Answer]:
        """See `Ask`. Raises `ArenaFull` if there is no room for x."""
        handle = put_tensor(
            self._transport, x, job_id=rows[0].job_id, attempt=0, lifetime=2 * self._seconds
        )
        asking = self._ask(model, tuple(rows), handle)
        return asyncio.run_coroutine_threadsafe(asking, self._loop)

    async def _ask(self, model: str, rows: tuple[ControlledRow, ...], x: TensorHandle) -> Answer:
        try:
            return await self._insist(model, rows, x)
        finally:
            self._transport.free(x)

    async def _insist(self, model: str, rows: tuple[ControlledRow, ...], x: TensorHandle) -> Answer:
        """Ask until one answers. Raises `ControlUnavailable` if none does within the time."""
        question = encode(ControlRequest(rows=rows, x=x))
        began, unanswered, reason = time.monotonic(), 0, "nobody was asked"
        while unanswered < MOST_UNANSWERED:
            left = began + self._seconds - time.monotonic()
            if left <= 0.0:
                break
            asked, timeout = time.monotonic(), min(left, self._timeout(model))
            try:
                message = await self._bus.request(subjects.control(model), question, timeout)
                reply = decode(message.data, ControlReply)
                if (again := _worth_another(reply, rows, x)) is None:
                    messages = len(question) + len(message.data)
                    answer = await self._read(model, reply, rows, asked, x, messages)
                    self._measured(model, answer.seconds)
                    return answer
                reason = again.message
            except (BusUnavailable, HandleLost) as error:
                unanswered += time.monotonic() - asked >= timeout
                reason = error.message
            self.retries += 1
            log.info("%s is asked again: %s", model, reason)
            await asyncio.sleep(RETRY_SECONDS)
        raise ControlUnavailable(
            model, f"no answer in {time.monotonic() - began:.1f} s; the last try: {reason}"
        )

    def _timeout(self, model: str) -> float:
        """How long one replica may take."""
        mean = self._rounds.get(model)
        if mean is None:
            return self._seconds / MOST_UNANSWERED
        return min(max(LEAST_TIMEOUT, TIMEOUT_ROUNDS * mean), self._seconds)

    def _measured(self, model: str, seconds: float) -> None:
        mean = self._rounds.get(model, seconds)
        self._rounds[model] = mean + _NEWEST * (seconds - mean)

    async def _read(
        self,
        model: str,
        reply: ControlReply,
        rows: tuple[ControlledRow, ...],
        asked: float,
        x: TensorHandle,
        messages: int,
    ) -> Answer:
        """`messages`: bytes on the bus. Raises `HandleLost` if the residuals cannot be had."""
        residuals: list[torch.Tensor] = []
        if reply.residuals is not None:
            flat = await self._fetched(reply.residuals)
            sizes = [int(torch.Size(shape).numel()) for shape in reply.shapes]
            parts = torch.split(flat, sizes)
            residuals = [p.view(shape) for p, shape in zip(parts, reply.shapes, strict=True)]
            await self._release(reply.residuals)
        seconds = time.monotonic() - asked
        handles = [handle for handle in (x, reply.residuals) if handle is not None and handle.slot]
        return Answer(
            residuals=residuals,
            images=places(rows, reply.failures),
            failures={k: _as_error(model, failure) for k, failure in reply.failures.items()},
            seconds=seconds,
            hop=seconds - reply.seconds,
            traffic=Traffic(messages, sum(handle.nbytes for handle in handles)),
        )

    async def _fetched(self, handle: TensorHandle) -> torch.Tensor:
        if handle.nbytes <= SMALL_BYTES:
            return get_tensor(self._transport, handle)
        return await asyncio.to_thread(get_tensor, self._transport, handle)

    async def _release(self, handle: TensorHandle) -> None:
        """The ControlNet may forget its answer; if it does not hear of it, it does so by itself."""
        if handle.slot is not None:
            subject = subjects.release(handle.slot.arena)
            await self._bus.publish(subject, encode(ReleaseTensor(tensor=handle)))


def places(
    rows: Sequence[ControlledRow], failed: Collection[int] = ()
) -> dict[int, tuple[int, ...]]:
    """Which of the images of an answer belong to each row that is not among the `failed`: first
    come all the unconditional ones, then one of each row."""
    left = [k for k in range(len(rows)) if k not in failed]
    guided = [k for k in left if len(rows[k].texts) == 2]
    found: dict[int, tuple[int, ...]] = {k: (len(guided) + i,) for i, k in enumerate(left)}
    for i, k in enumerate(guided):
        found[k] = (i, *found[k])
    return found


def _worth_another(
    reply: ControlReply, rows: Sequence[ControlledRow], x: TensorHandle
) -> Failure | None:
    """The failure of an answer that says nothing, if another replica, or a little later the same
    one, may do better. Not if a row's own tensors are lost: they have to be made again."""
    if reply.residuals is not None or not reply.failures:
        return None
    for failure in reply.failures.values():
        lost = failure.code == HandleLost.code and failure.fields.get("handle") != x.name
        if lost or not failure.retryable:
            return None
    return next(iter(reply.failures.values()))


def _as_error(model: str, failure: Failure) -> DarkroomError:
    if failure.code == HandleLost.code:
        return HandleLost(str(failure.fields.get("handle")), failure.message)
    return ControlUnavailable(model, failure.message)
