"""Asks ControlNets over the bus, one after another if need be, and reads their answers."""

import asyncio
import contextlib
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Final

import torch

from services.denoiser.controlnet.state import Answer, Traffic
from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable, ControlUnavailable, DarkroomError, HandleLost, NotFinite
from shared.messages import (
    ControlledRow,
    ControlReply,
    ControlRequest,
    Failure,
    ReleaseTensor,
    decode,
    encode,
)
from shared.messages.handle import TensorHandle
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport

RETRY_SECONDS: Final = 0.1
"""Pause after a question that nobody could answer."""
LEAST_TIMEOUT: Final = 1.0
TIMEOUT_ROUNDS: Final = 8.0
"""Mean rounds without an answer after which somebody else is asked as well."""
FIRST_TRIES: Final = 3
"""Replicas that may be asked the first question of all, as nobody knows how long it takes."""
MOST_UNANSWERED: Final = 8
"""Askings of one question that may be without an answer at a time; at least 2."""
SMALL_BYTES: Final = 1024 * 1024
"""A tensor of at most this many is read in the event loop."""
_NEWEST: Final = 0.2
"""Weight of the last round in their mean."""


class _Refused(DarkroomError):
    """One had no answer; another, or the same one later, may have one."""

    code = "refused"
    retryable = True


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
            return await self._with_retries(model, rows, x)
        finally:
            self._transport.free(x)

    async def _with_retries(
        self, model: str, rows: tuple[ControlledRow, ...], x: TensorHandle
    ) -> Answer:
        """Ask until one answers. Who takes long may answer still, while another is asked as well:
        it may be slow, or gone. Of many without an answer the second one makes room for another:
        the first may be only slow, as all are, and one that is gone may be asked any number of
        times. Raises `ControlUnavailable` if none does within the time."""
        began, reason = time.monotonic(), "nobody answered"
        tries: list[asyncio.Task[Answer]] = []
        try:
            while (left := began + self._seconds - time.monotonic()) > 0.0:
                if len(tries) == MOST_UNANSWERED:
                    tries.pop(1).cancel()
                tries.append(asyncio.create_task(self._try(model, rows, x, began, left)))
                patience = min(left, self._timeout(model))
                done, _ = await asyncio.wait(tries, timeout=patience, return_when=FIRST_COMPLETED)
                for one in done:
                    if (error := _worth_asking_again(one)) is None:
                        return one.result()
                    reason = error.message
                    tries.remove(one)
                self.retries += 1
                if done:
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        raise ControlUnavailable(model, f"no answer in {self._seconds:g} s; the last try: {reason}")

    async def _try(
        self,
        model: str,
        rows: tuple[ControlledRow, ...],
        x: TensorHandle,
        began: float,
        seconds: float,
    ) -> Answer:
        """Of one replica, within `seconds`. Raises `BusUnavailable`, `_Refused` or `HandleLost` if
        another one had better be asked."""
        asked, question = time.monotonic(), encode(ControlRequest(rows=rows, x=x))
        message = await self._bus.request(subjects.control(model), question, seconds)
        reply = decode(message.data, ControlReply)
        if (again := _worth_another(reply, rows, x)) is not None:
            raise _Refused(again.message)
        messages = len(question) + len(message.data)
        answer = await self._read(model, reply, rows, began, x, messages)
        self._measured(model, time.monotonic() - asked)
        return answer

    def _timeout(self, model: str) -> float:
        """How long one replica may take until another one is asked as well."""
        mean = self._rounds.get(model)
        if mean is None:
            return self._seconds / FIRST_TRIES
        return min(max(LEAST_TIMEOUT, TIMEOUT_ROUNDS * mean), self._seconds)

    def _measured(self, model: str, seconds: float) -> None:
        mean = self._rounds.get(model, seconds)
        self._rounds[model] = mean + _NEWEST * (seconds - mean)

    async def _read(
        self,
        model: str,
        reply: ControlReply,
        rows: tuple[ControlledRow, ...],
        began: float,
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
        seconds = time.monotonic() - began
        handles = [handle for handle in (x, reply.residuals) if handle is not None and handle.slot]
        return Answer(
            residuals=residuals,
            images=places(rows, reply.failures),
            failures={k: _as_error(model, failure) for k, failure in reply.failures.items()},
            seconds=seconds,
            hop=seconds - reply.seconds,
            traffic=Traffic(messages, sum(handle.nbytes for handle in handles)),
            widened=frozenset(reply.widened),
        )

    async def _fetched(self, handle: TensorHandle) -> torch.Tensor:
        if handle.nbytes <= SMALL_BYTES:
            return get_tensor(self._transport, handle)
        return await asyncio.to_thread(get_tensor, self._transport, handle)

    async def _release(self, handle: TensorHandle) -> None:
        """The ControlNet may forget its answer; if it does not hear of it, it does so by itself."""
        if handle.slot is not None:
            subject = subjects.release(handle.slot.arena)
            with contextlib.suppress(BusUnavailable):
                await self._bus.publish(subject, encode(ReleaseTensor(tensor=handle)))


def _worth_asking_again(ended: asyncio.Task[Answer]) -> DarkroomError | None:
    """Why a try failed, if the next one may not. None: it has an answer, or an error that stays."""
    error = ended.exception()
    return error if isinstance(error, BusUnavailable | HandleLost | _Refused) else None


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
    if failure.code == NotFinite.code:
        return NotFinite(f"the ControlNet {model}: {failure.message}")
    return ControlUnavailable(model, failure.message)
