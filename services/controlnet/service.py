"""The `hint` node: an image is embedded, once a job. And the steps that denoisers ask for."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import torch

from services.controlnet.hints import read_hint
from services.controlnet.steps import Computed, ReadRow, Step, compute
from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import DarkroomError, HandleLost, InvalidRequest, NotFinite, QueueFull
from shared.jobs.graph import HINT
from shared.messages import (
    ComponentReport,
    ControlReply,
    ControlRequest,
    Failure,
    decode,
    encode,
    failure_of,
)
from shared.messages.handle import TensorHandle
from shared.messages.nodes import Hint
from shared.models.contracts.controlnet import ControlNet
from shared.services import NodeKind
from shared.tensors.cache import TensorCache
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport
from shared.worker.batched_compute import BatchedCompute
from shared.worker.task import Handler, Task

log = logging.getLogger(__name__)

CAPACITY: Final = 8
"""Hints in hand."""
MAX_STEPS: Final = 64
"""Steps in hand, of one ControlNet; further ones are refused, to be asked elsewhere or again."""
MAX_BATCH: Final = 16
"""Steps computed together."""
ANSWER_LIFETIME: Final = 30.0
"""Seconds after which an answer may be dropped, if nobody released it."""
DRAIN_SECONDS: Final = 5.0
"""How long the steps in hand may take when the process is asked to leave."""


class ControlNetService(Handler):
    """Holds the ControlNets of `networks` (by name). It keeps nothing that another replica could
    not read from the same handles."""

    kind: NodeKind = "hint"
    capacity = CAPACITY

    def __init__(self, networks: Mapping[str, ControlNet], bus: Bus, transport: Transport) -> None:
        self._networks: dict[str, ControlNet] = {}
        self._bus = bus
        self._transport = transport
        self._tensors = TensorCache(transport)
        self._embedding: dict[str, BatchedCompute[torch.Tensor, torch.Tensor]] = {}
        self._stepping: dict[str, BatchedCompute[Step, Computed]] = {}
        self._steps: defaultdict[str, int] = defaultdict(int)
        self._rows: defaultdict[str, int] = defaultdict(int)
        self._refused = 0
        for name, network in networks.items():
            self.hold(name, network)

    def hold(self, name: str, network: ControlNet) -> None:
        """Nodes and steps of the ControlNet `name` can be run from now on."""
        self._networks[name] = network
        self.models = tuple(self._networks)
        self._embedding[name] = BatchedCompute(
            f"hint-{name}", partial(_embed, network), max_batch=1, max_waiting=2 * CAPACITY
        )
        self._stepping[name] = BatchedCompute(
            f"control-{name}",
            partial(compute, network, self._put_answer),
            max_batch=MAX_BATCH,
            max_waiting=MAX_STEPS,
        )

    async def drop(self, name: str) -> None:
        """No node or step of the ControlNet `name` is in hand, or comes any more."""
        del self._networks[name]
        self.models = tuple(self._networks)
        await self._embedding.pop(name).leave()
        await self._stepping.pop(name).leave()

    def __repr__(self) -> str:
        return f"<ControlNetService {', '.join(self.models)}>"

    def statistics(self) -> Mapping[str, object]:
        """Requests and rows that were answered, by ControlNet, and requests that were refused."""
        return {"steps": dict(self._steps), "rows": dict(self._rows), "refused": self._refused}

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Output `hint`: the embedded image, (channels, height, width)."""
        asked = task.parameters(Hint)
        data = await self._bus.stored(subjects.job_input(task.job_id, asked.image))
        if data is None:
            allowed = "one whose image has not been dropped yet"
            raise InvalidRequest("controls", asked.image, allowed)
        hint = await asyncio.to_thread(read_hint, data, asked.width, asked.height)
        embedded = await self._embedding[task.node.model].submit(hint)
        task.progressed()
        return {HINT: task.put(embedded)}

    def components(self) -> list[ComponentReport]:
        """What is in hand, and how long it takes, for planners."""
        return [c.report(self.kind, name) for name, c in self._embedding.items()]

    async def serve_steps(self, model: str) -> None:
        """Answer the steps of `model` for as long as this runs; when cancelled, those in hand."""
        in_hand: set[asyncio.Task[None]] = set()
        try:
            async with self._bus.subscribe(subjects.control(model), queue="controlnet") as asked:
                async for message in asked:
                    answering = asyncio.create_task(self._answer(model, message, len(in_hand)))
                    in_hand.add(answering)
                    answering.add_done_callback(in_hand.discard)
        finally:
            if in_hand:
                await asyncio.wait(in_hand, timeout=DRAIN_SECONDS)

    async def _answer(self, model: str, message: Message, in_hand: int) -> None:
        """Whoever asked asks again if this fails."""
        try:
            request = decode(message.data, ControlRequest)
            await self._bus.publish(
                message.reply, encode(await self._step(model, request, in_hand))
            )
        except DarkroomError as error:
            log.warning("a step of %s is not answered: %s", model, error)

    async def _step(self, model: str, request: ControlRequest, in_hand: int) -> ControlReply:
        began = time.monotonic()
        try:
            if in_hand >= MAX_STEPS:
                raise QueueFull(f"the ControlNet {model}", MAX_STEPS)
            x = get_tensor(self._transport, request.x)
            step, kept, failures = await self._read(model, request, x)
            computed = await self._stepping[model].submit(step) if step.rows else Computed()
            if computed.error is not None:
                raise computed.error
        except Exception as error:
            self._refused += 1
            failed = failure_of(error)
            return _reply(dict.fromkeys(range(len(request.rows)), failed), Computed(), began)
        not_finite = failure_of(NotFinite("what it adds to the step is not finite"))
        failures |= {kept[k]: not_finite for k in computed.not_finite}
        self._steps[model] += 1
        self._rows[model] += len(step.rows)
        widened = tuple(kept[k] for k in computed.widened)
        return _reply(failures, computed, began, widened)

    async def _read(
        self, model: str, request: ControlRequest, x: torch.Tensor
    ) -> tuple[Step, list[int], dict[int, Failure]]:
        """What is to be computed, without the rows whose tensors are lost, and their numbers in the
        request."""
        rows, failures = [], {}
        for k, row in enumerate(request.rows):
            try:
                rows.append((k, await ReadRow.read(row, self._networks[model], self._tensors)))
            except (HandleLost, InvalidRequest) as error:
                failures[k] = failure_of(error)
        kept = [k for k, _ in rows]
        return Step(x[kept], tuple(read for _, read in rows)), kept, failures

    def _put_answer(self, job_id: str, flat: torch.Tensor) -> TensorHandle:
        return put_tensor(self._transport, flat, job_id=job_id, attempt=0, lifetime=ANSWER_LIFETIME)

    def close(self) -> None:
        """Let what is computed finish; nothing comes any more."""
        for embedding in self._embedding.values():
            embedding.close()
        for stepping in self._stepping.values():
            stepping.close()


def _embed(network: ControlNet, hints: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [network.embed(hint)[0].cpu() for hint in hints]


def _reply(
    failures: dict[int, Failure], computed: Computed, began: float, widened: tuple[int, ...] = ()
) -> ControlReply:
    return ControlReply(
        failures=failures,
        residuals=computed.residuals,
        shapes=computed.shapes,
        seconds=time.monotonic() - began,
        widened=widened,
    )
