"""What a model service is handed, and what it has to provide: `Task` and `Handler`."""

import asyncio
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from shared.errors import BusUnavailable, Outdated
from shared.host.crash_points import reached
from shared.jobs.events import Checkpointed, Claimed, Event, Isolated, Returned
from shared.jobs.graph import Node
from shared.jobs.leases import is_suspect
from shared.jobs.record import Checkpoint, JobRecord, NodeState
from shared.jobs.record_store import RecordStore, Revisioned
from shared.messages import ComponentReport, JobSpec
from shared.messages.handle import TensorHandle
from shared.messages.nodes import NodeParameters
from shared.services import NodeKind
from shared.tensors.transport import Transport
from shared.worker.pull import Work

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

LIFETIME: Final = 3600.0
"""Seconds after which what was written for a job may be dropped, if nobody released it."""
RETRY_SECONDS: Final = 0.5
"""Pause between two tries of what must not be lost."""

T = TypeVar("T")
Tensors = Mapping[str, TensorHandle]


async def retry_until_written(write: Callable[[], Awaitable[T]], alive: Callable[[], None]) -> T:
    """What `write` answers, as soon as the bus does, however long that takes; `alive` is called
    meanwhile. For what must not be lost with work that is done."""
    while True:
        try:
            return await write()
        except BusUnavailable as error:
            log.warning("finished work waits for the bus: %s", error)
            alive()
            await asyncio.sleep(RETRY_SECONDS)


P = TypeVar("P", bound=NodeParameters)


class Task:
    """One attempt of one node under one lease, as its handler sees it."""

    def __init__(
        self,
        revisioned: Revisioned,
        state: NodeState,
        work: Work,
        records: RecordStore,
        transport: Transport,
    ) -> None:
        self._revisioned = revisioned
        self._work = work
        self._records = records
        self._transport = transport
        self.state = state
        self.holder = secrets.token_hex(6)
        """Ours, under whatever lease."""
        self.unclaimed = work.delivery.deliveries > 1 or state.lease > 1 or bool(state.holder)
        """The lease in `state` is a former holder's; see `claim`."""
        self.approximations: set[str] = set()
        """What was not computed exactly; goes into the job's result,"""
        self.warnings: set[str] = set()
        """as does what of the request had no effect, each beginning with its field,"""
        self.text_tokens = 0
        """and how many tokens the prompts were."""

    @property
    def record(self) -> JobRecord:
        return self._revisioned.record

    @property
    def spec(self) -> JobSpec:
        return self._revisioned.record.spec

    @property
    def job_id(self) -> str:
        return self._revisioned.record.job_id

    @property
    def node(self) -> Node:
        return self.state.node

    @property
    def model(self) -> str:
        """The name of the component that the node runs on."""
        return self.node.model

    def parameters(self, kind: type[P]) -> P:
        """Those of the node, whose handler knows their `kind`. Raises `Outdated`."""
        found = self.node.parameters
        if not isinstance(found, kind):
            raise Outdated(self.job_id, self.node.name)
        return found

    def inputs(self, port: str) -> dict[str, TensorHandle]:
        """What is at `port`, by tensor name."""
        return self.record.nodes[self.node.ports[port]].outputs

    @property
    def lease(self) -> tuple[int, str]:
        """Under which to report: its number, and who we are."""
        return self.state.lease, self.holder

    @property
    def suspect(self) -> bool:
        """Its holders vanished, again and again; it may be what ended them, and runs `alone`."""
        return is_suspect(self.state, self.unclaimed)

    @property
    def wanted(self) -> bool:
        """Whether the record, as last seen, still has this attempt to be done by somebody."""
        now = self.record.nodes.get(self.node.name)
        return (
            not self.record.ended
            and now is not None
            and now.status == "ready"
            and now.attempt == self.state.attempt
        )

    def progressed(self) -> None:
        """A sign of life: without one for `stall_seconds`, somebody else gets the work."""
        self._work.progressed()

    def put(self, tensor: "torch.Tensor", lifetime: float = LIFETIME) -> TensorHandle:
        """Write `tensor` where others can read it, until the job ends, or for `lifetime` seconds.
        Raises `ArenaFull`."""
        from shared.tensors.torch_io import put_tensor  # not every worker has torch

        return put_tensor(
            self._transport,
            tensor,
            job_id=self.job_id,
            attempt=self.state.attempt,
            lifetime=lifetime,
        )

    def put_all(self, tensors: Mapping[str, "torch.Tensor"]) -> dict[str, TensorHandle]:
        """All of them, or none: raises `ArenaFull`."""
        written: dict[str, TensorHandle] = {}
        try:
            for name, tensor in tensors.items():
                written[name] = self.put(tensor)
        except Exception:
            self.discard(written)
            raise
        return written

    def discard(self, tensors: Tensors) -> None:
        """Free what `put` has written."""
        for handle in tensors.values():
            self._transport.free(handle)

    async def checkpoint(self, checkpoint: Checkpoint, alone: bool = False) -> bool:
        """Make `checkpoint` the place to continue from; `alone`: the node still runs alone.
        False: this attempt is not wanted now, or not from us."""
        name, attempt, lease = self._key
        event = Checkpointed(name, attempt, checkpoint, time.time(), lease, self.holder, alone)
        reached("checkpoint.before")
        kept = await self.advance(event)
        reached("checkpoint.after")
        return kept

    async def claim(self, alone: bool = False) -> bool:
        """Make the lease ours, after somebody else's. False: another claimed it first, or nobody
        shall have it any more."""
        claimed = await self.advance(Claimed(*self._key, time.time(), self.holder, alone))
        if not claimed or not self.wanted:
            return False
        self.state = self.record.nodes[self.node.name]
        self.unclaimed = False
        return True

    async def alone(self) -> bool:
        """Mark that this process computes nothing else from now on: should it end, this node will
        have ended it. To be called before anything is done for a suspect. False: not wanted any
        more, or not from us."""
        if self.unclaimed:
            return await self.claim(alone=True)
        return await self.advance(Isolated(*self._key, time.time(), self.holder))

    async def give_back(self, delay: float = 0.0) -> None:
        """Let somebody else go on with it, in `delay` seconds; this is no loss."""
        if self.unclaimed or await self.advance(Returned(*self._key, time.time(), self.holder)):
            await self._work.delivery.retry(delay)

    async def advance(self, event: Event) -> bool:
        """False: the event came too late to change anything."""
        return await self._records.advance(self._revisioned, event)

    @property
    def _key(self) -> tuple[str, int, int]:
        return self.node.name, self.state.attempt, self.state.lease


class Handler(ABC):
    """What a model service provides."""

    kind: NodeKind
    models: tuple[str, ...]
    """Those that it holds now."""
    capacity: int
    """Nodes it wants to hold at a time,"""
    burst_capacity: int = 0
    """and interactive ones beyond that."""
    isolates: bool = False
    """Whether it sees to it itself that a suspect runs alone; if not, the worker does."""

    def has_capacity(self) -> bool:
        """Whether it wants more nodes now, but for interactive ones, which are offered anyway."""
        return True

    def load(self, in_hand: int) -> int:
        """What a pull tells while `in_hand` nodes are; see `Puller`."""
        return in_hand

    def components(self) -> Sequence[ComponentReport]:
        """What planners are told of its components."""
        return ()

    @abstractmethod
    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Do the node's work and write its outputs. Raises `DarkroomError` (retryable or not),
        above all `HandleLost` for an input that cannot be read, and after `drain` `HandedOver`.
        May be cancelled anywhere."""
        ...

    async def let_go(self, model: str) -> None:  # noqa: B027 (most have nothing to do)
        """No node of `model` is pulled here any more: be done with what runs soon, as `drain`."""

    async def drain(self) -> None:  # noqa: B027 (most have nothing to do)
        """The process is to leave, and pulls nothing more: be done with what runs soon."""
